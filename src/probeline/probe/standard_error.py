"""Standard errors of scores: how much of a difference between candidates may be luck.

Each is sqrt(sum_i u_i^2), u_i the influence of row i on the score (the infinitesimal jackknife;
Efron and Tibshirani 1993, section 21.2). For a share it is the binomial one, for areas under ROC
curves DeLong's (DeLong, DeLong and Clarke-Pearson 1988) up to n / (n - 1).
"""

from __future__ import annotations

import numpy as np

from probeline.probe.metrics import auc_columns, predict_codes


def standard_error(metric: str, labels: np.ndarray, logits: np.ndarray, classes: int) -> float:
    """Standard error of `metrics.score` over the rows it was computed on.

    Parameters
    ----------
    metric, labels, logits, classes
        As for `probeline.probe.metrics.score`, thresholds already taken off.
    """
    return float(np.sqrt(np.square(_influence(metric, labels, logits, classes)).sum()))


def difference_error(
    metric: str, labels: np.ndarray, ours: np.ndarray, theirs: np.ndarray, classes: int
) -> float:
    """Standard error of the difference between two scores over the same rows.

    Rows on which both do the same do not count, so that it is far below that of either score where
    few rows differ.
    """
    mine, other = (_influence(metric, labels, logits, classes) for logits in (ours, theirs))
    return float(np.sqrt(np.square(mine - other).sum()))


def _influence(metric: str, labels, logits, classes: int) -> np.ndarray:
    """What each row adds to the score, to first order; float64 (n,), summing to zero."""
    if metric == "roc-auc":
        return _of_areas(labels, logits)
    if labels.ndim == 2:
        labels, predicted = labels.astype(bool), logits > 0
        if metric == "accuracy":
            return _of_share((labels == predicted).all(axis=1))
        return _of_f1(labels, predicted, pooled=metric == "micro-f1", several=True)
    predicted = predict_codes(logits)
    if metric in ("accuracy", "micro-f1"):
        return _of_share(labels == predicted)
    if metric == "matthews":
        return _of_matthews(labels, predicted, classes)
    every = np.arange(classes)
    return _of_f1(labels[:, None] == every, predicted[:, None] == every)


def _of_share(right: np.ndarray) -> np.ndarray:
    return (right - right.mean()) / len(right)


def _of_f1(
    labels: np.ndarray, predicted: np.ndarray, *, pooled: bool = False, several: bool = False
) -> np.ndarray:
    """Of F1 = 2 TP / S with S = labels + predictions: a row adds (2 tp - F1 s) / S."""
    # Of several labels those that never occur count as 0, of classes they do not count.
    columns = 1 if pooled else labels.shape[1] if several else None
    true = (labels & predicted).astype(np.float64)
    support = labels.astype(np.float64) + predicted
    if pooled:
        true, support = true.sum(axis=1, keepdims=True), support.sum(axis=1, keepdims=True)
    total = support.sum(axis=0)
    seen = total > 0
    true, support, total = true[:, seen], support[:, seen], total[seen]
    if not seen.any():
        return np.zeros(len(labels))
    columns = columns or int(seen.sum())
    each = (2 * true - 2 * true.sum(axis=0) / total * support) / total
    return each.sum(axis=1) / columns


def _of_matthews(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Of Gorodkin's R_K = cov(t, p) / sqrt(cov(t, t) cov(p, p)), through its three covariances."""
    n = len(labels)
    t, p = (np.bincount(codes, minlength=classes) / n for codes in (labels, predicted))
    right = labels == predicted
    cov_tp, cov_tt, cov_pp = right.mean() - t @ p, 1 - t @ t, 1 - p @ p
    if cov_tt <= 0 or cov_pp <= 0:
        return np.zeros(n)
    # Derivatives along adding weight to a row; the sums of squares come in twice.
    d_tp = right - right.mean() - (p[labels] + t[predicted] - 2 * t @ p)
    d_tt = -2 * (t[labels] - t @ t)
    d_pp = -2 * (p[predicted] - p @ p)
    value = cov_tp / np.sqrt(cov_tt * cov_pp)
    spread = np.sqrt(cov_tt * cov_pp)
    return (d_tp / spread - value / 2 * (d_tt / cov_tt + d_pp / cov_pp)) / n


def _of_areas(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Of the mean area: a row adds the share of the other side that it is ranked right against."""
    from scipy.stats import rankdata  # half a second, which other metrics need not pay

    indicators, scores = auc_columns(labels, logits)
    total, columns = np.zeros(len(indicators)), 0
    for positive, values in zip(indicators.T, scores.T, strict=True):
        count = int(positive.sum())
        if not 0 < count < len(positive):
            continue
        columns += 1
        ranks = rankdata(values)
        for side, sign in ((positive, 1), (~positive, -1)):
            others = len(side) - side.sum()
            beaten = (ranks[side] - rankdata(values[side])) / others
            share = beaten if sign > 0 else 1 - beaten
            total[side] += (share - share.mean()) / side.sum()
    return total / max(columns, 1)
