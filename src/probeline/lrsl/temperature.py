"""Temperature scaling: one number that divides all logits (Guo, Pleiss, Sun and Weinberger 2017).

It changes margins, entropies and reported probabilities. It cannot change which texts the variance
calls hard, nor, where the power of a similarity is free, the winner of a reranking.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, softmax

from probeline.errors import ProbelineError

# Logits that separate validation perfectly have their optimum at 0, others without use at infinity.
_RANGE = (np.log(0.01), np.log(100.0))


def fit_temperature(logits: np.ndarray, y: np.ndarray, multilabel: bool) -> float:
    """Find the temperature with the lowest log loss.

    Parameters
    ----------
    logits : ndarray, shape (n, K)
        Of validation texts.
    y : ndarray, shape (n,) of codes or (n, K) of 0/1

    Returns
    -------
    float
        From 0.01 to 100.

    Raises
    ------
    ProbelineError
        If there are no rows.
    """
    if len(logits) == 0:
        raise ProbelineError("lrsl.temperature: there are no validation texts to fit it on")
    values = logits.astype(np.float64)

    def loss(log_temperature: float) -> float:
        return float(log_losses(values / np.exp(log_temperature), y, multilabel).mean())

    found = minimize_scalar(loss, bounds=_RANGE, method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def log_losses(logits: np.ndarray, y: np.ndarray, multilabel: bool) -> np.ndarray:
    """Minus the log-probability of what is true, of several labels their mean; float64 (n,)."""
    values = logits.astype(np.float64)
    if multilabel:
        return np.logaddexp(0, np.where(y.astype(bool), -values, values)).mean(axis=1)
    return -log_softmax(values, axis=1)[np.arange(len(y)), y]


def probabilities(
    logits: np.ndarray, multilabel: bool = False, temperature: float = 1.0
) -> np.ndarray:
    """Probabilities of labels, float64 (n, K): softmax, or of several labels the sigmoid of each.

    Parameters
    ----------
    logits : ndarray, shape (n, K)
    multilabel : bool
    temperature : float
        Divides the logits.
    """
    values = logits.astype(np.float64) / temperature
    return expit(values) if multilabel else softmax(values, axis=1)
