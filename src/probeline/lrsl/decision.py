"""What validation decided about a reranker: how hardness is measured, and what hard texts get."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from probeline.lrsl.hardness import certainty
from probeline.lrsl.rerank import Form
from probeline.lrsl.reranking import Reranking

if TYPE_CHECKING:
    from probeline.lrsl.combiner import Combiner


@dataclass(frozen=True)
class Decision:
    """A reranking with what its threshold is compared with.

    Attributes
    ----------
    reranking : Reranking
        Of infinite threshold where every text is reranked.
    measure : one of `probeline.lrsl.hardness.MEASURES`
    k : int
        Top logits that tell how hard a text is.
    """

    reranking: Reranking
    measure: str
    k: int

    @property
    def idle(self) -> bool:
        """Whether no text can be changed."""
        return self.reranking.idle

    def certainty(self, logits: np.ndarray) -> np.ndarray:
        """How certain logits (n, K) are, float64 (n,): high is easy."""
        own = self.reranking
        return certainty(logits, self.measure, self.k, own.multilabel, own.temperature)

    def selects(self, logits: np.ndarray) -> np.ndarray:
        """Which rows of logits (n, K) are to be reranked, bool (n,)."""
        return self.reranking.hard(self.certainty(logits))

    def apply(self, logits: np.ndarray, selected: np.ndarray, similarity: np.ndarray) -> np.ndarray:
        """Rerank the selected rows; see `Reranking.apply`."""
        return self.reranking.apply(logits, selected, similarity)

    def plain(self) -> dict:
        """All but the arrays of a combiner, as plain values fit for JSON."""
        own = self.reranking
        everything = own.threshold == float("inf")
        return {
            "measure": self.measure,
            "k": self.k,
            "threshold": None if everything else own.threshold,
            "everything": everything,
            "form": asdict(own.form),
            "combiner": None if own.combiner is None else own.combiner.meta(),
            "offset": own.offset,
            "multilabel": own.multilabel,
            "temperature": own.temperature,
            "taken_off": None if own.taken_off is None else list(own.taken_off),
        }

    @classmethod
    def of(cls, plain: Mapping, combiner: Combiner | None) -> Decision:
        """Make one again from `plain` and its combiner."""
        reranking = Reranking(
            form=Form(**plain["form"]),
            threshold=float("inf") if plain["everything"] else plain["threshold"],
            combiner=combiner,
            offset=plain["offset"],
            multilabel=plain["multilabel"],
            temperature=plain["temperature"],
            taken_off=None if plain["taken_off"] is None else tuple(plain["taken_off"]),
        )
        return cls(reranking, plain["measure"], plain["k"])
