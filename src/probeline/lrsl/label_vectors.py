"""Vectors that stand for labels, and the cosines of texts to them. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from probeline.errors import ProbelineError, one_of

HOW = ("mean", "best")
_NUMBERS_AT_ONCE = 1 << 24


@dataclass(frozen=True)
class LabelVectors:
    """One or several vectors per label.

    Attributes
    ----------
    vectors : ndarray of float32, shape (m, d)
        Rows of length 1.
    owner : ndarray of int64, shape (m,)
        Label of each vector, ascending; every label from 0 to K - 1 occurs.
    how : one of `HOW`
        "mean" has one vector per label, "best" one per text of a label.
    """

    vectors: np.ndarray
    owner: np.ndarray
    how: str

    def __post_init__(self):
        steps = np.diff(self.owner, prepend=-1)
        if (
            self.vectors.ndim != 2
            or len(self.owner) != len(self.vectors)
            or len(self.owner) == 0
            or not np.isin(steps, (0, 1)).all()
            or self.owner[0] != 0
        ):
            raise ProbelineError(
                f"label vectors: {len(self.vectors)} vectors and {len(self.owner)} owners that are "
                "not the labels 0, 1, ... in order"
            )

    @property
    def labels(self) -> int:
        """How many labels there are."""
        return int(self.owner[-1]) + 1

    def similarities(self, embeddings: np.ndarray) -> np.ndarray:
        """Cosine of every text to every label, of a label's texts the largest.

        Parameters
        ----------
        embeddings : ndarray of float32, shape (n, d)
            Rows of length 1.

        Returns
        -------
        ndarray of float32, shape (n, K)

        Raises
        ------
        ProbelineError
            If the embeddings have another width than the label vectors.
        """
        self.check_width(embeddings)
        found = np.empty((len(embeddings), self.labels), dtype=np.float32)
        starts = np.searchsorted(self.owner, np.arange(self.labels))
        step = max(1, _NUMBERS_AT_ONCE // len(self.vectors))
        for start in range(0, len(embeddings), step):
            part = slice(start, start + step)
            cosines = np.asarray(embeddings[part], dtype=np.float32) @ self.vectors.T
            if len(starts) < len(self.vectors):
                cosines = np.maximum.reduceat(cosines, starts, axis=1)
            found[part] = cosines
        return found

    def check_width(self, embeddings: np.ndarray) -> None:
        """Refuse embeddings that another embedder made."""
        width = embeddings.shape[1]
        if width != self.vectors.shape[1]:
            raise ProbelineError(
                f"label vectors: of width {self.vectors.shape[1]}, but the texts' embeddings have "
                f"{width} columns; embed labels and texts with the same lrsl.embedder"
            )


def flat_texts(
    texts: Sequence[Sequence[str]], template: str = "{label}"
) -> tuple[list[str], np.ndarray]:
    """All texts of all labels inside the template, and the label (int64) of each.

    Raises
    ------
    ProbelineError
        If the template has no `{label}`.
    """
    if "{label}" not in template:
        raise ProbelineError(
            f"lrsl.template: '{template}' has no {{label}}; write for example "
            "'This text is about {label}.'"
        )
    flat = [template.replace("{label}", text) for own in texts for text in own]
    owner = np.repeat(np.arange(len(texts)), [len(own) for own in texts])
    return flat, owner.astype(np.int64)


def label_vectors(
    embedder, texts: Sequence[Sequence[str]], template: str = "{label}", how: str = "mean"
) -> LabelVectors:
    """Embed the texts of all labels.

    Parameters
    ----------
    embedder : probeline.lrsl.embedding.Embedder
    texts : sequence of sequence of str
        The texts of each label, as `probeline.data.label_text.label_texts` returns them.
    template : str
        What is embedded, with `{label}` in the text's place.
    how : one of `HOW`
        Of several texts per label: their mean, made length 1 again, or the best one for each text.

    Raises
    ------
    ProbelineError
        If the template has no `{label}` or `how` is unknown.
    """
    if how not in HOW:
        raise ProbelineError(f"lrsl.label_similarity: {one_of(how, HOW)}")
    flat, owner = flat_texts(texts, template)
    vectors = embedder.encode(flat)
    if how == "best":
        return LabelVectors(vectors, owner, how)
    sums = np.zeros((len(texts), vectors.shape[1]))
    np.add.at(sums, owner, vectors)
    lengths = np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    means = (sums / lengths).astype(np.float32)
    return LabelVectors(means, np.arange(len(texts), dtype=np.int64), how)
