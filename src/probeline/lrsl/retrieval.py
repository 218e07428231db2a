"""How often a text's nearest label is its own: what a tuned embedding is judged by. No torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from probeline.lrsl.label_vectors import LabelVectors

_NUMBERS_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Retrieval:
    """What the nearest labels of some texts say.

    Attributes
    ----------
    accuracy : float
        Share of the texts whose nearest label text is one of a true label; texts without a true
        label do not count.
    loss : float
        Mean of minus the log of the true labels' share in the softmax over all labels of the
        scaled cosines.
    texts : int
        How many count.
    """

    accuracy: float
    loss: float
    texts: int


def retrieval(
    embeddings: np.ndarray, labels: LabelVectors, true: np.ndarray, scale: float
) -> Retrieval:
    """Look for the nearest label of every text.

    Parameters
    ----------
    embeddings : ndarray of float32, shape (n, d)
        Rows of length 1.
    labels : LabelVectors
        With how = "best", so that all texts of a label are looked at.
    true : ndarray of bool, shape (n, K)
    scale : float

    Raises
    ------
    ProbelineError
        If the embeddings have another width than the label vectors.
    """
    rows = np.flatnonzero(true.any(axis=1))
    hits, loss = 0, 0.0
    step = max(1, _NUMBERS_AT_ONCE // labels.labels)
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        cosines = labels.similarities(embeddings[part])
        own = true[part]
        hits += int(own[np.arange(len(part)), cosines.argmax(axis=1)].sum())
        scaled = scale * cosines.astype(np.float64)
        true_ones = np.where(own, scaled, -np.inf)
        loss += float((logsumexp(scaled, axis=1) - logsumexp(true_ones, axis=1)).sum())
    count = max(len(rows), 1)
    return Retrieval(hits / count, loss / count, len(rows))
