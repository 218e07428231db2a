"""The neurons an aggregated classifier may read, at every eta and depth, and their activations."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from probeline.activations.shards import open_shard
from probeline.errors import ProbelineError
from probeline.sparsify import kept_count, read_neurons


@dataclass(frozen=True)
class Neurons:
    """Neurons from one or several (representation, pooling), in a fixed order.

    Attributes
    ----------
    representation, pooling : ndarray of str, shape (p,)
    layer, neuron : ndarray of int64, shape (p,)
    level : ndarray of int64, shape (p,)
        Index of the smallest eta (of the ascending list given) at which the neuron is kept.
    """

    representation: np.ndarray
    pooling: np.ndarray
    layer: np.ndarray
    neuron: np.ndarray
    level: np.ndarray

    def __len__(self) -> int:
        return len(self.neuron)

    def at(self, level: int, depth: int) -> np.ndarray:
        """Indices of the neurons kept at an eta, in layers 0 to `depth`."""
        return np.flatnonzero((self.level <= level) & (self.layer <= depth))

    def take(self, indices: np.ndarray) -> Neurons:
        return Neurons(*(getattr(self, name)[indices] for name in self.__dataclass_fields__))

    def groups(self) -> list[tuple[str, str, int, np.ndarray]]:
        """(representation, pooling, layer, indices) per shard, in order of appearance."""
        found: dict[tuple, list[int]] = {}
        names = (self.representation.tolist(), self.pooling.tolist(), self.layer.tolist())
        keys = zip(*names, strict=True)
        for i, key in enumerate(keys):
            found.setdefault(key, []).append(i)
        return [(*key, np.array(indices)) for key, indices in found.items()]


def candidates(tables: Sequence[str | os.PathLike], etas: Sequence[float]) -> Neurons:
    """Read neuron tables and keep what the largest eta keeps.

    Parameters
    ----------
    tables : sequence of path
        One per (representation, pooling).
    etas : sequence of float, ascending
    """
    return candidates_of(map(read_neurons, tables), etas)


def candidates_of(tables: Iterable[Mapping[str, np.ndarray]], etas: Sequence[float]) -> Neurons:
    """As `candidates`, of neuron tables that are read already: arrays by column name."""
    columns: dict[str, list[np.ndarray]] = {
        name: [] for name in ("representation", "pooling", "layer", "neuron", "level")
    }
    for table in tables:
        for layer in np.unique(table["layer"]):
            here = np.flatnonzero(table["layer"] == layer)
            counts = np.array([kept_count(table["cumulative"][here], eta) for eta in etas])
            level = np.searchsorted(counts, np.arange(len(here)), side="right")
            kept = here[level < len(etas)]
            for name in ("representation", "pooling"):
                columns[name].append(table[name][kept].astype(str))
            columns["layer"].append(table["layer"][kept].astype(np.int64))
            columns["neuron"].append(table["neuron"][kept].astype(np.int64))
            columns["level"].append(level[level < len(etas)])
    if not columns["layer"]:
        empty = np.empty(0, np.int64)
        return Neurons(empty.astype(str), empty.astype(str), empty, empty, empty)
    return Neurons(**{name: np.concatenate(parts) for name, parts in columns.items()})


def read_activations(
    neurons: Neurons,
    shards: Mapping[tuple[str, str, int], str | os.PathLike],
    fingerprint: str,
    rows: int,
) -> np.ndarray:
    """Read the neurons' activations of all texts: float32 (rows, p).

    Only their columns are kept in memory, one shard at a time being read in slices.

    Parameters
    ----------
    shards : mapping of (representation, pooling, layer) to path
    fingerprint : str
        Of the dataset the shards must be about.
    rows : int
        Texts of the dataset.
    """
    result = np.empty((rows, len(neurons)), np.float32)
    for representation, pooling, layer, indices in neurons.groups():
        path = shards.get((representation, pooling, layer))
        if path is None:
            raise ProbelineError(f"no shard of {representation}.{pooling}, layer {layer}")
        with open_shard(path, {"dataset_fingerprint": fingerprint}) as shard:
            result[:, indices] = shard.read(columns=neurons.neuron[indices])
    return result
