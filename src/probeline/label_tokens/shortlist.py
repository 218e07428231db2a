"""Many labels: of each text only those are read that a cheap first stage ranks highest."""

from __future__ import annotations

import os

import numpy as np

from probeline.data.store import Dataset
from probeline.errors import ProbelineError
from probeline.probe.task import SPLITS, TaskData
from probeline.results.predictions import read_predictions


def shortlist(logits: np.ndarray, count: int) -> np.ndarray:
    """The labels with the highest logits, the highest first; of equal ones the first.

    Parameters
    ----------
    logits : ndarray, shape (n, K)
        Of a probe, an embedding, or anything else that ranks labels.
    count : int
        Labels per text; all of them where it is K or more.

    Returns
    -------
    ndarray of int64, shape (n, min(count, K))

    Raises
    ------
    ProbelineError
        If `count` is below 1 or a logit is not a number.
    """
    if count < 1:
        raise ProbelineError(f"shortlist: {count} labels per text; expected 1 or more")
    if np.isnan(logits).any():
        row = int(np.flatnonzero(np.isnan(logits).any(axis=1))[0])
        raise ProbelineError(f"shortlist: row {row} of the first stage's logits is not a number")
    return np.argsort(-logits, axis=1, kind="stable")[:, :count].astype(np.int64)


def recall(chosen: np.ndarray, y: np.ndarray) -> float:
    """Share of the true labels of all texts that are on the shortlist; NaN if there is none.

    No classifier that reads the shortlist alone can find more of them.

    Parameters
    ----------
    chosen : ndarray of int, shape (n, M)
    y : ndarray
        Codes (n,), or indicators (n, K) for multi-label.
    """
    if y.ndim == 1:
        return float((chosen == y[:, None]).any(axis=1).mean()) if len(y) else float("nan")
    true = np.count_nonzero(y)
    return float(np.take_along_axis(y, chosen, axis=1).sum() / true) if true else float("nan")


def with_truth(chosen: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Put the true label on each list where it is missing, in the last one's place.

    For training, where a label that is not read could never be learnt. Never for texts that are
    scored.

    Parameters
    ----------
    chosen : ndarray of int64, shape (n, M)
    y : ndarray
        Codes (n,), or indicators (n, K) for multi-label, of which as many are put on as are free of
        true ones.

    Returns
    -------
    ndarray of int64, shape (n, M)
    """
    found = chosen.copy()
    for row, own in enumerate(found):
        true = np.flatnonzero(y[row]) if y.ndim == 2 else y[row : row + 1]
        missing = np.setdiff1d(true, own)
        places = np.flatnonzero(~np.isin(own, true))[::-1][: len(missing)]
        own[places] = missing[: len(places)]
    return found


def read_shortlist(
    predictions: str | os.PathLike, dataset: Dataset, task: TaskData, count: int
) -> tuple[np.ndarray, dict[str, float]]:
    """The shortlist that the stored predictions of a first stage give.

    Parameters
    ----------
    predictions : path
        Such as those of a probe, of the sparse classifier, of zero-shot.
    dataset : Dataset
    task : TaskData
    count : int
        Labels per text.

    Returns
    -------
    ndarray of int64, shape (rows of the dataset, count)
    dict
        Recall by split.

    Raises
    ------
    ProbelineError
        If the predictions are of another dataset, task or set of labels, or leave out texts.
    """
    found = read_predictions(predictions)
    if found.meta.get("dataset_fingerprint") != dataset.fingerprint:
        raise ProbelineError(
            f"{predictions}: predictions of other texts than those of {dataset.name}; run the "
            "first stage again"
        )
    if found.meta["task"] != task.name or found.labels != list(task.labels):
        raise ProbelineError(
            f"{predictions}: predictions for task '{found.meta['task']}' with {len(found.labels)} "
            f"labels; expected those of '{task.name}', which has {len(task.labels)}"
        )
    if np.isnan(found.logits).any() or not np.array_equal(found.rows, np.arange(dataset.rows)):
        raise ProbelineError(
            f"{predictions}: not every text has logits; take a first stage that scores all, such "
            "as the probe (icl.max_texts: null for in-context learning)"
        )
    chosen = shortlist(found.logits, count)
    return chosen, {split: recall(chosen[task.rows[split]], task.y[split]) for split in SPLITS}
