"""Collect the pooled activations of one block of texts, in row order, ready to be written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
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
        self.rows, self._names = rows, list(pooled)
        self._widths = [values.shape[1] for values in pooled.values()]
        self._largest = torch.stack(ends).view(-1, 2).abs().amax(1)
        self._here: dict[str, torch.Tensor] | None = pooled
        self._event = None
        device = self._largest.device
        if device.type != "cpu":
            self._here, self._joined = None, torch.cat(list(pooled.values()), 1)
        if device.type == "cuda":
            self._take_off(_copies(device))

    def _take_off(self, stream: torch.cuda.Stream) -> None:
        stream.wait_stream(torch.cuda.current_stream(stream.device))
        # The next batch, which is computed meanwhile, must not be given their memory.
        self._sources = self._joined, self._largest
        with torch.cuda.stream(stream):
            self._joined, self._largest = map(_pinned, self._sources)
            self._event = stream.record_event()

    @property
    def is_here(self) -> bool:
        """Whether the values are in the host's memory already."""
        return self._here is not None

    def largest(self) -> dict[str, float]:
        """The largest size of a value, by shard; waits for it."""
        if self._event is not None:
            self._event.synchronize()
            self._sources = None
        return dict(zip(self._names, self._largest.tolist(), strict=True))

    def landed(self) -> dict[str, torch.Tensor]:
        """The values on the host, by shard; after `largest`."""
        if self._here is not None:
            return self._here
        return dict(zip(self._names, self._joined.cpu().split(self._widths, 1), strict=True))


@cache
def _copies(device: torch.device) -> torch.cuda.Stream:
    """A stream of its own, else the next batch would wait for the copies of the one before."""
    return torch.cuda.Stream(device)


def _pinned(values: torch.Tensor) -> torch.Tensor:
    # torch keeps pinned blocks for reuse, so this allocates a few times only.
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return host.copy_(values, non_blocking=True)


class Block:
    """Memory of two blocks, of the storage dtype for each shard of each: one is filled while the
    other may still be filled, too, or be on its way to the disk.

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
        self.stored = torch.float16 if self._half else torch.float32
        self.poolings = plan.poolings
        self._values = {
            name: torch.empty((2 * plan.block, width), dtype=self.stored)
            for name, width in plan.widths.items()
        }
        self.names: dict[tuple[str, int, str], str] = {}
        for name in plan.widths:
            representation, pooling, layer = parse_name(name)
            self.names[representation, layer, pooling] = name
        self._collectors: list[BlockCollector] = []
        self._size = plan.block
        # The dataset row of the first row of each.
        self._starts = [0, 0]
        self._last = 1

    def collector(self) -> BlockCollector:
        """Make a collector that fills blocks; several may, from threads of their own, each with
        batches of its own."""
        self._collectors.append(BlockCollector(self))
        return self._collectors[-1]

    def begin(self, start: int, stop: int) -> slice:
        """Begin the block of dataset rows `start` to `stop`, where the block before the last was.

        Returns
        -------
        slice
            Where its rows are among those of both: what `add` and `parts` are given.
        """
        self._last = 1 - self._last
        self._starts[self._last] = start
        place = self._last * self._size
        return slice(place, place + stop - start)

    def parts(self, place: slice) -> dict[str, np.ndarray]:
        """A block's rows of each shard, by file name: (rows, width), C order; kept until the next
        block but one is begun.

        Raises
        ------
        ProbelineError
            As a collector's `add`, of the last batch.
        """
        for collector in self._collectors:
            collector.land()
        return {name: values[place].numpy() for name, values in self._values.items()}

    def check(self, found: Mapping[str, object]) -> None:
        """Refuse a batch for which the forward pass has not shown every layer."""
        missing = [name for name in self._values if name not in found]
        if missing:
            raise ProbelineError(
                f"{self._where}: its forward pass shows nothing for {missing[0]}: the model's code "
                "leaves that layer out or calls it in another way; choose other representations"
            )

    def place(self, flight: _Flight) -> None:
        """Put the values of a batch at the rows that are theirs."""
        limit = _TOO_LARGE if self._half else math.inf
        largest, values = flight.largest(), flight.landed()
        for name, size in largest.items():
            # The first in order of computation: what comes after it is its doing.
            if not size < limit:
                self._refuse(name, flight.rows, values[name], size)
        rows = torch.from_numpy(flight.rows)
        for name, part in values.items():
            self._values[name][rows] = part

    def _refuse(self, name: str, rows: np.ndarray, values: torch.Tensor, largest: float) -> None:
        representation, pooling, layer = parse_name(name)
        broken = values.isnan() if math.isnan(largest) else ~values.isfinite()
        half, row = divmod(int(rows[int(broken.any(1).nonzero()[0])]), self._size)
        row += self._starts[half]
        if math.isfinite(largest):
            raise ProbelineError(
                f"{name}: row {row} has a value too large for float16 ({largest:.6g} is seen, "
                f"{_LARGEST_HALF:.0f} fits); set `storage_dtype: float32`"
            )
        raise ProbelineError(
            f"{self._where}: NaN or infinite value in row {row}, '{representation}' layer "
            f"{layer} ({pooling}); {_advice(self._dtype)}"
        )


class BlockCollector:
    """Takes the activations of one batch at a time into a block."""

    def __init__(self, block: Block):
        self._block = block
        self._pending: dict[str, torch.Tensor] = {}
        self._ends: list[torch.Tensor] = []
        self._flight: _Flight | None = None

    def take(self, key: Key, values: torch.Tensor, pooler: Pooler) -> None:
        """Pool one activation of the batch that is running; a sink of `Watch`."""
        pooled = pooler.pool_all(values, self._block.poolings)
        for pooling in self._block.poolings:
            # At once, while they are in the cache. NaN and infinity come through as such, so that
            # one pair of numbers per tensor tells all.
            self._ends += pooled[pooling].aminmax()
            name = self._block.names[(*key, pooling)]
            self._pending[name] = pooled[pooling].to(self._block.stored)

    def add(self, rows: np.ndarray) -> None:
        """Send the finished batch on its way into place; `rows` are its rows among those of both
        blocks.

        On an accelerator the copy to the host goes on while the next batch is computed.

        Raises
        ------
        ProbelineError
            If a value of the batch, or on an accelerator of the one before, is NaN or infinite, or
            too large for float16 storage, or if the forward pass has not shown every layer.
        """
        self.land()
        pending, ends = self._pending, self._ends
        self._pending, self._ends = {}, []
        self._block.check(pending)
        flight = _Flight(rows, pending, ends)
        if flight.is_here:
            self._block.place(flight)
        else:
            self._flight = flight

    def land(self) -> None:
        """Put the batch that is on its way, if any, into place."""
        flight, self._flight = self._flight, None
        if flight is not None:
            self._block.place(flight)
