"""Bootstrap intervals over the texts of a split: of a score, a mean over seeds, a difference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from probeline.results.resamples import resampled_scores
from probeline.results.seeds import seed_means

RESAMPLES = 2000
# Means of equal scores differ by rounding, depending on the order of the sum.
_ROUNDING = 1e-12


def bootstrap_interval(
    metric: str,
    labels: np.ndarray,
    logits: np.ndarray,
    classes: int,
    seed: int,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap interval (Efron 1979) of a score, texts resampled with replacement.

    Parameters
    ----------
    labels : ndarray, shape (n,) or (n, K)
    logits : ndarray, shape (n, K)

    Returns
    -------
    low, high : float
        NaN where no resample can be scored.

    Raises
    ------
    ProbelineError
        If the metric is unknown, cannot be computed for the task, or there are no rows.
    """
    (scores,) = resampled_scores(metric, labels, [logits], classes, seed, RESAMPLES)
    return percentile_interval(scores, level)


def interval_over_seeds(
    metric: str,
    labels: np.ndarray,
    logits: Sequence[np.ndarray],
    classes: int,
    seed: int,
    answered: Sequence[np.ndarray] | None = None,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of the mean score over seeds, texts and seeds resampled.

    Parameters
    ----------
    labels : ndarray, shape (n,) or (n, K)
    logits : sequence of ndarray, shape (n, K)
        One per seed.
    answered : sequence of ndarray of bool, shape (n,), optional
        Texts that each seed answers. Default: all.

    Returns
    -------
    low, high : float
        See `probeline.results.seeds` for what is drawn. NaN where no resample can be scored.

    Raises
    ------
    ProbelineError
        As `bootstrap_interval`.
    """
    scores = resampled_scores(metric, labels, logits, classes, seed, RESAMPLES, answered)
    return percentile_interval(seed_means(scores, seed), level)


def percentile_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Middle share `level` of resampled values, shape (r,); NaN among them are left out."""
    values = values[np.isfinite(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_p(differences: np.ndarray) -> float:
    """Two-sided p-value of a difference of 0, from its resampled values.

    Twice the smaller share of resamples on one side of 0 or at it, each side counted with one
    resample more than were drawn (Davison & Hinkley 1997, section 4.2), so that it is never 0; at
    most 1. It falls below 1 - level about where the percentile interval leaves 0 out.

    Parameters
    ----------
    differences : ndarray, shape (r,)
        NaN among them are left out.
    """
    found = differences[np.isfinite(differences)]
    side = min((found <= _ROUNDING).sum(), (found >= -_ROUNDING).sum())
    return float(min(1.0, 2 * (side + 1) / (len(found) + 1)))
