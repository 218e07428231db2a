"""Many labels: of each text only those are read that a cheap first stage ranks highest.

The first stage is the sparse classifier of the same model, dataset and task: it is there in every
run, it is servable alone, and training texts have cross-fitted logits of it, so that their lists
are like those of new texts. A list holds labels in the order of their codes: that of the first
stage would say how it ranks them, which on train is not what it is on test.
"""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from probeline.data.store import Dataset
from probeline.errors import ProbelineError
from probeline.lrsl.crossfit import read_crossfit
from probeline.models.weights import files_hash
from probeline.probe.task import SPLITS, TaskData
from probeline.results.predictions import read_predictions

log = logging.getLogger(__name__)
FIRST_STAGE = "first_stage"  # its folder in that of a classifier


@dataclass(frozen=True)
class FirstStage:
    """What ranks labels before any is read.

    Attributes
    ----------
    predictions : path
        Its logits of every text.
    folder : path
        Its classifier folder.
    crossfit : path or None
        Logits of the training texts by classifiers that have not seen them; None takes those in
        `predictions`.
    """

    predictions: str | os.PathLike
    folder: str | os.PathLike
    crossfit: str | os.PathLike | None = None

    @property
    def digest(self) -> str:
        """Changes with the lists."""
        files = [self.predictions, *([self.crossfit] if self.crossfit else [])]
        return files_hash([Path(file) for file in files])

    def lists(self, dataset: Dataset, task: TaskData, count: int) -> np.ndarray:
        """The shortlist of every text, int64 (rows, min(count, K)), in the order of the codes.

        Raises
        ------
        ProbelineError
            As `read_shortlist`.
        """
        chosen, found = read_shortlist(self.predictions, dataset, task, count, self.crossfit)
        log.info(
            "%s: the %d labels of %d that the first stage ranks highest hold the true one in %s",
            dataset.name,
            chosen.shape[1],
            task.classes,
            ", ".join(f"{100 * share:.1f} % of {split}" for split, share in found.items()),
        )
        return np.sort(chosen, axis=1)

    def write(self, folder: Path) -> None:
        """Copy it into a classifier's folder, so that this can be handed on."""
        # Hidden files are the workflow's, that mark a folder as whole.
        shutil.copytree(self.folder, folder / FIRST_STAGE, ignore=shutil.ignore_patterns(".*"))


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


def recalls(chosen: np.ndarray, task: TaskData) -> dict[str, float]:
    """`recall` by split, of the shortlists (rows, M) of all rows of a dataset."""
    return {split: recall(chosen[task.rows[split]], task.y[split]) for split in SPLITS}


def read_shortlist(
    predictions: str | os.PathLike,
    dataset: Dataset,
    task: TaskData,
    count: int,
    crossfit: str | os.PathLike | None = None,
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
    crossfit : path, optional
        Logits of the training texts by classifiers that have not seen them, in the place of those
        in `predictions`.

    Returns
    -------
    ndarray of int64, shape (rows of the dataset, min(count, K))
        The highest first.
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
    logits = found.logits
    if crossfit is not None:
        unseen = read_crossfit(crossfit, dataset, task)
        logits[unseen.rows] = unseen.logits
    chosen = shortlist(logits, count)
    return chosen, recalls(chosen, task)
