"""Pool the tokens of each text, without ever letting padding in.

With n real tokens x_1..x_n of a text (each a vector):

    first = x_1      last = x_n      max = elementwise maximum      mean = (x_1 + ... + x_n) / n

A real token is one the attention mask marks, special tokens included.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from probeline.activations.names import POOLINGS
from probeline.errors import ProbelineError, one_of
from probeline.models.devices import sent

# Up to so many launches take less time than two copies of a batch with its padding masked.
_FEW_RUNS = 8
_REDUCE = {
    "max": lambda values: values.amax(1).float(),
    "mean": lambda values: values.sum(1, dtype=torch.float32),
}


class Pooler:
    """Pools activations of one batch; made once per batch, used for every layer.

    Rows of equal length are reduced together over exactly their real tokens: nothing is copied or
    masked, and a batch of sorted texts has few different lengths. On an accelerator each call costs
    a launch: there a batch of many lengths is masked and reduced at once.

    Parameters
    ----------
    lengths : sequence of int
        Real tokens of each row, each at least 1.
    width : int
        Tokens of the padded batch.
    side : {"right", "left"}
        Where the padding is.
    device : torch.device
    masked : bool, optional
        Force (True) or forbid (False) the masked reduction; by default the device and the number
        of different lengths decide.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        width: int,
        side: str = "right",
        device: torch.device | str = "cpu",
        masked: bool | None = None,
    ):
        device = torch.device(device)
        if len(lengths) == 0 or min(lengths) < 1 or max(lengths) > width:
            raise ValueError(f"lengths must lie in 1..{width}, got {list(lengths)}")
        counts = sent(torch.tensor(lengths), device)
        starts = width - counts if side == "left" else torch.zeros_like(counts)
        self.rows = len(lengths)
        self._rows = torch.arange(len(lengths), device=device)
        self._first = starts
        self._last = starts + counts - 1
        self._runs = _runs(lengths, width, side)
        many = device.type != "cpu" and len(self._runs) > _FEW_RUNS
        self.masked = many if masked is None else masked
        self._counts = counts
        self._padding = None
        if self.masked and min(lengths) < width:
            places = torch.arange(width, device=device)
            inside = (places >= starts[:, None]) & (places <= self._last[:, None])
            self._padding = ~inside[:, :, None]

    def pool(self, values: torch.Tensor, pooling: str) -> torch.Tensor:
        """Pool `values` (rows, tokens, width) of any float dtype to (rows, width) float32.

        Means are accumulated in float32 at least. NaN of a real token stays NaN.
        """
        return self.pool_all(values, [pooling])[pooling]

    def pool_all(self, values: torch.Tensor, poolings: Sequence[str]) -> dict[str, torch.Tensor]:
        """As `pool`, for several poolings: what is read for one is in the cache for the other."""
        for pooling in poolings:
            if pooling not in POOLINGS:
                raise ProbelineError(f"pooling {one_of(pooling, POOLINGS)}")
        over_tokens = [name for name in ("mean", "max") if name in poolings]
        reduce = self._masked if self.masked else self._by_runs
        found = reduce(values, over_tokens) if over_tokens else {}
        if "first" in poolings:
            found["first"] = values[self._rows, self._first].float()
        if "last" in poolings:
            found["last"] = values[self._rows, self._last].float()
        if "mean" in found:
            # Not `mean`: it would divide in the activations' own, maybe lower, precision.
            found["mean"] /= self._counts[:, None]
        return found

    def _masked(self, values: torch.Tensor, poolings: Sequence[str]) -> dict[str, torch.Tensor]:
        found = {}
        for pooling in poolings:
            kept = values
            if self._padding is not None:
                neutral = float("-inf") if pooling == "max" else 0.0
                kept = values.masked_fill(self._padding, neutral)
            found[pooling] = _REDUCE[pooling](kept)
        return found

    def _by_runs(self, values: torch.Tensor, poolings: Sequence[str]) -> dict[str, torch.Tensor]:
        parts: dict[str, list[torch.Tensor]] = {pooling: [] for pooling in poolings}
        for rows, tokens in self._runs:
            for pooling, done in parts.items():
                done.append(_REDUCE[pooling](values[rows, tokens]))
        return {pooling: torch.cat(done) for pooling, done in parts.items()}


def _runs(lengths: Sequence[int], width: int, side: str) -> list[tuple[slice, slice]]:
    """(rows, tokens) slices of each run of rows of one length."""
    runs = []
    start = 0
    for stop in range(1, len(lengths) + 1):
        if stop == len(lengths) or lengths[stop] != lengths[start]:
            n = lengths[start]
            tokens = slice(width - n, width) if side == "left" else slice(0, n)
            runs.append((slice(start, stop), tokens))
            start = stop
    return runs
