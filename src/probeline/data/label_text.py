"""Label names as text: `card_arrival` becomes "card arrival"."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from probeline.errors import ProbelineError, one_of

# A dash or underscore inside a name; one that stands alone or before a number is left as it is.
_JOINED = re.compile(r"(?<=[^\W_])-+(?=[^\W_])|_+")
# Two lower-case letters before the capital: "cardArrival" is cut, "iPhone" and "eBay" are names.
_HUMP = re.compile(r"(?<=[a-z]{2})(?=[A-Z])")
# The end of an acronym inside a name, as in "getHTTPResponse".
_AFTER_ACRONYM = re.compile(r"(?<=[A-Z]{2})(?=[A-Z][a-z]{2})")
_CAPITALISED = re.compile(r"[A-Z][a-z]+")


def label_text(name: str) -> str:
    """Write a label's name as words.

    Underscores and dashes between words become spaces and camelCase is cut into words. Acronyms
    keep their letters: `declined_ATM_withdrawal` becomes "declined ATM withdrawal". A name of
    nothing but separators is returned as it is.
    """
    words = [part for word in _JOINED.sub(" ", name).split() for part in _humps(word)]
    return " ".join(words) or name


def _humps(word: str) -> list[str]:
    """The words of a camelCase word; those after the first are lower-cased as the first is."""
    parts = [part for piece in _HUMP.split(word) for part in _AFTER_ACRONYM.split(piece)]
    if not parts[0][0].islower():
        return parts
    return [part.lower() if _CAPITALISED.fullmatch(part) else part for part in parts]


def label_texts(
    labels: Sequence[str], given: Mapping[str, str | Sequence[str]] | None = None
) -> list[tuple[str, ...]]:
    """Collect the texts that stand for each label.

    Parameters
    ----------
    labels : sequence of str
    given : mapping of label to str or sequence of str, optional
        Texts that replace a label's name: a description, or several wordings. Labels it leaves out
        have `label_text` of their name.

    Returns
    -------
    list of tuple of str, one per label
        One or several texts, none of them empty.

    Raises
    ------
    ProbelineError
        If `given` names a label that does not exist, a text is empty, or one text stands for two
        labels, which no score could then tell apart.
    """
    given = dict(given or {})
    for label in given:
        if label not in labels:
            raise ProbelineError(f"label_texts: {one_of(label, labels)}")
    texts = [_of(label, given.get(label)) for label in labels]
    owner: dict[str, str] = {}
    for label, own in zip(labels, texts, strict=True):
        for text in own:
            if owner.setdefault(text, label) != label:
                raise ProbelineError(
                    f"label_texts: '{text}' stands for both '{owner[text]}' and '{label}'; give "
                    "one of them a text of its own"
                )
    return texts


def _of(label: str, given: str | Sequence[str] | None) -> tuple[str, ...]:
    if given is None:
        return (label_text(label),)
    texts = (given,) if isinstance(given, str) else tuple(given)
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise ProbelineError(f"label_texts.{label}: expected one or several texts, none empty")
    return tuple(dict.fromkeys(text.strip() for text in texts))
