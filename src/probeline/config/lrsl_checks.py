"""Mistakes between the values of reranking, of scores made elsewhere, and of what they name."""

from __future__ import annotations

from collections.abc import Iterator

from probeline.config.draft import Draft
from probeline.config.entries import PACKAGE
from probeline.config.keys import Problem
from probeline.config.kinds import NO_MODEL
from probeline.config.lrsl import GIVEN, TRAINED_SOURCES, ScoresEntry
from probeline.config.model_checks import unknown
from probeline.config.words import shown

# As many as `probeline.lrsl.folds` deals.
_MOST_FOLDS = 127


def lrsl_problems(draft: Draft) -> Iterator[Problem]:
    """Yield the mistakes of the section `lrsl`."""
    lrsl = draft.config.lrsl
    if draft.sure("lrsl", "sources"):
        yield from _source_problems(draft)
    if draft.sure("lrsl", "models") and draft.sure("models") and lrsl.models != "all":
        known = list(draft.config.models)
        yield from unknown(("lrsl", "models"), lrsl.models, known, "models")
        if lrsl.sources and draft.sure("runs"):
            yield from _idle(draft)
    if draft.sure("lrsl", "embedder") and draft.sure("lrsl", "sources"):
        yield from _embedder_problems(draft)
    if draft.sure("lrsl", "crossfit") and lrsl.crossfit and not 2 <= lrsl.crossfit <= _MOST_FOLDS:
        yield (
            ("lrsl", "crossfit"),
            f"{lrsl.crossfit} folds cannot be held out in turn; give 2 to {_MOST_FOLDS}, or 0 for "
            "the classifiers' own logits",
        )
    if lrsl.fixed and lrsl.threshold == "validation" and draft.sure("lrsl", "threshold"):
        yield (
            ("lrsl", "threshold"),
            "validation is a choice, and fixed leaves none; give misclassified or a number",
        )
    if lrsl.tune is not None and draft.sure("lrsl", "tune"):
        yield from _tuning_problems(draft)


def _source_problems(draft: Draft) -> Iterator[Problem]:
    config, path = draft.config, ("lrsl", "sources")
    for source in config.lrsl.sources:
        if source == GIVEN:
            if not config.scores and draft.sure("scores"):
                yield path, "given are the scores made elsewhere, and `scores` names none"
        elif source in TRAINED_SOURCES or not draft.sure("baselines"):
            continue
        elif source not in config.baselines:
            yield (
                path,
                f"{source} is none of baselines ({', '.join(config.baselines)}), so there is "
                "nothing to rerank; add it there, or remove it here",
            )


def _idle(draft: Draft) -> Iterator[Problem]:
    """Models that are to be reranked and run on no dataset."""
    running = {model for _, model in draft.config.pairs()}
    for name in draft.config.lrsl.models:
        if name in draft.config.models and name not in running:
            yield (
                ("lrsl", "models"),
                f"{shown(name)} runs on no dataset; add it to runs, or remove it here",
            )


def _embedder_problems(draft: Draft) -> Iterator[Problem]:
    lrsl = draft.config.lrsl
    if lrsl.embedder is None:
        if lrsl.sources:
            yield (
                ("lrsl", "embedder"),
                "missing; give a sentence embedding, such as "
                "'sentence-transformers/all-MiniLM-L6-v2'",
            )
        return
    local = PACKAGE.fullmatch(lrsl.embedder) or lrsl.embedder.startswith(("./", "../", "/", "~"))
    if local and lrsl.revision is not None and draft.sure("lrsl", "revision"):
        yield (
            ("lrsl", "revision"),
            f"only hub models have revisions, and {shown(lrsl.embedder)} is a local one",
        )


def _tuning_problems(draft: Draft) -> Iterator[Problem]:
    """In-context learning leaves the training texts out unless it is told otherwise."""
    config = draft.config
    sure = all(draft.sure(*path) for path in (("lrsl", "sources"), ("icl", "max_texts")))
    if sure and "icl" in config.lrsl.sources and config.icl.max_texts.train == 0:
        yield (
            ("icl", "max_texts", "train"),
            "0 leaves no scored training texts for lrsl to tune the embedding on; raise it, or set "
            "lrsl.tune to null",
        )


def scores_problems(draft: Draft) -> Iterator[Problem]:
    """Yield the mistakes of the scores made elsewhere."""
    for name, entry in draft.config.scores.items():
        yield from _name_problems(name, draft)
        if draft.sure("scores", name, "dataset") and draft.sure("datasets"):
            known = list(draft.config.datasets)
            yield from unknown(("scores", name, "dataset"), [entry.dataset], known, "datasets")
            if entry.dataset in known and draft.sure("datasets", entry.dataset, "label"):
                yield from _task_problems(name, entry, draft)


def _name_problems(name: str, draft: Draft) -> Iterator[Problem]:
    taken = {model.lower(): model for model in (*draft.config.models, NO_MODEL)}
    if name.lower() in taken and draft.sure("models"):
        yield (
            ("scores", name),
            f"has the name of the model {shown(taken[name.lower()])}, whose results lie in a "
            "folder of that name; choose another",
        )


def _task_problems(name: str, entry: ScoresEntry, draft: Draft) -> Iterator[Problem]:
    config, path = draft.config, ("scores", name, "task")
    tasks = config.tasks(entry.dataset)
    if not draft.sure(*path):
        return
    if entry.task is not None:
        yield from unknown(path, [entry.task], tasks, f"the tasks of {shown(entry.dataset)}")
    elif len(tasks) > 1:
        yield path, f"missing; {shown(entry.dataset)} has the tasks {', '.join(tasks)}"
    running = {dataset for dataset, _ in config.pairs()}
    if draft.sure("runs") and draft.sure("models") and entry.dataset not in running:
        yield (
            ("scores", name, "dataset"),
            f"no model runs on {shown(entry.dataset)}; add it to runs, or remove the scores",
        )
