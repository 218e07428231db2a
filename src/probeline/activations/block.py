"""Collect the pooled activations of one block of texts, in row order, ready to be written."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from probeline.activations.hooks import Key
from probeline.activations.names import parse_name
from probeline.activations.pooling import Pooler
from probeline.errors import ProbelineError

if TYPE_CHECKING:
    from probeline.activations.extract import Plan

_LARGEST_HALF = 65504.0
# From here on a value rounds to infinity in float16.
_TOO_LARGE = 65520.0


def _advice(dtype: torch.dtype) -> str:
    if dtype == torch.float16:
        return "the model overflows on this text: set its `dtype` to float32 or bfloat16"
    return (
        f"{str(dtype).removeprefix('torch.')} does not overflow so early: its weights may be "
        "damaged (copy or fetch the model again)"
    )


class _Flight:
    """A batch on its way to the host: all of it in one copy where it comes from CUDA.

    Parameters
    ----------
    rows : ndarray of int64, shape (B,)
    pooled : dict of str to torch.Tensor, each (B, width)
        By shard, in the order of computation.
    ends : list of torch.Tensor
        The lowest and the highest value of each before it was rounded.
    """

    def __init__(self, rows: np.ndarray, pooled: dict[str, torch.Tensor], ends: list[torch.Tensor]):
        self.rows, self._pooled = rows, pooled
        self._largest = torch.stack(ends).view(-1, 2).abs().amax(1)
        self._joined = self._event = None
        if ends[0].device.type != "cpu":
            self._joined = torch.cat(list(pooled.values()), 1)
        if ends[0].device.type == "cuda":
            self._joined, self._largest = _pinned(self._joined), _pinned(self._largest)
            self._event = torch.cuda.Event()
            self._event.record()

    def largest(self) -> dict[str, float]:
        """The largest size of a value, by shard; waits for it."""
        if self._event is not None:
            self._event.synchronize()
        return dict(zip(self._pooled, self._largest.tolist(), strict=True))

    def landed(self) -> dict[str, torch.Tensor]:
        """The values on the host, by shard; after `largest`."""
        if self._joined is None:
            return self._pooled
        widths = [values.shape[1] for values in self._pooled.values()]
        return dict(zip(self._pooled, self._joined.cpu().split(widths, 1), strict=True))


def _pinned(values: torch.Tensor) -> torch.Tensor:
    # torch keeps pinned blocks for reuse, so this allocates a few times only.
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return host.copy_(values, non_blocking=True)


class Block:
    """Memory of two blocks, (block rows, width) of the storage dtype for each shard of each: one
    is filled while the other may still be on its way to the disk.

    Parameters
    ----------
    where : str
        The model, for error messages.
    plan : Plan
    dtype : torch.dtype
        Of the forward pass.
    """

    def __init__(self, where: str, plan: Plan, dtype: torch.dtype):
        self._where = where
        self._dtype = dtype
        self._half = plan.storage_dtype == "float16"
        self._stored = torch.float16 if self._half else torch.float32
        self._poolings = plan.poolings
        self._filled, self._free = (
            {
                name: torch.empty((plan.block, width), dtype=self._stored)
                for name, width in plan.widths.items()
            }
            for _ in range(2)
        )
        self._names: dict[tuple[str, int, str], str] = {}
        for name in plan.widths:
            representation, pooling, layer = parse_name(name)
            self._names[representation, layer, pooling] = name
        self._pending: dict[str, torch.Tensor] = {}
        self._ends: list[torch.Tensor] = []
        self._flight: _Flight | None = None
        self._rows = 0
        self._start = 0

    def begin(self, start: int, stop: int) -> None:
        """Begin the block of dataset rows `start` to `stop`; the one before stays as it is."""
        self._start, self._rows = start, stop - start
        self._pending, self._ends, self._flight = {}, [], None
        self._filled, self._free = self._free, self._filled

    def take(self, key: Key, values: torch.Tensor, pooler: Pooler) -> None:
        """Pool one activation of the batch that is running; a sink of `Watch`."""
        pooled = pooler.pool_all(values, self._poolings)
        for pooling in self._poolings:
            # At once, while they are in the cache. NaN and infinity come through as such, so that
            # one pair of numbers per tensor tells all.
            self._ends += pooled[pooling].aminmax()
            self._pending[self._names[(*key, pooling)]] = pooled[pooling].to(self._stored)

    def add(self, rows: np.ndarray) -> None:
        """Send the finished batch on its way into place; `rows` are its rows within the block.

        On an accelerator the copy to the host goes on while the next batch is computed.

        Raises
        ------
        ProbelineError
            If a value of the batch before is NaN or infinite, or too large for float16 storage, or
            if the forward pass has not shown every layer.
        """
        self._land()
        missing = [name for name in self._filled if name not in self._pending]
        if missing:
            raise ProbelineError(
                f"{self._where}: its forward pass shows nothing for {missing[0]}: the model's code "
                "leaves that layer out or calls it in another way; choose other representations"
            )
        self._flight = _Flight(rows, self._pending, self._ends)
        self._pending, self._ends = {}, []

    def parts(self) -> dict[str, np.ndarray]:
        """The block's rows of each shard, by file name: (rows, width), C order; kept until the
        next block but one is begun.

        Raises
        ------
        ProbelineError
            As `add`, of the last batch.
        """
        self._land()
        return {name: values[: self._rows].numpy() for name, values in self._filled.items()}

    def _land(self) -> None:
        """Put the batch that is on its way into place."""
        flight, self._flight = self._flight, None
        if flight is None:
            return
        limit = _TOO_LARGE if self._half else math.inf
        largest, values = flight.largest(), flight.landed()
        for name, size in largest.items():
            # The first in order of computation: what comes after it is its doing.
            if not size < limit:
                self._refuse(name, flight.rows, values[name], size)
        rows = torch.from_numpy(flight.rows)
        for name, part in values.items():
            self._filled[name][rows] = part

    def _refuse(self, name: str, rows: np.ndarray, values: torch.Tensor, largest: float) -> None:
        representation, pooling, layer = parse_name(name)
        broken = values.isnan() if math.isnan(largest) else ~values.isfinite()
        row = self._start + int(rows[int(broken.any(1).nonzero()[0])])
        if math.isfinite(largest):
            raise ProbelineError(
                f"{name}: row {row} has a value too large for float16 ({largest:.6g} is seen, "
                f"{_LARGEST_HALF:.0f} fits); set `storage_dtype: float32`"
            )
        raise ProbelineError(
            f"{self._where}: NaN or infinite value in row {row}, '{representation}' layer "
            f"{layer} ({pooling}); {_advice(self._dtype)}"
        )
