"""The logit at which a label counts as predicted, for multi-label tasks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from probeline.probe.metrics import score
from probeline.probe.standard_error import standard_error
from probeline.probe.task import TaskData

# Logits of the probabilities tried.
_PROBABILITIES = np.array(
    [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8, 0.9]
)
_LOGITS = np.log(_PROBABILITIES / (1 - _PROBABILITIES))


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


def evaluate(task: TaskData, logits: np.ndarray) -> Evaluation:
    """Score validation logits.

    A single-label task, and a metric that ranks, have threshold 0. Otherwise the threshold with the
    best validation score is taken, the one nearest 0 of equal ones.
    """
    value, threshold = _scored(task, logits)
    labels = task.y["validation"]
    error = standard_error(task.metric, labels, logits - threshold, task.classes)
    return Evaluation(value, error, task.validation_loss(logits), threshold)


def _scored(task: TaskData, logits: np.ndarray) -> tuple[float, float]:
    if not task.multilabel or task.metric == "roc-auc":
        return task.score("validation", logits), 0.0
    best = (-np.inf, 0.0)
    for threshold in sorted(_LOGITS.tolist(), key=abs):
        value = score(task.metric, task.y["validation"], logits - threshold, task.classes)
        if value > best[0]:
            best = (value, threshold)
    return best
