"""From log-probabilities of label words to scores of labels, calibrated or not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import log_softmax, logsumexp

# Inputs that say nothing, so that what is predicted from them is the prompt's own bias.
CONTENT_FREE = ("N/A", "", "[MASK]")


def label_scores(
    sums: np.ndarray, lengths: Sequence[int], owners: Sequence[int], labels: int, normalize: str
) -> np.ndarray:
    """Score labels by the log-probabilities of their texts.

    Parameters
    ----------
    sums : ndarray, shape (n, texts)
    lengths : sequence of int
        Tokens of each label text.
    owners : sequence of int
        Label that each text stands for; of several texts the mean probability counts.
    labels : int
    normalize : {"mean", "sum"}
        Whether the log-probability is divided by the number of tokens.

    Returns
    -------
    ndarray of float64, shape (n, labels)
    """
    values = sums / np.asarray(lengths) if normalize == "mean" else sums
    owners = np.asarray(owners)
    columns = [values[:, owners == k] for k in range(labels)]
    return np.stack([logsumexp(own, axis=1) - np.log(own.shape[1]) for own in columns], axis=1)


def content_free_prior(scores: np.ndarray) -> np.ndarray:
    """What the prompt predicts from nothing: the mean over content-free inputs of the labels'
    probabilities, which are made to sum to one for each.

    Parameters
    ----------
    scores : ndarray, shape (..., inputs, K)

    Returns
    -------
    ndarray, shape (..., K)
    """
    return np.exp(log_softmax(scores, axis=-1)).mean(axis=-2)


def calibrated(scores: np.ndarray, prior: np.ndarray | None) -> np.ndarray:
    """Logits of labels: log p, or with a prior log (p / prior).

    p = softmax of the scores. The latter is contextual calibration: the label with the largest
    entry of diag(prior)^-1 p is predicted (Zhao, Wallace, Feng, Klein and Singh 2021, "Calibrate
    before use", section 5), and the softmax of the logits is that vector, summing to one.

    Parameters
    ----------
    scores : ndarray, shape (n, K)
    prior : ndarray, shape (K,) or (n, K), optional
    """
    logits = log_softmax(scores, axis=-1)
    return logits if prior is None else logits - np.log(prior)
