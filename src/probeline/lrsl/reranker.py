"""Rerank the logits of new texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from probeline.lrsl.decision import Decision
from probeline.lrsl.embedding import joined
from probeline.lrsl.neighbours import label_similarities, narrows

if TYPE_CHECKING:
    from probeline.lrsl.embedding import Embedder
    from probeline.lrsl.label_vectors import LabelVectors


@dataclass(frozen=True)
class Reranker:
    """A decision with the embedding and the labels' vectors that it needs.

    Attributes
    ----------
    decision : Decision
    vectors : LabelVectors
    embedder : Embedder or None
        None where the decision is to do nothing.
    manifest : dict
        The contents of reranker.json; empty for one that was never written.
    """

    decision: Decision
    vectors: LabelVectors
    embedder: Embedder | None
    manifest: dict

    def rerank(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None,
        logits: np.ndarray,
        selected: np.ndarray | None = None,
    ) -> np.ndarray:
        """Rerank logits; only the texts that are selected are embedded.

        Parameters
        ----------
        texts : sequence of str
        pairs : sequence of str or None
            The second texts.
        logits : ndarray of float32, shape (n, K)
            Columns in the order of the labels' vectors.
        selected : ndarray of bool, shape (n,), optional
            Default: those that `decision` selects.

        Returns
        -------
        ndarray of float32, shape (n, K)
            Rows that are not selected are those of `logits`, bit for bit.
        """
        if selected is None:
            selected = self.decision.selects(logits)
        if not selected.any():
            return logits
        similarity = self.similarities(texts, pairs, selected, logits=logits)
        return self.decision.apply(logits, selected, similarity)

    def similarities(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None,
        selected: np.ndarray,
        what: str | None = None,
        logits: np.ndarray | None = None,
    ) -> np.ndarray:
        """Cosines of the selected texts and all labels, float32 (selected, K).

        Parameters
        ----------
        texts, pairs, selected
            As in `rerank`.
        what : str, optional
            Shown with the progress; none is shown without it.
        logits : ndarray of float32, shape (n, K), optional
            As in `rerank`: among very many labels, those that the decision could not choose have a
            similarity of 0.
        """
        embeddings = self.embedder.encode(joined(texts, pairs, np.flatnonzero(selected)), what)
        own = self.decision.reranking
        narrow = own.combiner is None and narrows(own.form.name, own.form.candidates)
        given = logits[selected] if narrow and logits is not None else None
        return label_similarities(embeddings, self.vectors, given)
