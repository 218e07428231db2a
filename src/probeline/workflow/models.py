"""Jobs that run a model: pinned revision, no network, threads, resume data beside the results."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from probeline.files import read_json, write_json


def offline_spec(spec: Mapping, pinned: str | None, threads: int) -> dict:
    """Keep a job's model to what the fetch rule brought, and torch to the job's threads.

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
    # Before huggingface_hub is imported: it reads this once. The fetch rule was the only download.
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch

    torch.set_num_threads(threads)
    found = dict(spec)
    if pinned:
        # No commit: a folder or package, of which only the tokenizer was fetched.
        found["revision"] = read_json(pinned)["commit"] or found.get("revision")
    return found


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
    spec = offline_spec(settings["spec"], inputs.get("pinned"), threads)

    from probeline.finetune.stage import finetune
    from probeline.models.weights import files_hash, model_files

    # Outside the declared outputs, which Snakemake deletes when a job fails.
    place = (names["dataset"], names["task"], names["model"], names["seed"])
    finetune(
        Path(inputs.dataset[0]).parent,
        names["task"],
        names["model"],
        spec,
        outputs["folder"],
        outputs["predictions"],
        outputs["scores"],
        Path(".probeline", "finetune", *place),
        {**settings["options"], **aside},
        int(names["seed"]),
        settings["metric"],
    )
    # The weights alone: that a training took longer is no reason to extract again.
    files = model_files(Path(outputs["folder"]))
    write_json(outputs["identity"], {"model": files_hash(files)})
