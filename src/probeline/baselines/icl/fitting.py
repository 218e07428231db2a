"""Prompts that fit the model's context: examples are dropped first, then the text is cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from probeline.baselines.icl.prompt import Template
from probeline.errors import ProbelineError
from probeline.models.causal import CausalModel

_AT_ONCE = 256
# Tokens by which joining two pieces of text may change their number.
_SEAM = 2


@dataclass(frozen=True)
class Query:
    """A text to be labelled.

    Attributes
    ----------
    text, pair : str, str or None
    shots : sequence of str
        Examples, the one to be dropped last first. Queries may share one list.
    reverse : bool
        Show the examples in the opposite order, so that the first stands next to the text.
    """

    text: str
    pair: str | None
    shots: Sequence[str]
    reverse: bool = False

    def prompt(self, template: Template, kept: int) -> str:
        """The prompt with the first `kept` examples."""
        shots = self.shots[:kept]
        return template.prompt(shots[::-1] if self.reverse else shots, self.text, self.pair)


@dataclass(frozen=True)
class Prompts:
    """Tokenized prompts.

    Attributes
    ----------
    ids : list of ndarray of int32
    kept : ndarray of int64, shape (n,)
        Examples that each shows.
    cut : ndarray of bool, shape (n,)
        Whether the text itself was truncated.
    """

    ids: list[np.ndarray]
    kept: np.ndarray
    cut: np.ndarray


def fit_prompts(
    model: CausalModel,
    template: Template,
    queries: Sequence[Query],
    room: int | None,
    most: np.ndarray | None = None,
) -> Prompts:
    """Tokenize prompts of at most `room` tokens each.

    Of a prompt that is too long examples are dropped, the last of its list first, until it fits;
    when none is left the text is truncated (of a pair the longer one first).

    Parameters
    ----------
    room : int or None
        None where nothing limits the model.
    most : ndarray of int64, shape (n,), optional
        Examples to begin with; default all.

    Raises
    ------
    ProbelineError
        If a prompt does not fit even without examples and text, or has no token at all.
    """
    kept = np.array([len(query.shots) for query in queries]) if most is None else most.copy()
    cut = np.zeros(len(queries), dtype=bool)
    ids: list[np.ndarray | None] = [None] * len(queries)
    lengths = _Lengths(model, template)
    pending = list(range(len(queries)))
    while pending:
        long = []
        for start in range(0, len(pending), _AT_ONCE):
            part = pending[start : start + _AT_ONCE]
            prompts = [queries[i].prompt(template, int(kept[i])) for i in part]
            for i, tokens in zip(part, tokenize_prompts(model, prompts), strict=True):
                excess = 0 if room is None else len(tokens) - room
                if excess <= 0:
                    ids[i] = tokens
                elif kept[i] == 0:
                    ids[i], cut[i] = _cut(model, template, queries[i], room), True
                else:
                    kept[i] -= lengths.shots_to_drop(queries[i].shots[: kept[i]], excess)
                    long.append(i)
        pending = long
    return Prompts(ids, kept, cut)


class _Lengths:
    """Tokens of single examples, each counted once."""

    def __init__(self, model: CausalModel, template: Template):
        self._model, self._template = model, template
        self._known: dict[str, int] = {}

    def shots_to_drop(self, shots: Sequence[str], excess: int) -> int:
        """How many of the last `shots` must go at least; never one more than needed."""
        saved = 0
        for number, shot in enumerate(reversed(shots), start=1):
            if shot not in self._known:
                tokens = self._model.tokenizer(
                    self._template.separator + shot, add_special_tokens=False
                )["input_ids"]
                self._known[shot] = len(tokens)
            saved += self._known[shot] + _SEAM
            if saved >= excess:
                return number
        return len(shots)


def tokenize_prompts(model: CausalModel, prompts: Sequence[str]) -> list[np.ndarray]:
    """Token ids of prompts, with what the tokenizer puts before a text and nothing after it.

    Raises
    ------
    ProbelineError
        If a prompt has no token and the model no token to start with.
    """
    if not prompts:
        return []
    encoded = model.tokenizer(list(prompts), add_special_tokens=False, verbose=False)["input_ids"]
    start = list(model.leading)
    result = []
    for tokens in encoded:
        ids = start + tokens
        if not ids:
            first = model.tokenizer.bos_token_id
            first = model.tokenizer.eos_token_id if first is None else first
            if first is None:
                raise ProbelineError(
                    f"{model.path}: a prompt has no token and the tokenizer no start token; give "
                    "icl an `instruction`"
                )
            ids = [first]
        result.append(np.array(ids, dtype=np.int32))
    _check_ids(model, result)
    return result


def _check_ids(model: CausalModel, prompts: Sequence[np.ndarray]) -> None:
    largest = max(int(ids.max()) for ids in prompts)
    if largest >= model.vocabulary:
        raise ProbelineError(
            f"{model.path}: its tokenizer makes id {largest}, but the model has "
            f"{model.vocabulary} embeddings; the tokenizer belongs to another model"
        )


def _cut(model: CausalModel, template: Template, query: Query, room: int) -> np.ndarray:
    """The prompt without examples, of as many characters of the text as fit."""

    def at(characters: int) -> np.ndarray:
        pair = None if query.pair is None else query.pair[:characters]
        shorter = Query(query.text[:characters], pair, ())
        return tokenize_prompts(model, [shorter.prompt(template, 0)])[0]

    best = at(0)
    if len(best) > room:
        raise ProbelineError(
            f"icl: instruction and example format take {len(best)} tokens, and {model.path} has "
            f"room for {room} before the label; shorten them or raise `context`"
        )
    low, high = 0, max(len(query.text), len(query.pair or ""))
    while high - low > 1:
        middle = (low + high) // 2
        tokens = at(middle)
        if len(tokens) <= room:
            low, best = middle, tokens
        else:
            high = middle
    return best


def label_tokens(model: CausalModel, template: Template, text: str) -> list[int]:
    """Token ids of a label's text as they follow a prompt.

    Tokenized together with what stands before it, since a tokenizer may join the two; where it
    joins them beyond telling apart, by itself.

    Raises
    ------
    ProbelineError
        If the tokenizer makes no token of it.
    """

    def encode(part: str) -> list[int]:
        return model.tokenizer(part, add_special_tokens=False)["input_ids"]

    before = encode(template.lead)
    whole = encode(template.lead + template.gap + text)
    ids = whole[len(before) :] if whole[: len(before)] == before else encode(template.gap + text)
    if not ids:
        raise ProbelineError(f"icl: {model.path} makes no token of the label text '{text}'")
    return ids
