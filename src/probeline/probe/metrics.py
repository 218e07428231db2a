"""Scores of logits. Plain numpy: a grid scores thousands of candidates, and every job pays imports.

The definitions are scikit-learn's (`sklearn.metrics`), which the tests compare with.
"""

from __future__ import annotations

import numpy as np

from probeline.errors import ProbelineError, one_of

METRICS = ("accuracy", "macro-f1", "micro-f1", "matthews", "roc-auc")


def predict_codes(logits: np.ndarray) -> np.ndarray:
    """Class codes of single-label logits: argmax, or the sign of one column; shape (n,)."""
    if logits.shape[1] == 1:
        return (logits[:, 0] > 0).astype(np.int64)
    return logits.argmax(axis=1)


def score(metric: str, labels: np.ndarray, logits: np.ndarray, classes: int) -> float:
    """Score logits against labels; higher is better.

    Parameters
    ----------
    metric : one of `METRICS`
        For multi-label, 'accuracy' is subset accuracy and a label is predicted at logit > 0.
    labels : ndarray, shape (n,) of codes or (n, K) of 0/1
    logits : ndarray, shape (n, K), or (n, 1) for a binary task
    classes : int

    Raises
    ------
    ProbelineError
        If the metric is unknown, cannot be computed for the task, or there are no rows.
    """
    check_metric(metric, labels)
    if metric == "roc-auc":
        return roc_auc(labels, logits)
    if labels.ndim == 2:
        return _multilabel_score(metric, labels, logits > 0)
    predicted = predict_codes(logits)
    if metric in ("accuracy", "micro-f1"):
        # Micro-F1 over all classes of a single-label task is its accuracy.
        return float((predicted == labels).mean())
    confusion = np.bincount(labels * classes + predicted, minlength=classes * classes)
    confusion = confusion.reshape(classes, classes).astype(np.float64)
    if metric == "macro-f1":
        true = np.diag(confusion)
        support = confusion.sum(axis=0) + confusion.sum(axis=1)
        # A class absent from labels and predictions does not count, as in scikit-learn.
        seen = support > 0
        return float((2 * true[seen] / support[seen]).mean())
    return _matthews(confusion)


def check_metric(metric: str, labels: np.ndarray) -> None:
    """Refuse what no logits can be scored by.

    Raises
    ------
    ProbelineError
        If the metric is unknown, not defined for labels of this shape, or there are no rows.
    """
    if metric not in METRICS:
        raise ProbelineError(f"metric: {one_of(metric, METRICS)}")
    if len(labels) == 0:
        raise ProbelineError(f"{metric}: there are no rows to score")
    if metric == "matthews" and labels.ndim == 2:
        raise ProbelineError(
            "metric: matthews is not defined for a multi-label task; use macro-f1, micro-f1, "
            "accuracy (subset) or roc-auc"
        )


def _multilabel_score(metric: str, labels: np.ndarray, predicted: np.ndarray) -> float:
    labels = labels.astype(bool)
    if metric == "accuracy":
        return float((labels == predicted).all(axis=1).mean())
    true = (labels & predicted).sum(axis=0)
    support = labels.sum(axis=0) + predicted.sum(axis=0)
    if metric == "micro-f1":
        return float(2 * true.sum() / max(support.sum(), 1))
    return float((2 * true / np.maximum(support, 1)).mean())


def _matthews(confusion: np.ndarray) -> float:
    """Gorodkin's R_K for K classes; 0 where it is undefined."""
    true, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    n, correct = confusion.sum(), np.trace(confusion)
    covariance = correct * n - true @ predicted
    spread = np.sqrt((n**2 - predicted @ predicted) * (n**2 - true @ true))
    return float(covariance / spread) if spread > 0 else 0.0


def roc_auc(labels: np.ndarray, logits: np.ndarray) -> float:
    """Area under the ROC curve; for several classes or labels the mean of the one-vs-rest areas.

    Columns in which only one of the two sides occurs are left out of the mean.
    """
    indicators, scores = auc_columns(labels, logits)
    areas = [
        _binary_auc(indicators[:, k], scores[:, k])
        for k in range(indicators.shape[1])
        if 0 < indicators[:, k].sum() < len(indicators)
    ]
    if not areas:
        raise ProbelineError("metric: roc-auc needs rows of both kinds, and there is only one")
    return float(np.mean(areas))


def auc_columns(labels: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The binary problems of a ROC-AUC: bool indicators and scores, both of shape (n, columns)."""
    if labels.ndim == 2:
        return labels.astype(bool), logits
    if logits.shape[1] == 1:
        return labels[:, None].astype(bool), logits
    if logits.shape[1] == 2:
        # One column says it all, and sure rows are not tied by rounding to probability 1.
        return labels[:, None] == 1, logits[:, 1:] - logits[:, :1]
    # One-vs-rest needs scores that compare across rows: probabilities, not logits.
    logits = logits.astype(np.float64)
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (
        labels[:, None] == np.arange(logits.shape[1]),
        shifted / shifted.sum(axis=1, keepdims=True),
    )


def _binary_auc(positive: np.ndarray, scores: np.ndarray) -> float:
    """Mann-Whitney U over average ranks."""
    _, where, counts = np.unique(scores, return_inverse=True, return_counts=True)
    average_rank = (np.cumsum(counts) - (counts - 1) / 2)[where]
    p = positive.sum()
    u = average_rank[positive].sum() - p * (p + 1) / 2
    return u / (p * (len(positive) - p))
