"""Mistakes between the values of models, and of what trains or asks them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from probeline.config.draft import Draft
from probeline.config.entries import ModelEntry
from probeline.config.keys import Problem
from probeline.config.kinds import NO_MODEL
from probeline.config.label_tokens import LABEL_TOKENS
from probeline.config.schema import ORIGIN, Config
from probeline.config.words import hint, shown

# Of the model it is made from, or of the training.
_NOT_OWN = ("revision", "tokenizer", "trust_remote_code", "layers")


def model_problems(draft: Draft) -> Iterator[Problem]:
    """Yield the mistakes between the values of every model."""
    for name, model in draft.config.models.items():
        if name == NO_MODEL:
            yield ("models", name), "is the name of the results without a model; choose another"
        if model.finetuned_from is None:
            yield from _path_problems(name, model, draft)
        else:
            yield from _origin_problems(name, model, draft)


def _path_problems(name: str, model: ModelEntry, draft: Draft) -> Iterator[Problem]:
    path = ("models", name)
    if not draft.sure(*path, "finetuned_from"):
        return
    for key in ORIGIN:
        if key in model.model_fields_set and draft.sure(*path, key):
            yield (*path, key), "only with finetuned_from; remove it"
    if not draft.sure(*path, "path"):
        return
    if model.path is None:
        if draft.sure(*path):
            yield (*path, "path"), "missing; give text, such as 'roberta-base'"
        return
    local = model.path.startswith(("package:", "./", "../", "/", "~"))
    if local and model.revision is not None:
        yield (
            (*path, "revision"),
            f"only hub models have revisions, and {shown(model.path)} is a local one",
        )


def _origin_problems(name: str, model: ModelEntry, draft: Draft) -> Iterator[Problem]:
    config, path = draft.config, ("models", name)
    if model.path is not None and draft.sure(*path, "path"):
        yield (*path, "path"), "not with finetuned_from, which decides the folder; remove one"
    for key in _NOT_OWN:
        if key in model.model_fields_set and draft.sure(*path, key):
            yield (*path, key), f"is that of {shown(model.finetuned_from)}; remove it here"
    if draft.sure(*path, "finetuned_from") and draft.sure("models"):
        known = [other for other, entry in config.models.items() if entry.finetuned_from is None]
        yield from unknown((*path, "finetuned_from"), [model.finetuned_from], known, "models")
    if model.on is None:
        if draft.sure(*path, "on"):
            yield (*path, "on"), "missing; give the name of the dataset to fine-tune on"
    elif draft.sure(*path, "on") and draft.sure("datasets"):
        yield from unknown((*path, "on"), [model.on], list(config.datasets), "datasets")
        if model.on in config.datasets and draft.sure("datasets", model.on, "label"):
            yield from _task_problems(name, model, draft)
    lora = config.finetune.lora
    if lora is not None and not lora.merge and draft.sure("finetune", "lora", "merge"):
        yield (
            ("finetune", "lora", "merge"),
            f"false leaves no model that models.{name} could be read from; set it to true",
        )


def _task_problems(name: str, model: ModelEntry, draft: Draft) -> Iterator[Problem]:
    path, tasks = ("models", name, "task"), draft.config.tasks(model.on)
    if not draft.sure(*path):
        return
    if model.task is not None:
        yield from unknown(path, [model.task], tasks, f"the tasks of {shown(model.on)}")
    elif len(tasks) > 1:
        yield path, f"missing; {shown(model.on)} has the tasks {', '.join(tasks)}"


def baseline_problems(draft: Draft) -> Iterator[Problem]:
    """Yield the mistakes of the sections of baselines."""
    config = draft.config
    if not draft.sure("models"):
        return
    for section in ("icl", "finetune", "label_tokens", "search"):
        chosen = getattr(config, section).models
        if chosen != "all" and draft.sure(section, "models"):
            known = [
                name
                for name, entry in config.models.items()
                if section == "icl" or entry.finetuned_from is None
            ]
            yield from unknown((section, "models"), chosen, known, "models")
            if draft.sure("runs"):
                yield from _idle(section, [name for name in chosen if name in known], config)
    neighbours = config.icl.neighbours
    if neighbours is not None and draft.sure("icl", "neighbours"):
        yield from unknown(("icl", "neighbours"), [neighbours], list(config.models), "models")
        if neighbours in config.models and draft.sure("runs"):
            yield from _strangers(neighbours, config)
    yield from _embedding_problems(draft)
    if draft.sure("label_tokens", "finetune"):
        yield from _training_problems(draft)
        yield from _search_problems(draft)


def _training_problems(draft: Draft) -> Iterator[Problem]:
    """What of `finetune` label tokens cannot take over."""
    config, path = draft.config, ("label_tokens", "finetune")
    own = config.label_tokens.finetune
    given = set() if own is None else own.model_fields_set
    for key in ("models", "seeds"):
        if key in given:
            yield (*path, key), f"is that of the section around it; set label_tokens.{key}"
    sure = "baselines" in config.model_fields_set and draft.sure("baselines")
    if not sure or LABEL_TOKENS not in config.baselines or not draft.sure("finetune", "lora"):
        return
    if config.label_token_training()["lora"] is not None:
        where = "" if "lora" in given else ", which is as in `finetune` if left out"
        yield (
            (*path, "lora"),
            f"label tokens are trained with the whole model, not with adapters; set it to null"
            f"{where}",
        )


def _search_problems(draft: Draft) -> Iterator[Problem]:
    config = draft.config
    if LABEL_TOKENS not in config.search.classifiers or not draft.sure("search", "classifiers"):
        return
    if draft.sure("finetune", "lora") and config.label_token_training()["lora"] is not None:
        yield (
            ("search", "classifiers"),
            "label tokens are trained with the whole model, not with adapters; set "
            "label_tokens.finetune.lora to null",
        )


def _idle(section: str, chosen: list[str], config: Config) -> Iterator[Problem]:
    """Models of a baseline that run on no dataset."""
    running = {model for _, model in config.pairs()}
    for name in chosen:
        if section.replace("_", "-") in config.baselines and name not in running:
            yield (
                (section, "models"),
                f"{shown(name)} runs on no dataset; add it to runs, or remove it here",
            )


def _strangers(neighbours: str, config: Config) -> Iterator[Problem]:
    """Datasets on which texts are to be found by a model that never sees them."""
    if "icl" not in config.baselines or config.icl.select != "nearest":
        return
    pairs = config.pairs()
    for dataset in dict.fromkeys(
        dataset for dataset, model in pairs if config.chosen(config.icl.models, model)
    ):
        if (dataset, neighbours) not in pairs:
            yield (
                ("icl", "neighbours"),
                f"{shown(neighbours)} does not run on {shown(dataset)}, so it has no embeddings "
                "of its texts; add the pair to runs",
            )


def _embedding_problems(draft: Draft) -> Iterator[Problem]:
    """What needs embeddings of the texts, which are one of the shards."""
    config = draft.config
    sure = all(draft.sure("extract", key) for key in ("representations", "poolings"))
    if not sure or ("hidden", "mean") in config.stored():
        return
    advice = "needs `hidden` and `mean` among extract.representations and extract.poolings"
    for path, reader in embedding_readers(config):
        if draft.sure(path[0]):
            yield path, f"{reader} {advice}"


def embedding_readers(config: Config) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield (path, value) of all that was asked for and reads embeddings of the texts.

    A default that cannot be is left out in silence.
    """
    said = "baselines" in config.model_fields_set
    for baseline in ("sentence-embedding", "zero-shot"):
        if said and baseline in config.baselines:
            yield ("baselines",), baseline
        elif baseline in config.lrsl.sources:
            yield ("lrsl", "sources"), baseline
    if "icl" in config.baselines and config.icl.select == "nearest":
        yield ("icl", "select"), "nearest"


def unknown(path: tuple, found: Iterable[str], known: list[str], what: str) -> Iterator[Problem]:
    """Yield a line for each name in `found` that is not one of the `known`."""
    for name in found:
        if name not in known:
            yield (
                path,
                f"{shown(name)} is not one of {what} ({', '.join(known)}){hint(name, known)}",
            )
