"""Folds of the training texts, and the task as it stands when one of them is held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from probeline.data.splits import deal
from probeline.errors import ProbelineError
from probeline.probe.task import TaskData
from probeline.results.predictions import two_columns

# How far a class that a fold never saw stays below the least likely of the others.
_NEVER = 10.0
# Folds are int8.
_MOST = 127


def folds_of(
    y: np.ndarray,
    folds: int,
    seed: int,
    multilabel: bool = False,
    groups: np.ndarray | None = None,
) -> np.ndarray:
    """Deal texts into folds with about the label shares of the whole.

    Parameters
    ----------
    y : ndarray, shape (n,) of codes, or (n, K) of 0/1 for multi-label
        The latter by iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011).
    folds : int
        2 to 127.
    seed : int
    groups : ndarray of int64, shape (n,), optional
        From 0 without gaps: texts of one number, copies, come into one fold, since a copy in
        training would give away the label of the one held out.

    Returns
    -------
    ndarray of int8, shape (n,)
        The fold of each text, from 0.

    Raises
    ------
    ProbelineError
        If there are fewer distinct texts than folds, or the number of folds makes no sense.
    """
    n = len(y)
    groups = np.arange(n) if groups is None else groups
    distinct = int(groups.max(initial=-1)) + 1
    if distinct < 2:
        raise ProbelineError(
            f"lrsl.crossfit: {folds} folds of {distinct} distinct training texts, which are too "
            "few to hold any out; give more training texts, or 0 for the classifier's own logits"
        )
    if not 2 <= folds <= min(distinct, _MOST):
        raise ProbelineError(
            f"lrsl.crossfit: {folds} folds of {distinct} distinct training texts; expected 2 to "
            f"{min(distinct, _MOST)}, or 0 for the classifier's own logits"
        )
    if multilabel:
        return _iterative(y, groups, folds, seed)
    ends = np.arange(folds + 1) * n // folds
    return deal(groups, y, None, np.diff(ends)[:-1].tolist(), seed).astype(np.int8)


def _iterative(y: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    from iterstrat.ml_stratifiers import MultilabelStratifiedKFold

    first = y[np.unique(groups, return_index=True)[1]].astype(np.int8)
    splitter = MultilabelStratifiedKFold(n_splits=folds, shuffle=True, random_state=seed)
    of_group = np.empty(len(first), dtype=np.int8)
    for number, (_, held) in enumerate(splitter.split(first, first)):
        of_group[held] = number
    return of_group[groups]


@dataclass(frozen=True)
class Fold:
    """The task without one fold.

    Attributes
    ----------
    task : TaskData
        Its training rows are those of the other folds; validation is as it was, and stands for
        test as well, so that no stage reads a test label. It has the labels that these training
        rows can teach, `present`.
    held : ndarray of int64
        Row numbers of the fold.
    present : ndarray of int64
        Codes, in the whole task, of the labels of `task`.
    others : ndarray of float64, shape (K,)
        Multi-label: logit of a label that all training rows have, or none.
    """

    task: TaskData
    held: np.ndarray
    present: np.ndarray
    others: np.ndarray

    def spread(self, logits: np.ndarray) -> np.ndarray:
        """Logits float32 (n, K) of all labels from those (n, 1 or k) of the fold's task."""
        if self.task.multilabel:
            result = np.repeat(self.others[None], len(logits), axis=0)
        else:
            logits = two_columns(logits)
            lowest = logits.min(axis=1, keepdims=True) - _NEVER
            result = np.repeat(lowest, len(self.others), axis=1)
        result[:, self.present] = logits
        return result.astype(np.float32)


def held_out(task: TaskData, fold: np.ndarray) -> list[Fold]:
    """The task without each fold in turn.

    Parameters
    ----------
    fold : ndarray of int8, shape (training rows,)

    Raises
    ------
    ProbelineError
        If without a fold there is nothing left to learn.
    """
    return [_without(task, fold == number) for number in np.unique(fold)]


def _without(task: TaskData, held: np.ndarray) -> Fold:
    train, validation = task.y["train"][~held], task.y["validation"]
    if task.multilabel:
        share = train.mean(axis=0)
        present = np.flatnonzero((share > 0) & (share < 1))
        others = np.where(share > 0, _NEVER, -_NEVER)
        kept = np.arange(len(validation))
        y = {"train": train[:, present], "validation": validation[:, present]}
    else:
        present = np.unique(train)
        others = np.full(task.classes, np.nan)
        kept = np.flatnonzero(np.isin(validation, present))
        codes = {"train": train, "validation": validation[kept]}
        y = {split: np.searchsorted(present, of) for split, of in codes.items()}
    if len(present) < (1 if task.multilabel else 2) or len(kept) == 0:
        raise ProbelineError(
            f"lrsl.crossfit: without one fold of '{task.name}' no two classes are left to tell "
            "apart; give more training texts, or set lrsl.crossfit: 0"
        )
    rows = {"train": task.rows["train"][~held], "validation": task.rows["validation"][kept]}
    rows["test"], y["test"] = rows["validation"], y["validation"]
    labels = tuple(_taken(task.labels, present))
    part = TaskData(task.name, labels, task.multilabel, task.metric, rows, y)
    return Fold(part, task.rows["train"][held], present, others)


def _taken(labels: Sequence[str], codes: np.ndarray) -> list[str]:
    return [labels[code] for code in codes]
