"""Whether one prediction of the same texts is worse than another."""

from __future__ import annotations

import numpy as np

from probeline.results.intervals import percentile_interval
from probeline.results.resamples import resampled_scores

_RESAMPLES = 4000


def difference(
    metric: str, labels: np.ndarray, ours: np.ndarray, theirs: np.ndarray, classes: int
) -> tuple[float, float]:
    """Paired 95 % bootstrap interval of our score minus theirs, from class codes (n,)."""
    logits = [np.eye(classes)[predicted] for predicted in (ours, theirs)]
    if classes == 2:
        logits = [values[:, 1:] - values[:, :1] for values in logits]
    mine, other = resampled_scores(metric, labels, logits, classes, 0, _RESAMPLES)
    return percentile_interval(mine - other)


def no_lower(interval: tuple[float, float]) -> bool:
    """A score is lower only where the whole interval of the difference is below zero."""
    return interval[1] >= 0


def words(interval: tuple[float, float]) -> str:
    """The interval in points."""
    return f"[{100 * interval[0]:+.1f}, {100 * interval[1]:+.1f}] points"
