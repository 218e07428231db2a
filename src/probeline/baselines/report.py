"""What the baselines share: a threshold for scores of any scale, and the files they write."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from probeline.data.store import Dataset
from probeline.files import write_json
from probeline.probe.metrics import score
from probeline.probe.task import TaskData
from probeline.results.predictions import write_predictions

log = logging.getLogger(__name__)
_CANDIDATES = 401


@dataclass(frozen=True)
class Cost:
    """What a baseline took.

    Attributes
    ----------
    seconds : float
        In all, reading included.
    train_seconds, inference_seconds : float
    texts : int
        Texts that `inference_seconds` were spent on.
    parameters_trained : int
        Weights and intercepts that were fitted.
    """

    seconds: float
    train_seconds: float
    inference_seconds: float
    texts: int
    parameters_trained: int


def score_threshold(task: TaskData, logits: np.ndarray) -> float:
    """Choose where a multi-label score begins to count as a predicted label.

    Unlike a probe's logits, similarities and log-probabilities have no scale of their own, so the
    candidates are quantiles of the validation scores. The best validation score wins; of equally
    good neighbours the middle one, which is the furthest from changing an answer.

    Parameters
    ----------
    logits : ndarray, shape (validation rows, K)

    Returns
    -------
    float
        0 for a single-label task.
    """
    if not task.multilabel:
        return 0.0
    # A metric that ranks says nothing of a threshold.
    metric = "micro-f1" if task.metric == "roc-auc" else task.metric
    values = np.unique(np.quantile(logits, np.linspace(0, 1, _CANDIDATES), method="nearest"))
    # Between values, so that rounding cannot move one across; and below them all.
    tried = np.concatenate([[values[0] - 1.0], (values[:-1] + values[1:]) / 2, [values[-1]]])
    labels = task.y["validation"]
    scores = np.array([score(metric, labels, logits - at, task.classes) for at in tried])
    first = last = int(scores.argmax())
    while last + 1 < len(scores) and scores[last + 1] == scores[first]:
        last += 1
    return float(tried[(first + last) // 2])


def write_baseline(
    predictions: str | os.PathLike,
    scores: str | os.PathLike,
    dataset: Dataset,
    task: TaskData,
    logits: np.ndarray,
    meta: Mapping,
    cost: Cost,
    more: Mapping,
    threshold: float = 0.0,
) -> None:
    """Score a baseline and write its predictions and its scores.

    Parameters
    ----------
    logits : ndarray, shape (rows, 1 or K)
        Of all rows of the dataset; the threshold of a multi-label task taken off.
    meta : mapping
        Attributes of the predictions: model, method, variant.
    more : mapping
        What else the scores' JSON shall hold.
    threshold : float
        What was taken off.
    """
    logits = logits.astype(np.float32, copy=False)
    reached = {
        split: task.score(split, logits[task.rows[split]]) for split in ("validation", "test")
    }
    write_predictions(predictions, dataset, task, logits, meta, threshold)
    rate = cost.texts / max(cost.inference_seconds, 1e-9)
    write_json(
        scores,
        {
            "method": meta["method"],
            "metric": task.metric,
            "validation_score": reached["validation"],
            "test_score": reached["test"],
            "seconds": cost.seconds,
            "train_seconds": cost.train_seconds,
            "texts_per_second": rate,
            "parameters_trained": cost.parameters_trained,
            **more,
        },
    )
    log.info(
        "%s: validation %.4f, test %.4f, trained %.1f s, %.0f texts/s",
        meta["method"],
        reached["validation"],
        reached["test"],
        cost.train_seconds,
        rate,
    )
