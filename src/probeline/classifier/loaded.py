"""A classifier that is loaded, whichever it is: its logits, reranked or not, and its answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from probeline.classifier.answers import answers, check_texts
from probeline.probe.losses import sigmoid, softmax

if TYPE_CHECKING:
    from probeline.lrsl.reranker import Reranker


class LoadedClassifier(ABC):
    """What every classifier does with the logits of its own.

    Parameters
    ----------
    labels : list of str
    multilabel : bool
    pair : bool or None
        Whether it classifies pairs of texts; None where it takes any texts.
    threshold : float or ndarray of float32, shape () or (K,)
        What was taken off multi-label logits.
    manifest : dict
        What its folder says of it.
    reranker : Reranker or None
        What decides hard texts anew.
    """

    def __init__(
        self,
        labels: list[str],
        multilabel: bool,
        pair: bool | None,
        threshold: float | np.ndarray,
        manifest: dict,
        reranker: Reranker | None,
    ):
        self.labels, self.multilabel = labels, multilabel
        self.manifest, self.reranker = manifest, reranker
        self._pair, self._threshold = pair, np.asarray(threshold, np.float32)

    @abstractmethod
    def _own_logits(self, texts: list[str], pairs: list[str] | None) -> np.ndarray:
        """Logits float32 (texts, labels) without a reranker, less the multi-label threshold."""

    def logits(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> np.ndarray:
        """Logits, float32 (texts, labels); multi-label thresholds are already taken off.

        Those of hard texts are reranked, where there is a reranker.

        Parameters
        ----------
        texts : sequence of str
        pairs : sequence of str, optional
            The second texts, for a classifier of text pairs.

        Raises
        ------
        ProbelineError
            If second texts are missing, too many or not wanted, or a text is none.
        """
        return self._decided(texts, pairs)[0]

    def scores(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> np.ndarray:
        """Probabilities, float32 (texts, labels): softmax, or a sigmoid per label.

        Of several labels each is predicted above one and the same probability of its own, of
        reranked texts and others alike.
        """
        return self._probabilities(self._decided(texts, pairs)[0])

    def predict(
        self, texts: str | Sequence[str], pairs: str | Sequence[str] | None = None
    ) -> list[dict]:
        """Classify texts.

        Returns
        -------
        list of dict
            One per text: ``label`` (str) or, for multi-label, ``labels`` (list of str);
            ``scores`` {label: probability}; with a reranker ``reranked`` (bool).
        """
        if isinstance(texts, str):
            texts, pairs = [texts], None if pairs is None else [pairs]
        return list(self._answers(*self._decided(texts, pairs)))

    def _checked(
        self, texts: Sequence[str], pairs: Sequence[str] | None
    ) -> tuple[list[str], list[str] | None]:
        """The texts as lists, if it can read them."""
        texts, pairs = list(texts), None if pairs is None else list(pairs)
        check_texts(texts, pairs, pairs is not None if self._pair is None else self._pair)
        return texts, pairs

    def _decided(
        self, texts: Sequence[str], pairs: Sequence[str] | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The logits, and bool (texts,): which of them are reranked."""
        texts, pairs = self._checked(texts, pairs)
        logits = self._own_logits(texts, pairs)
        if self.reranker is None:
            return logits, np.zeros(len(logits), dtype=bool)
        reranked = self.reranker.decision.selects(logits)
        return self.reranker.rerank(texts, pairs, logits, reranked), reranked

    def _probabilities(self, logits: np.ndarray) -> np.ndarray:
        if self.multilabel:
            logits = logits + self._threshold
        if self.reranker is not None:
            logits = logits / np.float32(self.reranker.decision.reranking.temperature)
        return sigmoid(logits) if self.multilabel else softmax(logits)

    def _answers(self, logits: np.ndarray, reranked: np.ndarray) -> Iterator[dict]:
        found = answers(self.labels, self.multilabel, logits, self._probabilities(logits))
        for answer, hard in zip(found, reranked.tolist(), strict=True):
            yield answer if self.reranker is None else answer | {"reranked": hard}
