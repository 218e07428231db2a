"""What the stages of reranking read: rows that a classifier answers, its logits, similarities."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from probeline.data.store import Dataset
from probeline.lrsl.embedding import texts_to_embed
from probeline.lrsl.hardness import certainty, misclassified, threshold_of
from probeline.lrsl.neighbours import label_similarities, narrows
from probeline.lrsl.rerank import TakenOff, log_odds
from probeline.lrsl.temperature import fit_temperature
from probeline.probe.task import SPLITS, TaskData, task_data
from probeline.results.predictions import Predictions
from probeline.results.truth import checked_predictions, labels_of

if TYPE_CHECKING:
    from probeline.lrsl.embedding import Embedder
    from probeline.lrsl.label_vectors import LabelVectors

# Top labels that are looked at where the configuration does not say how many.
_TOP = 3


def top_labels(k: int | str, classes: int) -> int:
    """How many top labels `auto` means: 3, or all where there are fewer."""
    return min(_TOP, classes) if k == "auto" else k


def answered(
    path: str | os.PathLike, dataset: Dataset, task_name: str, metric: str | None
) -> tuple[Predictions, TaskData]:
    """Read predictions that are to be reranked.

    Returns
    -------
    predictions : Predictions
    task : TaskData
        On those rows alone that the predictions answer.

    Raises
    ------
    ProbelineError
        If they are missing, truncated, or of another task or dataset.
    """
    task = task_data(dataset, task_name, metric)
    found = checked_predictions(path, dataset, task)
    rows = {split: found.rows_of(split) for split in SPLITS}
    y = {split: labels_of(task, split, own) for split, own in rows.items()}
    return found, replace(task, rows=rows, y=y)


def reached(found: Predictions, dataset: Dataset, task: TaskData) -> np.ndarray:
    """Rows of validation and test that have logits, int64 (n,).

    Where a level of a hierarchy does not apply they count for whole paths; rows that were left
    unanswered do not.
    """
    later = found.split != "train"
    left_out = dataset.defined(task.name) & ~found.defined
    return np.flatnonzero(later & ~left_out)


def taken_off(found: Predictions, task: TaskData) -> tuple[float, ...] | None:
    """What was taken off the logits of each label; None where it is nothing."""
    if not task.multilabel or not found.thresholds.any():
        return None
    return tuple(found.thresholds.tolist())


def validation_temperature(
    task: TaskData, logits: np.ndarray, options: Mapping, off: TakenOff
) -> float:
    """What logits are divided by: fitted on those of validation (n, K) with what was taken off
    them, or 1 if `temperature` is off."""
    if not options["temperature"]:
        return 1.0
    return fit_temperature(log_odds(logits, off), task.y["validation"], task.multilabel)


def validation_threshold(
    task: TaskData, logits: np.ndarray, options: Mapping, temperature: float
) -> float | None:
    """Certainty up to which texts are hard, before any choice by score.

    Parameters
    ----------
    logits : ndarray, shape (n, K)
        Of validation.
    options : mapping
        `k`, `hardness`, `threshold`; the rule 'validation' counts as 'misclassified'.
    temperature : float
    """
    k, rule = top_labels(options["k"], task.classes), options["threshold"]
    values = certainty(logits, options["hardness"], k, task.multilabel, temperature)
    wrong = misclassified(logits, task.y["validation"], task.multilabel)
    return threshold_of(values, wrong, "misclassified" if rule == "validation" else rule)


def narrowing(logits: np.ndarray, options: Mapping) -> np.ndarray | None:
    """The logits, where every form that is tried may leave most of very many labels out; or None.

    Parameters
    ----------
    options : mapping
        `candidates`, `forms`.
    """
    candidates = None if options["candidates"] == "all" else options["k"]
    return logits if all(narrows(form, candidates) for form in options["forms"]) else None


class Similarities:
    """Cosines of texts and labels, each text embedded when it is first asked for.

    Parameters
    ----------
    embedder : Embedder
    vectors : LabelVectors
    dataset : Dataset
        With its texts.
    logits : ndarray, shape (rows of the dataset, K), optional
        The classifier's, where all labels are candidates (see `narrowing`): among very many labels
        those that can neither win by them nor by the cosine have a similarity of 0.
    """

    def __init__(
        self,
        embedder: Embedder,
        vectors: LabelVectors,
        dataset: Dataset,
        logits: np.ndarray | None = None,
    ):
        self._embedder, self._vectors, self._dataset = embedder, vectors, dataset
        self._logits = logits
        self._known: dict[int, np.ndarray] = {}

    def of(self, rows: Sequence[int] | np.ndarray, what: str | None = None) -> np.ndarray:
        """Similarities float32 (n, K) of rows of the dataset; `what` is shown with the progress."""
        wanted = [int(row) for row in rows]
        missing = [row for row in dict.fromkeys(wanted) if row not in self._known]
        if missing:
            texts = texts_to_embed(self._dataset, missing)
            own = None if self._logits is None else self._logits[missing]
            embeddings = self._embedder.encode(texts, what)
            cosines = label_similarities(embeddings, self._vectors, own)
            self._known.update(zip(missing, cosines, strict=True))
        if not wanted:
            return np.zeros((0, self._vectors.labels), dtype=np.float32)
        return np.stack([self._known[row] for row in wanted])

    def known(self, rows: np.ndarray) -> np.ndarray:
        """Which rows were embedded already, bool (n,)."""
        return np.array([int(row) in self._known for row in rows], dtype=bool)
