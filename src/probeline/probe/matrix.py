"""From stored activations to the matrix a solver reads: centred, scaled, feature-major."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_CONSTANT = 1e-6


@dataclass(frozen=True)
class Scaler:
    """Per-feature mean and scale, estimated on train alone.

    Attributes
    ----------
    mean, scale : ndarray of float32, shape (p,)
        A feature x becomes (x - mean) / scale.
    kept : ndarray of bool, shape (p,)
        False where the standard deviation is below 1e-6 * (|mean| + 1): such a feature is constant
        and takes no part.
    """

    mean: np.ndarray
    scale: np.ndarray
    kept: np.ndarray

    def apply(self, X: np.ndarray) -> np.ndarray:
        """Return (X - mean) / scale for the kept features: float32, (kept, n), C-contiguous."""
        # Always a copy: the transpose of one row or column is contiguous as it stands.
        out = np.array(X.T if self.kept.all() else X.T[self.kept], order="C")
        out -= self.mean[self.kept, None]
        out /= self.scale[self.kept, None]
        return out


def fit_scaler(X: np.ndarray, standardize: bool = True) -> Scaler:
    """Estimate a `Scaler` from the training rows X, float32 (n, p).

    Without `standardize` the scale is one; the mean is taken off all the same, which changes the
    intercept and nothing else, as the intercept is not penalised.
    """
    n, p = X.shape
    total = np.zeros(p)
    for start in range(0, n, 4096):
        total += X[start : start + 4096].sum(axis=0, dtype=np.float64)
    mean = total / n
    squares = np.zeros(p)
    for start in range(0, n, 4096):
        squares += np.square(X[start : start + 4096] - mean).sum(axis=0)
    deviation = np.sqrt(squares / n)
    kept = is_kept(mean, deviation)
    scale = np.where(kept, deviation, 1.0) if standardize else np.ones(p)
    return Scaler(mean.astype(np.float32), scale.astype(np.float32), kept)


def is_kept(mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Which features vary enough on train to take part, see `Scaler`; bool (p,)."""
    return deviation >= _CONSTANT * (np.abs(mean) + 1)
