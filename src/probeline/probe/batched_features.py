"""The features of B problems on a device: scaled, and those in play gathered where they are few."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from probeline.models.devices import sent
from probeline.probe.matrix import Scaler, is_kept

_ROWS = 4096
# Features in play are gathered while the most of any problem are at most this share of all.
_FEW = 0.5
# Their number is rounded up to a multiple of this, which suits matrix units.
_MULTIPLE = 32


@dataclass
class Loaded:
    """Scaled features of B problems.

    Attributes
    ----------
    train, validation : Tensor of float32, shapes (B, p, n) and (B, p, m)
        By rows, each centred on train; constant features are zero.
    scalers : list of Scaler
    """

    train: torch.Tensor
    validation: torch.Tensor
    scalers: list[Scaler]


def load(X: Sequence[Mapping], standardize: bool, device: torch.device) -> Loaded:
    """Copy problems of one width to the device, one after another, and scale them there.

    Parameters
    ----------
    X : sequence of mapping
        Of split to float array (n, p); read one at a time, the next while one is copied.

    Raises
    ------
    ValueError
        If they are of several widths.
    """
    train = validation = None
    scalers = []
    for number, (rows, held_out) in enumerate(_read_ahead(X)):
        raw, other = to_device(rows, device), to_device(held_out, device)
        if train is None:
            train = torch.empty(len(X), raw.shape[1], len(raw), device=device)
            validation = torch.empty(len(X), raw.shape[1], len(other), device=device)
        if raw.shape[1] != train.shape[1]:
            raise ValueError(f"problems {train.shape[1]} and {raw.shape[1]} wide in one batch")
        scaler = _scaler(raw, standardize)
        scalers.append(scaler)
        _scale(raw, scaler, train[number])
        _scale(other, scaler, validation[number])
    return Loaded(train, validation, scalers)


def _read_ahead(X: Iterable[Mapping]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Training and validation rows of each problem; the next one is read by a thread meanwhile."""
    with ThreadPoolExecutor(1) as thread:
        ahead = None
        for split in X:
            coming = thread.submit(lambda split=split: (split["train"], split["validation"]))
            if ahead:
                yield ahead.result()
            ahead = coming
        if ahead:
            yield ahead.result()


def to_device(rows: np.ndarray, device: torch.device) -> torch.Tensor:
    """Copy an array to the device, float32; to a GPU without waiting for it."""
    return sent(torch.from_numpy(np.ascontiguousarray(rows)), device).to(torch.float32)


def _scaler(raw: torch.Tensor, standardize: bool) -> Scaler:
    """`probeline.probe.matrix.fit_scaler` of rows (n, p) on a device."""
    n = len(raw)
    mean = sum(part.sum(dim=0, dtype=torch.float64) for part in raw.split(_ROWS)) / n
    squares = sum((part.double() - mean).square().sum(dim=0) for part in raw.split(_ROWS))
    mean, deviation = mean.cpu().numpy(), (squares / n).sqrt().cpu().numpy()
    kept = is_kept(mean, deviation)
    scale = np.where(kept, deviation, 1.0) if standardize else np.ones(len(mean))
    return Scaler(mean.astype(np.float32), scale.astype(np.float32), kept)


def _scale(raw: torch.Tensor, scaler: Scaler, out: torch.Tensor) -> None:
    """`Scaler.apply` of rows (n, p) into `out` (p, n), the features not kept being zero."""
    mean, scale, kept = (
        torch.from_numpy(values).to(raw.device)[:, None]
        for values in (scaler.mean, scaler.scale, scaler.kept)
    )
    torch.sub(raw.T, mean, out=out)
    out /= scale
    out *= kept


class Working:
    """The features that each of B problems works with; the others' weights are zero.

    Where they are few for every problem they are gathered, padded with zeros to the most that any
    has; else all problems work with all features, and nothing is copied.

    Parameters
    ----------
    X : Tensor, shape (B, p, n)
    """

    def __init__(self, X: torch.Tensor):
        self._X = X
        self._joined = np.zeros(X.shape[:2], bool)
        self._gathered: torch.Tensor | None = None
        self._index: torch.Tensor | None = None

    @property
    def features(self) -> torch.Tensor:
        """Shape (B, m, n)."""
        return self._X if self._gathered is None else self._gathered

    def set(self, wanted: np.ndarray) -> None:
        """Work with these features, bool (B, p)."""
        changed = np.flatnonzero((wanted != self._joined).any(axis=1))
        self._joined = wanted
        counts = wanted.sum(axis=1)
        most = -(-max(int(counts.max()), 1) // _MULTIPLE) * _MULTIPLE
        if most > _FEW * wanted.shape[1]:
            self._gathered = self._index = None
            return
        if self._gathered is None or not most <= self._gathered.shape[1] <= 2 * most:
            B, _, n = self._X.shape
            self._gathered = None
            self._gathered = torch.zeros(B, most, n, dtype=self._X.dtype, device=self._X.device)
            self._index = torch.zeros(B, most, dtype=torch.int64, device=self._X.device)
            changed = np.arange(B)
        for i in changed:
            m = int(counts[i])
            chosen = torch.from_numpy(np.flatnonzero(wanted[i])).to(self._X.device)
            self._index[i, :m], self._index[i, m:] = chosen, 0
            torch.index_select(self._X[i], 0, chosen, out=self._gathered[i, :m])
            self._gathered[i, m:] = 0

    @property
    def joined(self) -> np.ndarray:
        return self._joined

    def take(self, W: torch.Tensor) -> torch.Tensor:
        """Coefficients (B, p, K) of the features in play, (B, m, K); those of padding are zero."""
        if self._index is None:
            return W
        index = self._index[:, :, None].expand(-1, -1, W.shape[2])
        padded = torch.arange(index.shape[1], device=W.device) >= self._counts(W.device)[:, None]
        return W.gather(1, index).masked_fill_(padded[:, :, None], 0)

    def put(self, W: torch.Tensor) -> torch.Tensor:
        """The inverse of `take`: zeros for the other features."""
        if self._index is None:
            return W
        B, _, K = W.shape
        out = torch.zeros(B, self._X.shape[1], K, dtype=W.dtype, device=W.device)
        # Padding adds zeros to feature 0.
        return out.scatter_add_(1, self._index[:, :, None].expand(-1, -1, K), W)

    def _counts(self, device: torch.device) -> torch.Tensor:
        return torch.from_numpy(self._joined.sum(axis=1)).to(device)

    def keep(self, X: torch.Tensor, places: Sequence[int]) -> None:
        """Go on with the problems at these places, whose features X now holds."""
        self._X, self._joined = X, self._joined[places]
        if self._gathered is not None:
            self._index = self._index[torch.tensor(places, device=X.device)]
            # In place, a copy of it all may not fit; what moves comes from beyond the others.
            for place, source in enumerate(places):
                if place != source:
                    self._gathered[place] = self._gathered[source]
            self._gathered = self._gathered[: len(places)]
