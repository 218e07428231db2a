"""Rerank the logits of new texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from probeline.lrsl.decision import Decision


def anchors(texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[str]:
    """What is embedded of each text: of a pair both texts, one after the other."""
    if pairs is None:
        return list(texts)
    return [f"{first} {second}" for first, second in zip(texts, pairs, strict=True)]


@dataclass(frozen=True)
class Reranker:
    """A decision with the embedding and the labels' vectors that it needs.

    Attributes
    ----------
    manifest : dict
        The contents of reranker.json.
    decision : Decision
    vectors : LabelVectors
    embedder : Embedder or None
        None where the decision is to do nothing.
    """

    manifest: dict
    decision: Decision
    vectors: object
    embedder: object | None

    def rerank(
        self, texts: Sequence[str], pairs: Sequence[str] | None, logits: np.ndarray
    ) -> np.ndarray:
        """Rerank logits; only the texts that `decision` selects are embedded.

        Parameters
        ----------
        texts : sequence of str
        pairs : sequence of str or None
            The second texts.
        logits : ndarray of float32, shape (n, K)
            Columns in the order of `manifest["labels"]`.

        Returns
        -------
        ndarray of float32, shape (n, K)
            Rows that are not selected are those of `logits`, bit for bit.
        """
        raise NotImplementedError
