"""Bootstrap intervals of a score over the texts of a split."""

from __future__ import annotations

import numpy as np

from probeline.errors import ProbelineError
from probeline.probe.metrics import score

RESAMPLES = 500


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
    """
    rng = np.random.default_rng(seed)
    n = len(labels)
    values = []
    for _ in range(RESAMPLES):
        rows = rng.integers(0, n, n)
        try:
            values.append(score(metric, labels[rows], logits[rows], classes))
        except ProbelineError:
            # ROC-AUC of a resample with rows of one kind only.
            continue
    if not values:
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
