"""A reranking ready for new texts: its form or combiner, and which texts are hard."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from probeline.lrsl.combiner import Combiner
from probeline.lrsl.hardness import is_hard
from probeline.lrsl.rerank import Form, apply


@dataclass(frozen=True)
class Reranking:
    """All that reranking new texts needs, beside their certainties and similarities.

    Attributes
    ----------
    form : Form
        `Form.nothing()` where nothing is done, or a combiner does it.
    threshold : float or None
        Certainty up to which a text is hard; None: no text is.
    combiner : Combiner, optional
    offset : float
        Of several labels: the reranked logit above which one is predicted, taken off hard rows.
    multilabel : bool
    temperature : float
    """

    form: Form
    threshold: float | None
    combiner: Combiner | None = None
    offset: float = 0.0
    multilabel: bool = False
    temperature: float = 1.0

    def hard(self, certainty: np.ndarray) -> np.ndarray:
        """Rows whose similarities are needed; bool (n,), all false where nothing is done."""
        if self.combiner is None and self.form.is_nothing:
            return np.zeros(len(certainty), dtype=bool)
        return is_hard(certainty, self.threshold)

    def apply(
        self, logits: np.ndarray, hard: np.ndarray, similarity_of_hard: np.ndarray
    ) -> np.ndarray:
        """Rerank the hard rows; the others stay bit for bit.

        Parameters
        ----------
        logits : ndarray, shape (n, K)
        hard : ndarray of bool, shape (n,)
        similarity_of_hard : ndarray, shape (h, K)

        Returns
        -------
        ndarray of float32, shape (n, K)
            As of `rerank.apply`; of several labels one is predicted above 0.
        """
        if self.combiner is None:
            result = apply(
                logits, hard, similarity_of_hard, self.form, self.multilabel, self.temperature
            )
        else:
            result = logits.astype(np.float32)
            if hard.any():
                changed = self.combiner.scores(logits[hard], similarity_of_hard)
                result[hard] = changed * np.float32(self.temperature)
        if self.offset:
            result[hard] -= np.float32(self.offset)
        return result
