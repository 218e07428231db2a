"""How likely a language model finds each label after each prompt.

log P(label | prompt) = sum over the label's tokens of log P(token | prompt, tokens before it)

What all prompts begin with (instruction and examples) is computed once and its keys and values are
kept. A pass over the rest of the prompts, padded on the right, gives the first token of every label
at once. For labels of several tokens the keys and values of each prompt are copied once per label,
moved to the right so that all prompts end at the same place, and the label's tokens follow. No
padding thus stands between two tokens, and models that count places (sliding windows, ALiBi) see
the distances of an unpadded text.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from probeline.errors import ProbelineError
from probeline.models.causal import CausalModel

log = logging.getLogger(__name__)
# Numbers in the logits of one pass: 2^28 are 1 GB in float32.
_MOST_LOGITS = 1 << 28
# Tokens whose keys and values are kept at once, as a multiple of the tokens of a batch: they cost
# memory, of which a large model may not have that much, and little time.
_CACHED = 4
_LOG_EVERY = 30.0

# Keys and values of each block, (texts, heads, tokens, width of a head).
States = list[tuple[torch.Tensor, torch.Tensor]]


@torch.inference_mode()
def continuation_scores(
    model: CausalModel,
    prompts: Sequence[np.ndarray],
    labels: Sequence[Sequence[int]],
    groups: np.ndarray | None = None,
) -> np.ndarray:
    """Score every label after every prompt.

    Parameters
    ----------
    prompts : sequence of integer ndarray
        Token ids, at least one each.
    labels : sequence of sequence of int
        Token ids of each label, at least one each.
    groups : ndarray of int64, shape (n,), optional
        Prompts of one number begin alike, as far as can be told. It decides what is computed once
        and does not change a score; numbers are worked off from the largest down.

    Returns
    -------
    ndarray of float64, shape (n, labels)
        Sums of natural log-probabilities.

    Raises
    ------
    ProbelineError
        If the memory does not hold a batch, or a probability is not a number.
    """
    scores = np.empty((len(prompts), len(labels)))
    shared = _Shared(model)
    groups = np.zeros(len(prompts), dtype=np.int64) if groups is None else groups
    started = told = time.perf_counter()
    done = 0
    for group in np.unique(groups)[::-1]:
        rows = np.flatnonzero(groups == group)
        begin = shared.beginning([prompts[row] for row in rows])
        own = np.array([len(prompts[row]) - begin for row in rows])
        for batch in _batches(own, begin, model):
            texts = [prompts[row] for row in rows[batch]]
            try:
                found = _score_batch(model, shared.states(texts[0][:begin]), begin, texts, labels)
            except torch.OutOfMemoryError:
                raise ProbelineError(
                    f"{model.path}: a batch of {len(texts)} prompts of up to "
                    f"{max(map(len, texts))} tokens does not fit the {model.device.type} memory; "
                    f"set `batch_tokens` of this model below {model.batch_tokens}, or show fewer "
                    "examples"
                ) from None
            scores[rows[batch]] = found
            done += len(batch)
            if time.perf_counter() - told > _LOG_EVERY:
                told = time.perf_counter()
                log.info("%d of %d prompts, %.1f/s", done, len(prompts), done / (told - started))
    if not np.isfinite(scores).all():
        raise ProbelineError(
            f"{model.path}: a probability is not a number; set the model's `dtype` to float32 or "
            "bfloat16"
        )
    return scores


class _Shared:
    """Keys and values of what prompts begin with; those of a shorter beginning are cut from it."""

    def __init__(self, model: CausalModel):
        self._model = model
        self._ids = np.zeros(0, dtype=np.int32)
        self._states: States = []

    def beginning(self, prompts: list[np.ndarray]) -> int:
        """How many tokens all `prompts` begin with; at least one of each prompt is left over."""
        # One prompt begins like itself: then only what is already there is of use.
        first = prompts[0] if len(prompts) > 1 else self._ids
        common = min(len(first), min(map(len, prompts)) - 1)
        for prompt in prompts:
            differ = np.flatnonzero(prompt[:common] != first[:common])
            common = int(differ[0]) if len(differ) else common
        return common

    def states(self, ids: np.ndarray) -> States:
        """Keys and values of `ids`, of one text."""
        known = len(ids) <= len(self._ids) and np.array_equal(self._ids[: len(ids)], ids)
        if not known:
            self._states = []  # freed before the next are made
            tensor = torch.from_numpy(ids.astype(np.int64))[None].to(self._model.device)
            cache = _run(self._model, tensor, torch.ones_like(tensor), 0, None, 1)[1]
            self._ids, self._states = ids, _states_of(cache)
        size = len(ids)
        if not size:
            return []
        return [(keys[:, :, :size], values[:, :, :size]) for keys, values in self._states]


def _most_cached(model: CausalModel) -> int:
    return min(_CACHED * model.batch_tokens, model.cached_tokens)


def _batches(own: np.ndarray, begin: int, model: CausalModel) -> Iterator[np.ndarray]:
    """Group prompts of `own` tokens after a common beginning, longest first."""
    order = np.argsort(-own, kind="stable")
    vocabulary, cached = model.vocabulary, _most_cached(model)
    start = 0
    while start < len(order):
        width = int(own[order[start]])
        most = min(model.batch_tokens // width, cached // (begin + width))
        stop = start + 1
        lengths = {width}
        while stop < len(order) and stop - start < most:
            lengths.add(int(own[order[stop]]))
            # The logits are computed at every length that occurs.
            if (stop + 1 - start) * len(lengths) * vocabulary > _MOST_LOGITS:
                break
            stop += 1
        yield order[start:stop]
        start = stop


def _score_batch(
    model: CausalModel,
    shared: States,
    begin: int,
    prompts: list[np.ndarray],
    labels: Sequence[Sequence[int]],
) -> np.ndarray:
    """Scores (n, labels) of prompts that begin with the tokens of `shared`."""
    own = [prompt[begin:] for prompt in prompts]
    lengths = torch.tensor([len(part) for part in own], device=model.device)
    ids, mask = _right_padded(own, model)
    cache = _cache_of(
        [(k.expand(len(own), -1, -1, -1), v.expand(len(own), -1, -1, -1)) for k, v in shared]
    )
    mask = torch.cat([mask.new_ones(len(own), begin), mask], dim=1)
    last, which = torch.unique(lengths - 1, return_inverse=True)
    logits, cache = _run(model, ids, mask, begin, cache, last)
    rows = torch.arange(len(own), device=model.device)
    chances = torch.log_softmax(logits[rows, which].float(), dim=-1)
    firsts = torch.tensor([label[0] for label in labels], device=model.device)
    scores = chances[:, firsts].double().cpu().numpy()
    del logits, chances
    tails = [k for k, label in enumerate(labels) if len(label) > 1]
    if tails:
        _add_tails(model, scores, _states_of(cache), begin + lengths, labels, tails)
    return scores


def _add_tails(
    model: CausalModel,
    scores: np.ndarray,
    states: States,
    lengths: torch.Tensor,
    labels: Sequence[Sequence[int]],
    tails: list[int],
) -> None:
    """Add the log-probabilities of every label's tokens but the first to `scores` (n, labels)."""
    size = states[0][0].shape[2]
    place = torch.arange(size, device=model.device)[None] - (size - lengths)[:, None]
    # Labels of one length side by side, so that little is padded.
    tails = sorted(tails, key=lambda k: len(labels[k]))
    pairs = [(row, k) for k in tails for row in range(len(scores))]
    tokens = [len(labels[k]) - 1 for _, k in pairs]
    for chunk in _chunks(tokens, size, model):
        part = pairs[chunk]
        rows = torch.tensor([row for row, _ in part], device=model.device)
        ids, mask = _right_padded([labels[k][:-1] for _, k in part], model)
        # Moved right: what lies before the first token is masked, whatever it is.
        source = place[rows].clamp(min=0)
        cache = _cache_of(
            [
                (
                    k[rows[:, None], :, source].transpose(1, 2),
                    v[rows[:, None], :, source].transpose(1, 2),
                )
                for k, v in states
            ]
        )
        whole = torch.cat([(place[rows] >= 0).to(mask.dtype), mask], dim=1)
        logits, _ = _run(model, ids, whole, lengths[rows], cache, 0)
        targets, _ = _right_padded([labels[k][1:] for _, k in part], model)
        chances = torch.log_softmax(logits.float(), dim=-1).gather(2, targets[..., None])[..., 0]
        sums = torch.where(mask == 1, chances.double(), 0.0).sum(dim=1).cpu().numpy()
        for (row, k), value in zip(part, sums, strict=True):
            scores[row, k] += value


def _chunks(tokens: Sequence[int], before: int, model: CausalModel) -> Iterator[slice]:
    """Group continuations of ascending numbers of `tokens`, each after `before` cached ones."""
    start = 0
    while start < len(tokens):
        stop = start + 1
        while stop < len(tokens):
            count, longest = stop + 1 - start, tokens[stop]
            if count * (before + longest) > _most_cached(model):
                break
            if count * longest * model.vocabulary > _MOST_LOGITS:
                break
            stop += 1
        yield slice(start, stop)
        start = stop


def _run(model: CausalModel, ids, mask, start, cache, keep) -> tuple[torch.Tensor, object]:
    """Logits (n, kept places, vocabulary) and the grown cache.

    `start` is the position of the first token, one for all rows or one each; `keep` the places
    whose logits are wanted: a tensor, the last one (1) or all (0).
    """
    more = {}
    if "position_ids" in model.arguments:
        places = torch.arange(ids.shape[1], device=model.device)
        more["position_ids"] = torch.as_tensor(start, device=model.device).reshape(-1, 1) + places
        more["position_ids"] = more["position_ids"].expand(len(ids), -1)
    slices = "logits_to_keep" in model.arguments
    if slices:
        more["logits_to_keep"] = keep
    cache = _cache_of([]) if cache is None else cache
    out = model.network(
        input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **more
    )
    logits = out.logits
    if not slices and not isinstance(keep, int):
        logits = logits[:, keep]
    return logits, out.past_key_values


def _right_padded(
    parts: Sequence[Sequence[int]], model: CausalModel
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask, int64 (n, longest)."""
    width = max(map(len, parts))
    ids = torch.full((len(parts), width), model.pad_id, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, part in enumerate(parts):
        ids[row, : len(part)] = torch.as_tensor(np.asarray(part, dtype=np.int64))
        mask[row, : len(part)] = 1
    return ids.to(model.device), mask.to(model.device)


def _cache_of(states: States):
    """A cache that keeps every token: one made from the model's config drops those outside of a
    sliding window, and the masks would no longer tell where a moved text begins."""
    from transformers import DynamicCache

    return DynamicCache(states or None)


def _states_of(cache) -> States:
    return [(layer.keys, layer.values) for layer in cache.layers]
