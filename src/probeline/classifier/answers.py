"""What every classifier that is loaded has in common: what it is asked, and how it answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from probeline.data.encoding import is_unicode
from probeline.errors import ProbelineError


def check_texts(texts: list, pairs: list | None, wants_pairs: bool) -> None:
    """Refuse what a classifier cannot read.

    Raises
    ------
    ProbelineError
        If second texts are missing, too many or not wanted, or a text is none.
    """
    if wants_pairs != (pairs is not None):
        raise ProbelineError(
            "predict: this classifier was trained on pairs of texts; give the second ones too"
            if wants_pairs
            else "predict: this classifier was trained on single texts; give no second ones"
        )
    if pairs is not None and len(pairs) != len(texts):
        raise ProbelineError(f"predict: {len(texts)} texts but {len(pairs)} second texts")
    for column in (texts, pairs or []):
        for number, text in enumerate(column):
            if not isinstance(text, str):
                raise ProbelineError(
                    f"predict: every text must be a string; text {number} is {type(text).__name__}"
                )
            if not is_unicode(text):
                raise ProbelineError(
                    f"predict: text {number} holds half a character (a lone surrogate); "
                    "was it read in another encoding than UTF-8?"
                )


def answers(
    labels: Sequence[str], multilabel: bool, logits: np.ndarray, scores: np.ndarray
) -> Iterator[dict]:
    """Yield for each text `label` or, for multi-label, `labels`, and `scores`.

    Parameters
    ----------
    logits : ndarray, shape (n, K)
        Multi-label: a label holds above 0.
    scores : ndarray, shape (n, K)
        Probabilities.
    """
    for row, own in zip(logits, scores.tolist(), strict=True):
        named = {k: round(v, 6) for k, v in zip(labels, own, strict=True)}
        if multilabel:
            chosen = [k for k, z in zip(labels, row, strict=True) if z > 0]
            yield {"labels": chosen, "scores": named}
        else:
            yield {"label": labels[int(np.argmax(row))], "scores": named}
