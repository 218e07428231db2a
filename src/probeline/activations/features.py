"""Pooled activations of a few neurons, straight from texts: what a classifier needs to predict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

from probeline.activations.ahead import ahead
from probeline.activations.batching import Tokens, padded, tokenize
from probeline.activations.hooks import Key
from probeline.activations.names import POOLINGS
from probeline.activations.passes import Passes
from probeline.activations.pooling import Pooler
from probeline.errors import ProbelineError, one_of
from probeline.models.load import LoadedModel

_TEXTS_AT_ONCE = 1024

Wanted = tuple[str, int, str, np.ndarray]


def pooled_features(
    model: LoadedModel,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    wanted: Sequence[Wanted],
    batch_tokens: int | None = None,
) -> np.ndarray:
    """Compute the pooled activations of chosen neurons.

    Blocks above the highest layer that is wanted are not computed. Activations are compared with
    nothing and rounded to nothing: a classifier trained on float16 shards sees float32 here.

    Parameters
    ----------
    model : LoadedModel
        Loaded with `decoder=True` if a decoder's representation is wanted.
    texts, pairs : sequence of str
        `pairs` holds the second sentences, or is None.
    wanted : sequence of (representation, layer, pooling, columns)
        `columns` are neuron numbers (integer array).
    batch_tokens : int, optional
        Tokens per batch, padding included; default the model's.

    Returns
    -------
    ndarray of float32, shape (texts, sum of the lengths of all columns)
        Columns in the order of `wanted`.

    Raises
    ------
    ProbelineError
        If a layer, pooling or neuron does not exist or does not show in the forward pass, or an
        activation is NaN or infinite.
    """
    places = _places(model, wanted)
    result = np.zeros((len(texts), sum(len(columns) for *_, columns in wanted)), dtype=np.float32)
    if not places or not len(texts):
        return result
    with Passes(model, places, lambda: _Columns(model.path, places, result)) as passes:
        chunks = (
            ((start, stop), padded(model, tokens, batch_tokens, first=start))
            for start, stop, tokens in ahead(_tokenized(model, texts, pairs))
        )
        for (start, stop), batches in passes.run(chunks):
            for _ in batches:
                pass
            _refuse_broken(model, result, start, stop)
    return result


class _Columns:
    """Takes the chosen neurons of one batch at a time into `result`."""

    def __init__(self, where: str, places: Mapping[Key, list], result: np.ndarray):
        self._where, self._places, self._result = where, places, result
        self._taken: list[tuple[slice, torch.Tensor]] = []

    def take(self, key: Key, values: torch.Tensor, pooler: Pooler) -> None:
        pooled: dict[str, torch.Tensor] = {}
        for pooling, columns, place in self._places[key]:
            if pooling not in pooled:
                pooled[pooling] = pooler.pool(values, pooling)
            self._taken.append((place, pooled[pooling][:, columns]))

    def add(self, rows: np.ndarray) -> None:
        taken, self._taken = self._taken, []
        if len(taken) < sum(map(len, self._places.values())):
            raise ProbelineError(
                f"{self._where}: its forward pass does not show every layer that is asked for: the "
                "model's code leaves one out or calls it in another way"
            )
        # One copy from a device: each waits for it.
        values = torch.cat([part for _, part in taken], 1).cpu().numpy()
        start = 0
        for place, part in taken:
            self._result[rows, place] = values[:, start : start + part.shape[1]]
            start += part.shape[1]


def _tokenized(
    model: LoadedModel, texts: Sequence[str], pairs: Sequence[str] | None
) -> Iterator[tuple[int, int, Tokens]]:
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        stop = min(start + _TEXTS_AT_ONCE, len(texts))
        second = pairs[start:stop] if pairs is not None else None
        yield start, stop, tokenize(model, texts[start:stop], second, row=start)


def _places(model: LoadedModel, wanted: Sequence[Wanted]) -> dict[Key, list]:
    """For each (representation, layer): which neurons go to which columns of the result."""
    places: dict[Key, list] = {}
    start = 0
    for representation, layer, pooling, columns in wanted:
        columns = np.asarray(columns, dtype=np.int64)
        if pooling not in POOLINGS:
            raise ProbelineError(f"pooling {one_of(pooling, POOLINGS)}")
        width = model.shape.width(representation)
        if len(columns) and (columns.min() < 0 or columns.max() >= width):
            raise ProbelineError(
                f"{model.path}: neuron {columns.max()} of '{representation}' layer {layer} is "
                f"asked for, the model has {width}"
            )
        place = slice(start, start + len(columns))
        start = place.stop
        if len(columns):
            index = torch.from_numpy(columns).to(model.device)
            places.setdefault((representation, layer), []).append((pooling, index, place))
    return places


def _refuse_broken(model: LoadedModel, result: np.ndarray, start: int, stop: int) -> None:
    finite = np.isfinite(result[start:stop]).all(1)
    if not finite.all():
        raise ProbelineError(
            f"{model.path}: NaN or infinite activation for text {start + int(np.argmin(finite))}; "
            "set the model's `dtype` to float32 or bfloat16"
        )
