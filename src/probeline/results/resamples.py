"""Scores of many bootstrap resamples at once.

A resample is how often each text was drawn. Metrics that count are functions of a few sums over
texts, so that the sums of many resamples are one sparse product; the area under the ROC curve is a
sum over pairs of texts, which sorting once turns into cumulative sums. The numbers are those of
`probeline.probe.metrics.score` on the drawn rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from scipy.sparse import csr_array

from probeline.probe.metrics import auc_columns, check_metric, predict_codes

# Counts held at a time (2 MB): more fall out of the cache and take three times as long.
_CHUNK = 2**18

Scorer = Callable[[np.ndarray], np.ndarray]


def resampled_scores(
    metric: str,
    labels: np.ndarray,
    logits: Sequence[np.ndarray],
    classes: int,
    seed: int,
    resamples: int,
    answered: Sequence[np.ndarray] | None = None,
) -> np.ndarray:
    """Score predictions of the same texts on bootstrap resamples, the same ones for all.

    Parameters
    ----------
    metric : one of `probeline.probe.metrics.METRICS`
    labels : ndarray, shape (n,) of codes or (n, K) of 0/1
    logits : sequence of ndarray, shape (n, K), or (n, 1) for a binary task
        One per method; row i of each is text i.
    classes : int
    seed, resamples : int
        A smaller number of resamples are the first ones of a larger number.
    answered : sequence of ndarray of bool, shape (n,), optional
        Texts that each method answers; of a resample it is scored on those. Default: all.

    Returns
    -------
    scores : ndarray of float64, shape (methods, resamples)
        NaN where a resample cannot be scored: ROC-AUC with rows of one kind only, or none of the
        texts that a method answers.

    Raises
    ------
    ProbelineError
        If the metric is unknown, cannot be computed for the task, or there are no rows.
    """
    check_metric(metric, labels)
    if answered is None:
        scorers = [_scorer(metric, labels, values, classes) for values in logits]
    else:
        scorers = [
            _on(rows, _scorer(metric, labels[rows], values[rows], classes))
            for values, rows in zip(logits, answered, strict=True)
        ]
    scores = np.empty((len(scorers), resamples))
    done = 0
    for drawn in draw(len(labels), resamples, seed, max(1, _CHUNK // max(len(labels), classes))):
        stop = done + drawn.shape[1]
        for row, scorer in zip(scores, scorers, strict=True):
            row[done:stop] = scorer(drawn)
        done = stop
    return scores


def draw(n: int, resamples: int, seed: int, step: int) -> Iterator[np.ndarray]:
    """Draw n of n texts with replacement, `resamples` times.

    Yields
    ------
    ndarray of float64, shape (n, at most `step`)
        How often each text was drawn. The draws do not depend on `step`.
    """
    rng = np.random.default_rng(seed)
    for first in range(0, resamples, step):
        columns = min(step, resamples - first)
        rows = rng.integers(0, n, (columns, n)) + n * np.arange(columns)[:, None]
        counts = np.bincount(rows.ravel(), minlength=n * columns).reshape(columns, n)
        yield counts.T.astype(np.float64, order="C")


def _on(rows: np.ndarray, scorer: Scorer) -> Scorer:
    """What scores counts of all texts by those of some of them."""

    def scored(drawn: np.ndarray) -> np.ndarray:
        own = drawn[rows]
        with np.errstate(invalid="ignore"):
            return np.where(own.any(axis=0), scorer(own), np.nan)

    return scored


def _scorer(metric: str, labels: np.ndarray, logits: np.ndarray, classes: int) -> Scorer:
    """What scores (n, r) counts of drawn texts, to shape (r,)."""
    if metric == "roc-auc":
        return _areas(*auc_columns(labels, logits))
    multilabel = labels.ndim == 2
    if multilabel:
        true, predicted = labels.astype(bool), logits > 0
    else:
        kinds = np.arange(classes)
        true = labels[:, None] == kinds
        predicted = predict_codes(logits)[:, None] == kinds
    if metric == "accuracy" or (metric == "micro-f1" and not multilabel):
        right = (true == predicted).all(axis=1).astype(np.float64)
        return lambda drawn: right @ drawn / drawn.sum(axis=0)
    sums = [_summing(flags) for flags in (true, predicted, true & predicted)]
    if metric == "matthews":
        return lambda drawn: _matthews(*(rows @ drawn for rows in sums), drawn.sum(axis=0))
    if metric == "micro-f1":
        return lambda drawn: _micro_f1(*(rows @ drawn for rows in sums))
    return lambda drawn: _macro_f1(*(rows @ drawn for rows in sums), multilabel)


def _summing(flags: np.ndarray) -> csr_array:
    """The matrix (K, n) that sums over the texts with each of K flags."""
    return csr_array(flags.T.astype(np.float64))


def _micro_f1(true: np.ndarray, predicted: np.ndarray, both: np.ndarray) -> np.ndarray:
    """From sums (K, r) of a multi-label task."""
    return 2 * both.sum(axis=0) / np.maximum((true + predicted).sum(axis=0), 1)


def _macro_f1(
    true: np.ndarray, predicted: np.ndarray, both: np.ndarray, multilabel: bool
) -> np.ndarray:
    support = true + predicted
    each = 2 * both / np.maximum(support, 1)
    # Single-label: a class absent from labels and predictions does not count.
    return each.mean(axis=0) if multilabel else each.sum(axis=0) / (support > 0).sum(axis=0)


def _matthews(
    true: np.ndarray, predicted: np.ndarray, both: np.ndarray, n: np.ndarray
) -> np.ndarray:
    """From sums (K, r), and how many texts were drawn (r,)."""
    covariance = both.sum(axis=0) * n - (true * predicted).sum(axis=0)
    spread = np.sqrt((n**2 - (predicted**2).sum(axis=0)) * (n**2 - (true**2).sum(axis=0)))
    return np.divide(covariance, spread, out=np.zeros_like(spread), where=spread > 0)


def _areas(indicators: np.ndarray, scores: np.ndarray) -> Scorer:
    """Mean area over the columns in which both kinds were drawn, NaN where there are none."""
    pairs = [_ranked(indicators[:, k], scores[:, k]) for k in range(indicators.shape[1])]

    def mean_area(drawn: np.ndarray) -> np.ndarray:
        total, columns = np.zeros(drawn.shape[1]), np.zeros(drawn.shape[1])
        for positives, negatives in pairs:
            positive, negative = positives @ drawn, negatives @ drawn
            # Mann-Whitney U: pairs in which the positive one is above; half of the ties.
            won = (positive * (np.cumsum(negative, axis=0) - negative / 2)).sum(axis=0)
            possible = positive.sum(axis=0) * negative.sum(axis=0)
            total += np.divide(won, possible, out=np.zeros_like(won), where=possible > 0)
            columns += possible > 0
        return np.divide(total, columns, out=np.full_like(total, np.nan), where=columns > 0)

    return mean_area


def _ranked(positive: np.ndarray, scores: np.ndarray) -> tuple[csr_array, csr_array]:
    """The matrices (groups, n) that sum over positive and over negative texts of equal rank.

    Scores that only negative texts have are one group up to the next score of a positive one:
    among negatives the order does not matter.
    """
    _, rank = np.unique(scores, return_inverse=True)
    shared = np.bincount(rank, weights=positive) > 0
    group = (2 * np.cumsum(shared) - shared)[rank]
    shape = (group.max() + 1, len(group))

    def summing(rows: np.ndarray) -> csr_array:
        return csr_array((np.ones(len(rows)), (group[rows], rows)), shape=shape)

    return summing(np.flatnonzero(positive)), summing(np.flatnonzero(~positive))
