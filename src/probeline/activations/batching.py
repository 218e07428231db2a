"""Tokenize texts and group them into batches that pad little."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch

from probeline.errors import ProbelineError
from probeline.models.devices import sent
from probeline.models.load import LoadedModel


@dataclass(frozen=True)
class Tokens:
    """Tokenized texts.

    Attributes
    ----------
    ids : list of list of int, or of int32 ndarray
        Token ids of each text, truncated, special tokens included.
    types : the same, or None
        Segment ids, for models that have them.
    before : ndarray of int32, shape (texts,)
        Tokens of each text before truncation.
    more : mapping of str to ndarray, each (texts, ...)
        What else the body is told of each text, by the names of its arguments.
    """

    ids: list[list[int]]
    types: list[list[int]] | None
    before: np.ndarray
    more: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each text after truncation: int32, shape (texts,)."""
        return np.fromiter(map(len, self.ids), dtype=np.int32, count=len(self.ids))


@dataclass(frozen=True)
class Batch:
    """Padded inputs of one forward pass.

    Attributes
    ----------
    rows : ndarray of int64, shape (B,)
        Which texts these are.
    lengths : list of int
        Real tokens of each row.
    inputs : dict of str to torch.Tensor, as `inputs_of` makes them
        On the model's device; padding is on the right.
    """

    rows: np.ndarray
    lengths: list[int]
    inputs: dict[str, torch.Tensor]


def tokenize(
    model: LoadedModel, texts: Sequence[str], pairs: Sequence[str] | None = None, row: int = 0
) -> Tokens:
    """Tokenize `texts` (with `pairs` as second sentences) to at most `model.max_length` tokens.

    Parameters
    ----------
    row : int
        Row number of the first text, for error messages.

    Raises
    ------
    ProbelineError
        If a text has no token at all, or the tokenizer makes an id the model has no embedding for.
    """
    texts = list(texts)
    if not texts:
        return Tokens([], None, np.zeros(0, dtype=np.int32))
    segments = model.family.token_types and getattr(model.body.config, "type_vocab_size", 0) > 1
    encoded = model.tokenizer(
        texts,
        list(pairs) if pairs is not None else None,
        truncation=True,
        max_length=model.max_length,
        padding=False,
        return_attention_mask=False,
        return_token_type_ids=segments,
    )
    ids = encoded["input_ids"]
    _check(model, ids, row)
    types = encoded["token_type_ids"] if segments and pairs is not None else None
    return Tokens(ids, types, _lengths_before(model, encoded, texts, pairs))


def batches(lengths: np.ndarray, budget: int) -> list[np.ndarray]:
    """Group texts into batches of at most `budget` tokens, padding included.

    Longest first, so that a batch too large for the memory shows at once; texts of one length keep
    their order, so that the result depends on the lengths only.

    Returns
    -------
    list of ndarray of int64
        Row numbers of each batch; each row stands in exactly one.
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    groups = []
    start = 0
    while start < len(order):
        size = max(1, budget // int(lengths[order[start]]))
        groups.append(order[start : start + size])
        start += size
    return groups


def inputs_of(tokens: Tokens, rows: Sequence[int], pad_id: int) -> dict[str, torch.Tensor]:
    """Ids, mask and, where there are any, segment ids of some texts, padded on the right.

    Returns
    -------
    dict of str to torch.Tensor of int64, each (B, T), and what `more` holds of these texts
    """
    ids = [tokens.ids[row] for row in rows]
    counts = torch.tensor([len(text) for text in ids])
    inputs = {"input_ids": _right_padded(ids, pad_id)}
    width = inputs["input_ids"].shape[1]
    inputs["attention_mask"] = (torch.arange(width) < counts[:, None]).long()
    if tokens.types is not None:
        inputs["token_type_ids"] = _right_padded([tokens.types[row] for row in rows], 0)
    chosen = np.asarray(rows)
    return inputs | {name: torch.as_tensor(own[chosen]) for name, own in tokens.more.items()}


def _right_padded(parts: Sequence[Sequence[int]], fill: int) -> torch.Tensor:
    rows = torch.full((len(parts), max(map(len, parts))), fill, dtype=torch.int64)
    for row, part in zip(rows, parts, strict=True):
        row[: len(part)] = torch.as_tensor(part)
    return rows


def padded(
    model: LoadedModel, tokens: Tokens, budget: int | None = None, first: int = 0
) -> Iterator[Batch]:
    """Yield `tokens` as padded batches on the model's device, longest first.

    Their rows are counted from `first`.

    Padding is always on the right, whatever side the tokenizer prefers: position numbers that a
    model counts from the left are then right without being told.
    """
    lengths = tokens.lengths
    for rows in batches(lengths + model.beside, budget or model.batch_tokens):
        counts = [int(lengths[row]) for row in rows]
        inputs = inputs_of(tokens, rows, model.pad_id)
        inputs = {name: sent(value, model.device) for name, value in inputs.items()}
        yield Batch(first + np.asarray(rows), counts, inputs)


@contextmanager
def fitting(model: LoadedModel, batch: Batch) -> Iterator[None]:
    """Say what to do where the memory of the device does not hold what is done with a batch."""
    try:
        yield
    except torch.OutOfMemoryError:
        rows, width = batch.inputs["input_ids"].shape
        raise ProbelineError(
            f"{model.path}: a batch of {rows} texts x {width} tokens does not fit the "
            f"{model.device.type} memory; set `batch_tokens` of this model below "
            f"{rows * width}, its `max_length` lower, or its `device` to cpu"
        ) from None


def _check(model: LoadedModel, ids: list[list[int]], row: int) -> None:
    limit = model.vocabulary
    for place, text in enumerate(ids):
        if not text:
            raise ProbelineError(
                f"{model.path}: its tokenizer makes no token of the text in row {row + place}; "
                "drop that text or give it content"
            )
        if max(text) >= limit:
            raise ProbelineError(
                f"{model.path}: its tokenizer makes id {max(text)} in row {row + place}, but the "
                f"model has {limit} embeddings; the tokenizer belongs to another model"
            )


def _lengths_before(model: LoadedModel, encoded, texts: list[str], pairs) -> np.ndarray:
    """Token counts before truncation."""
    lengths = np.fromiter(map(len, encoded["input_ids"]), dtype=np.int32, count=len(texts))
    cut = np.flatnonzero(lengths >= model.max_length)
    if len(cut) == 0:
        return lengths
    if encoded.encodings is not None and pairs is None:
        # A fast tokenizer keeps what it cut off, so nothing is tokenized twice.
        special = model.tokenizer.num_special_tokens_to_add(pair=False)
        for row in cut:
            rest = encoded.encodings[row].overflowing
            lengths[row] += sum(len(part) - special for part in rest)
        return lengths
    again = model.tokenizer(
        [texts[row] for row in cut],
        [pairs[row] for row in cut] if pairs is not None else None,
        truncation=False,
        padding=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    lengths[cut] = [len(text) for text in again["input_ids"]]
    return lengths
