"""The logit at which a label counts as predicted, for multi-label tasks."""

from __future__ import annotations

import numpy as np

from probeline.probe.metrics import score
from probeline.probe.task import TaskData

# Logits of the probabilities tried.
_PROBABILITIES = np.array(
    [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8, 0.9]
)
_LOGITS = np.log(_PROBABILITIES / (1 - _PROBABILITIES))


def evaluate(task: TaskData, logits: np.ndarray) -> tuple[float, float, float]:
    """Score validation logits: (score, mean log loss, threshold as a logit).

    A single-label task, and a metric that ranks, have threshold 0. Otherwise the threshold with the
    best validation score is taken, the one nearest 0 of equal ones.
    """
    log_loss = task.validation_loss(logits)
    if not task.multilabel or task.metric == "roc-auc":
        return task.score("validation", logits), log_loss, 0.0
    best = (-np.inf, 0.0)
    for threshold in sorted(_LOGITS.tolist(), key=abs):
        value = score(task.metric, task.y["validation"], logits - threshold, task.classes)
        if value > best[0]:
            best = (value, threshold)
    return best[0], log_loss, best[1]
