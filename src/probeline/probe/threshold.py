"""The logits at which labels count as predicted, for multi-label tasks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from probeline.probe.metrics import score
from probeline.probe.standard_error import standard_error
from probeline.probe.task import TaskData

FIXED, CHOSEN, PER_LABEL = THRESHOLDS = ("fixed", "chosen", "per-label")
# Logits of the probabilities tried.
_PROBABILITIES = np.array(
    [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8, 0.9]
)
_LOGITS = np.log(_PROBABILITIES / (1 - _PROBABILITIES))
# Of `label_thresholds`; the first one finds most of what there is.
_ROUNDS = 5


@dataclass(frozen=True)
class Evaluation:
    """What validation says of a fit.

    Attributes
    ----------
    score, error : float
        The metric and its standard error.
    log_loss : float
        `TaskData.validation_loss`.
    threshold : float
        Logit above which a label is predicted.
    """

    score: float
    error: float
    log_loss: float
    threshold: float


def evaluate(task: TaskData, logits: np.ndarray, fixed: bool = False) -> Evaluation:
    """Score validation logits.

    A single-label task, and a metric that ranks, have threshold 0. Otherwise the threshold with the
    best validation score is taken, the one nearest 0 of equal ones; with `fixed` it is 0.
    """
    value, threshold = _scored(task, logits, fixed)
    labels = task.y["validation"]
    error = standard_error(task.metric, labels, logits - threshold, task.classes)
    return Evaluation(value, error, task.validation_loss(logits), threshold)


def _scored(task: TaskData, logits: np.ndarray, fixed: bool = False) -> tuple[float, float]:
    if fixed or not task.multilabel or task.metric == "roc-auc":
        return task.score("validation", logits), 0.0
    best = (-np.inf, 0.0)
    for threshold in sorted(_LOGITS.tolist(), key=abs):
        value = score(task.metric, task.y["validation"], logits - threshold, task.classes)
        if value > best[0]:
            best = (value, threshold)
    return best


def label_thresholds(task: TaskData, logits: np.ndarray, start: float = 0.0) -> np.ndarray:
    """Choose a threshold for each label on validation.

    Label by label, round after round, the one with the best score of the task is taken while the
    others stay (coordinate ascent); a label keeps what it has among equal ones. The score is never
    below that of `start` for all labels. Macro-F1 is a sum over labels, so that one round finds the
    best of all; of other metrics it is a local one.

    Parameters
    ----------
    logits : ndarray, shape (n, K)
        Of validation.
    start : float
        Logit to begin with.

    Returns
    -------
    ndarray of float32, shape (K,)
        `start` for all where the task is single-label or the metric ranks.
    """
    found = np.full(task.classes, start, np.float32)
    if not task.multilabel or task.metric == "roc-auc":
        return found
    labels = task.y["validation"]
    decided = logits - found
    best = score(task.metric, labels, decided, task.classes)
    for _ in range(_ROUNDS):
        before = best
        for label in range(task.classes):
            for threshold in sorted(_LOGITS.astype(np.float32), key=abs):
                decided[:, label] = logits[:, label] - threshold
                value = score(task.metric, labels, decided, task.classes)
                if value > best:
                    best, found[label] = value, threshold
            decided[:, label] = logits[:, label] - found[label]
        if best == before:
            break
    return found
