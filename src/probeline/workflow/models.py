"""Jobs that run a model: pinned revision, no network, threads, resume data beside the results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from probeline.files import read_json, write_json
from probeline.workflow.states import STATES, held


def offline_spec(spec: Mapping, pinned: str | None, threads: int) -> dict:
    """Keep a job's model to the commit that the fetch rule brought, and torch to its threads.

    Parameters
    ----------
    spec : mapping
        An entry of `models:`.
    pinned : path or None
        JSON with the commit that is in the cache; None or empty for folders and packages.
    threads : int
        CPU threads of the model.

    Returns
    -------
    dict
        The entry with its commit.
    """
    import torch

    torch.set_num_threads(threads)
    found = pinned_revision(spec, pinned)
    if pinned and "tokenizer" in (told := read_json(pinned)):
        found["tokenizer_revision"] = told["tokenizer"]
    return found


def pinned_revision(spec: Mapping, pinned: str | None) -> dict:
    """Return an entry of `models:` or `datasets:` with the commit that JSON `pinned` tells, if any.

    The JSON of a folder or package, of which only the tokenizer was fetched, tells none.
    """
    commit = read_json(pinned)["commit"] if pinned else None
    return {**spec, "revision": commit or spec.get("revision")}


def offline_embedder(settings: Mapping, pinned: str | None, threads: int) -> dict:
    """As `offline_spec`, for a sentence embedding.

    Parameters
    ----------
    settings : mapping
        path, revision, max_length.
    """
    spec = {key: settings[key] for key in ("path", "revision", "max_length")}
    return offline_spec(spec, pinned, threads) | {"device": "auto"}


def run_finetune(
    names: Mapping[str, str],
    inputs,
    outputs: Mapping[str, str],
    threads: int,
    settings: Mapping,
    aside: Mapping,
) -> None:
    """Run the fine-tuning stage of one model, dataset, task and seed.

    Parameters
    ----------
    names : mapping
        dataset, task, model, seed.
    inputs
        `dataset` (its artifacts) and `pinned`.
    outputs : mapping
        folder, identity, predictions, scores.
    settings : mapping
        spec, options, metric.
    aside : mapping
        Options that leave the result as it is.
    """
    from probeline.finetune.kind import REGULAR

    _train("finetune", REGULAR, names, inputs, outputs, threads, settings, aside)


def run_regular(
    names: Mapping[str, str],
    inputs,
    outputs: Mapping[str, str],
    threads: int,
    settings: Mapping,
    aside: Mapping,
) -> None:
    """Run the same stage for what labels as tokens are compared with; see `run_finetune`.

    Parameters
    ----------
    settings : mapping
        thresholds too.
    """
    from probeline.finetune.kind import Counterpart

    kind = Counterpart(settings["thresholds"])
    _train("regular", kind, names, inputs, outputs, threads, settings, aside)


def run_label_tokens(
    names: Mapping[str, str],
    inputs,
    outputs: Mapping[str, str],
    threads: int,
    settings: Mapping,
    aside: Mapping,
) -> None:
    """Run the same stage with labels as tokens; `run_finetune` has the parameters.

    Parameters
    ----------
    names : mapping
        init too.
    inputs
        Where there is a shortlist also `ranking`, `first_stage` and perhaps `crossfit`.
    settings : mapping
        label_tokens too, the options of `read_kind`.
    """
    from probeline.label_tokens.kind import read_kind

    kind = read_kind(settings["label_tokens"], _first_stage(inputs))
    _train("label_tokens", kind, names, inputs, outputs, threads, settings, aside)


def _first_stage(inputs):
    from probeline.label_tokens.shortlist import FirstStage

    if not inputs.get("ranking"):
        return None
    return FirstStage(inputs.ranking, inputs.first_stage, inputs.get("crossfit"))


def _train(
    stage: str,
    kind,
    names: Mapping[str, str],
    inputs,
    outputs: Mapping[str, str],
    threads: int,
    settings: Mapping,
    aside: Mapping,
) -> None:
    spec = offline_spec(settings["spec"], inputs.get("pinned"), threads)

    from probeline.finetune.stage import finetune
    from probeline.models.weights import files_hash, model_files

    place = [names[key] for key in ("dataset", "task", "model", "init", "seed") if key in names]
    with held(stage, *place, made=outputs["folder"]) as state:
        finetune(
            Path(inputs.dataset[0]).parent,
            names["task"],
            names["model"],
            spec,
            outputs["folder"],
            outputs["predictions"],
            outputs["scores"],
            state,
            {**settings["options"], **aside},
            int(names["seed"]),
            settings["metric"],
            kind,
            keep_state=True,
        )
        # The weights alone: that a training took longer is no reason to extract again.
        files = model_files(Path(outputs["folder"]))
        write_json(outputs["identity"], {"model": files_hash(files)})


def run_embed(
    names: Mapping[str, str],
    stage: str,
    inputs,
    outputs: Mapping[str, str],
    threads: int,
    settings: Mapping,
) -> None:
    """Tune the sentence embedding on the hard negatives of one source.

    Parameters
    ----------
    names : mapping
        The wildcards, task and seed among them.
    stage : str
        What tells the job's state from that of another rule with these names.
    inputs
        `dataset` (its artifacts), `triplets` and perhaps `pinned`.
    outputs : mapping
        folder, identity.
    settings : mapping
        Those of `probeline.lrsl.stage_embed.embed`; embedder too.
    """
    spec = offline_embedder(settings["embedder"], inputs.get("pinned"), threads)

    from probeline.lrsl.stage_embed import embed

    with held(stage, *names.values(), made=outputs["folder"]) as state:
        embed(
            Path(inputs.dataset[0]).parent,
            names["task"],
            inputs.triplets,
            spec,
            outputs["folder"],
            outputs["identity"],
            state,
            settings,
            int(names["seed"]),
            keep_state=True,
        )


def run_search(
    names: Mapping[str, str],
    inputs,
    found: str,
    threads: int,
    settings: Mapping,
    aside: Mapping,
) -> None:
    """Run one job's share of a hyperparameter search.

    Parameters
    ----------
    names : mapping
        dataset, task, model, classifier, worker.
    inputs
        `dataset` (its artifacts) and `pinned`; as `run_label_tokens` where labels are tokens.
    found : path
        What the job has done; the journal lies beside it.
    settings : mapping
        spec, options, metric, search; with labels as tokens also label_tokens, the options of
        `read_kind`.
    aside : mapping
        options that leave the scores as they are, and workers.
    """
    spec = offline_spec(settings["spec"], inputs.get("pinned"), threads)

    from probeline.finetune.kind import REGULAR
    from probeline.label_tokens.kind import read_kind
    from probeline.search.stage import search

    kind = REGULAR
    if "label_tokens" in settings:
        kind = read_kind(settings["label_tokens"], _first_stage(inputs))
    place = [names[key] for key in ("dataset", "task", "model", "classifier", "worker")]
    chosen = settings["search"]
    with held("search", *place, made=found):
        search(
            Path(inputs.dataset[0]).parent,
            names["task"],
            names["model"],
            spec,
            Path(found).with_name("journal.log"),
            found,
            # Of all jobs: another may take up what one of them has left.
            STATES.joinpath("search", *place[:-1]),
            {**settings["options"], **aside["options"]},
            chosen["space"],
            chosen["trials"],
            chosen["seed"],
            int(names["worker"]),
            aside["workers"],
            chosen["prune"],
            settings["metric"],
            kind,
        )


def run_label_attention(
    names: Mapping[str, str],
    inputs,
    outputs: Mapping[str, str],
    threads: int,
    settings: Mapping,
) -> None:
    """Run the stage that shows what labels look at, for one trained classifier.

    Parameters
    ----------
    names : mapping
        dataset, task, model, init, seed.
    inputs
        `dataset` (its artifacts), `identity` (beside the classifier's folder) and `predictions`.
    outputs : mapping
        table, page.
    settings : mapping
        texts, device, trust_remote_code.
    """
    device = offline_spec({"device": settings["device"]}, None, threads)["device"]

    from probeline.label_tokens.stage_attention import attention

    title = " / ".join(names[key] for key in ("dataset", "task", "model", "init"))
    attention(
        Path(inputs.identity).with_suffix(""),
        Path(inputs.dataset[0]).parent,
        names["task"],
        inputs.predictions,
        outputs["table"],
        outputs["page"],
        settings["texts"],
        f"{title} / seed {names['seed']}",
        device or "auto",
        settings["trust_remote_code"],
    )
