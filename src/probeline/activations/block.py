"""Collect the pooled activations of one block of texts, in row order, ready to be written."""

from __future__ import annotations

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


def _advice(dtype: torch.dtype) -> str:
    if dtype == torch.float16:
        return "the model overflows on this text: set its `dtype` to float32 or bfloat16"
    return (
        f"{str(dtype).removeprefix('torch.')} does not overflow so early: its weights may be "
        "damaged (copy or fetch the model again)"
    )


class _Flight:
    """A batch on its way to the host, in pinned memory where it comes from CUDA."""

    def __init__(self, rows, pooled, values, largest):
        self.rows, self.pooled = rows, pooled
        self._event = None
        self._values, self._largest = values, largest
        if values.device.type == "cuda":
            self._values, self._largest = _pinned(values), _pinned(largest)
            self._event = torch.cuda.Event()
            self._event.record()

    def landed(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Values and their largest size by tensor, on the host."""
        if self._event is not None:
            self._event.synchronize()
        return self._values.cpu(), self._largest.cpu()


def _pinned(values: torch.Tensor) -> torch.Tensor:
    # torch keeps pinned blocks for reuse, so this allocates a few times only.
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return host.copy_(values, non_blocking=True)


class Block:
    """Memory of one block: (block rows, columns of all shards) of the storage dtype.

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
        stored = torch.float16 if self._half else torch.float32
        self._poolings = plan.poolings
        self._values = torch.empty((plan.block, sum(plan.widths.values())), dtype=stored)
        self._columns: dict[str, slice] = {}
        self._names: dict[tuple[str, int, str], str] = {}
        start = 0
        for name, width in plan.widths.items():
            representation, pooling, layer = parse_name(name)
            self._columns[name] = slice(start, start + width)
            self._names[representation, layer, pooling] = name
            start += width
        self._pending: dict[str, torch.Tensor] = {}
        self._flight: _Flight | None = None
        self._rows = 0
        self._start = 0

    def begin(self, start: int, stop: int) -> None:
        """Begin the block of dataset rows `start` to `stop`."""
        self._start, self._rows = start, stop - start
        self._pending, self._flight = {}, None

    def take(self, key: Key, values: torch.Tensor, pooler: Pooler) -> None:
        """Pool one activation of the batch that is running; a sink of `Watch`."""
        for pooling in self._poolings:
            self._pending[self._names[(*key, pooling)]] = pooler.pool(values, pooling)

    def add(self, rows: np.ndarray) -> None:
        """Send the finished batch on its way into place; `rows` are its rows within the block.

        On an accelerator the copy to the host goes on while the next batch is computed.

        Raises
        ------
        ProbelineError
            If a value of the batch before is NaN or infinite, or too large for float16 storage.
        """
        self._land()
        pooled = [self._pending[name] for name in self._columns]
        # NaN and infinity come through as such, so one pair of numbers per tensor tells all.
        ends = torch.stack([torch.stack(values.aminmax()) for values in pooled])
        joined = torch.cat([values.to(self._values.dtype) for values in pooled], 1)
        self._flight = _Flight(rows, self._pending, joined, ends.abs().amax(1))
        self._pending = {}

    def parts(self) -> dict[str, np.ndarray]:
        """The block's rows of each shard, by file name: (rows, width), C order on writing.

        Raises
        ------
        ProbelineError
            As `add`, of the last batch.
        """
        self._land()
        values = self._values[: self._rows].numpy()
        return {name: values[:, columns] for name, columns in self._columns.items()}

    def _land(self) -> None:
        """Put the batch that is on its way into place."""
        flight, self._flight = self._flight, None
        if flight is None:
            return
        values, largest = flight.landed()
        limit = _LARGEST_HALF if self._half else torch.finfo(torch.float32).max
        if not bool((largest <= limit).all()):
            fine = dict(zip(self._columns, (largest <= limit).tolist(), strict=True))
            # The first in order of computation: what comes after it is its doing.
            name = next(name for name in flight.pooled if not fine[name])
            self._refuse(name, flight.rows, flight.pooled[name].cpu())
        self._values[torch.from_numpy(flight.rows)] = values

    def _refuse(self, name: str, rows: np.ndarray, values: torch.Tensor) -> None:
        representation, pooling, layer = parse_name(name)
        broken = (~torch.isfinite(values)).any(1)
        if broken.any():
            row = self._start + int(rows[int(broken.nonzero()[0])])
            raise ProbelineError(
                f"{self._where}: NaN or infinite value in row {row}, '{representation}' layer "
                f"{layer} ({pooling}); {_advice(self._dtype)}"
            )
        place = int(values.abs().amax(1).argmax())
        row = self._start + int(rows[place])
        raise ProbelineError(
            f"{name}: row {row} has the value {float(values[place].abs().max()):.6g}, too large "
            f"for float16 (at most {_LARGEST_HALF:.0f}); set `storage_dtype: float32`"
        )
