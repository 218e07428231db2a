"""What validation decided about a reranker, and applying it to logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from probeline.lrsl.hardness import certainty, is_hard
from probeline.lrsl.rerank import Form

if TYPE_CHECKING:
    from probeline.lrsl.combiner import Combiner


@dataclass(frozen=True)
class Decision:
    """Which texts are reranked, and how.

    Attributes
    ----------
    form : Form
        Of name 'mlp' where `combiner` reranks.
    k : int
        Top logits that tell how hard a text is.
    measure : one of `probeline.lrsl.hardness.MEASURES`
    threshold : float or None
        Texts of this certainty or less are hard; None: no text is.
    temperature : float
    everything : bool
        Rerank all texts, hard or not.
    multilabel : bool
    label_threshold : float
        Taken off the reranked logits of a multi-label task, so that a label is predicted above 0.
    combiner : Combiner or None
    """

    form: Form
    k: int
    measure: str = "variance"
    threshold: float | None = None
    temperature: float = 1.0
    everything: bool = False
    multilabel: bool = False
    label_threshold: float = 0.0
    combiner: Combiner | None = None

    @property
    def idle(self) -> bool:
        """Whether no text can be changed."""
        return self.form == Form.nothing() or (self.threshold is None and not self.everything)

    def certainty(self, logits: np.ndarray) -> np.ndarray:
        """How certain logits (n, K) are, float64 (n,): high is easy."""
        return certainty(logits, self.measure, self.k, self.multilabel, self.temperature)

    def selects(self, logits: np.ndarray) -> np.ndarray:
        """Which rows of logits (n, K) are to be reranked, bool (n,)."""
        if self.idle or self.everything:
            return np.full(len(logits), not self.idle)
        return is_hard(self.certainty(logits), self.threshold)

    def apply(self, logits: np.ndarray, selected: np.ndarray, similarity: np.ndarray) -> np.ndarray:
        """Rerank the selected rows.

        Parameters
        ----------
        logits : ndarray of float32, shape (n, K)
        selected : ndarray of bool, shape (n,)
        similarity : ndarray, shape (selected rows, K)
            Cosines of the selected texts and the labels.

        Returns
        -------
        ndarray of float32, shape (n, K)
            Rows that are not selected are those of `logits`, bit for bit.
        """
        raise NotImplementedError
