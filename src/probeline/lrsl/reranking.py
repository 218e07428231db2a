"""A reranking ready for new texts: its form or combiner, and which texts are hard."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from probeline.lrsl.combiner import Combiner
from probeline.lrsl.hardness import is_hard
from probeline.lrsl.rerank import Form, among_top, apply, at_own_scale


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
        Of several labels: how far the thresholds of those that were reranked move. It is taken off
        them. With a form that does nothing it is all that is done.
    multilabel : bool
    temperature : float
    taken_off : tuple of float, K of them, or None
        Of several labels: the classifier's thresholds, which its logits come without. None: all
        are 0.
    """

    form: Form
    threshold: float | None
    combiner: Combiner | None = None
    offset: float = 0.0
    multilabel: bool = False
    temperature: float = 1.0
    taken_off: tuple[float, ...] | None = None

    @property
    def idle(self) -> bool:
        """Whether no text can be changed."""
        nothing = self.combiner is None and self.form.is_nothing and not self.offset
        return nothing or self.threshold is None

    def hard(self, certainty: np.ndarray) -> np.ndarray:
        """Rows whose similarities are needed; bool (n,), all false where nothing is done."""
        return is_hard(certainty, None if self.idle else self.threshold)

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
            return apply(
                logits,
                hard,
                similarity_of_hard,
                self.form,
                self.multilabel,
                self.temperature,
                self.offset,
                self.taken_off,
            )
        result = logits.astype(np.float32)
        if hard.any():
            own = logits[hard]
            scores = self.combiner.scores(own, similarity_of_hard)
            candidates = self.combiner.options.candidates
            mask = among_top(own, candidates) if self.multilabel else None
            scale = self.temperature, self.offset, self.taken_off
            result[hard] = at_own_scale(own, scores, mask, *scale)
        return result
