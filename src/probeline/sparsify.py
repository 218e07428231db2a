"""Keep, per layer, the few neurons that carry a probe's weight.

Importance of a neuron is its squared weight in the layer's probe, in standardised-feature space,
summed over classes; kept at eta is the shortest prefix, most important first, whose importance
reaches eta of the total (Jiao et al. 2024, "SPIN", section 3.2).
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from probeline.errors import ProbelineError
from probeline.files import replacing
from probeline.probe.store import read_probe

COLUMNS = ("representation", "pooling", "layer", "neuron", "importance", "rank", "cumulative")


def rank_neurons(coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rank the neurons of one probe.

    Parameters
    ----------
    coefficients : ndarray, shape (p, K)

    Returns
    -------
    neurons : ndarray of int64, shape (m,)
        Those with a non-zero weight for any class, most important first; equal ones by number.
    importance : ndarray of float64, shape (m,)
    cumulative : ndarray of float64, shape (m,)
        Share of the total reached with this neuron; the last is exactly 1.
    """
    importance = np.square(coefficients.astype(np.float64)).sum(axis=1)
    neurons = np.flatnonzero(importance > 0)
    neurons = neurons[np.lexsort((neurons, -importance[neurons]))]
    importance = importance[neurons]
    cumulative = np.cumsum(importance)
    if len(cumulative):
        cumulative /= cumulative[-1]
        cumulative[-1] = 1.0
    return neurons, importance, cumulative


def kept_count(cumulative: np.ndarray, eta: float) -> int:
    """Length of the shortest prefix whose cumulative share reaches `eta` (0 for no neurons).

    All of them at eta = 1, also where the last weights are too small to change the sum.
    """
    if eta >= 1:
        return len(cumulative)
    # A relative hair below eta: 0.1 + 0.2 must reach 0.3.
    return min(int(np.searchsorted(cumulative, eta * (1 - 1e-12))) + 1, len(cumulative))


def neuron_table(probes: Iterable[str | os.PathLike]) -> pa.Table:
    """Rank the neurons of the probes of one (representation, pooling), layer by layer.

    Returns
    -------
    pyarrow.Table
        Columns `COLUMNS`, ordered by layer and rank (1 = most important). It holds for every eta:
        a neuron is kept at eta if its rank is at most `kept_count(cumulative of its layer, eta)`.
    """
    return ranked_table(map(_layer_of, probes))


def _layer_of(path: str | os.PathLike) -> tuple[str, str, int, np.ndarray]:
    probe, meta = read_probe(path)
    return meta["representation"], meta["pooling"], int(meta["layer"]), probe.coefficients


def ranked_table(layers: Iterable[tuple[str, str, int, np.ndarray]]) -> pa.Table:
    """As `neuron_table`, of (representation, pooling, layer, coefficients (p, K)) per probe."""
    parts = {name: [] for name in COLUMNS}
    for representation, pooling, layer, coefficients in layers:
        neurons, importance, cumulative = rank_neurons(coefficients)
        m = len(neurons)
        parts["representation"] += [representation] * m
        parts["pooling"] += [pooling] * m
        parts["layer"] += [layer] * m
        parts["neuron"] += neurons.tolist()
        parts["importance"] += importance.tolist()
        parts["rank"] += list(range(1, m + 1))
        parts["cumulative"] += cumulative.tolist()
    text, whole, real = pa.string(), pa.int32(), pa.float64()
    types = [text, text, whole, whole, real, whole, real]
    table = pa.table(
        {name: pa.array(parts[name], type) for name, type in zip(COLUMNS, types, strict=True)}
    )
    return table.sort_by([("layer", "ascending"), ("rank", "ascending")])


def sparsify(probes: Iterable[str | os.PathLike], out: str | os.PathLike) -> None:
    """The sparsify stage: write `neuron_table` of `probes` to the Parquet file `out`."""
    with replacing(out) as temporary:
        pq.write_table(neuron_table(probes), temporary)


def read_neurons(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read a neuron table as arrays by column name.

    Raises
    ------
    ProbelineError
        If the file is missing or is not a neuron table.
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise ProbelineError(f"{path}: no such neuron table; run the sparsify stage") from None
    except (pa.ArrowException, OSError) as error:
        raise ProbelineError(f"{path}: not a readable Parquet file: {error}") from None
    if tuple(table.column_names) != COLUMNS:
        raise ProbelineError(f"{path}: not a neuron table; expected columns {', '.join(COLUMNS)}")
    return columns_of(table)


def columns_of(table: pa.Table) -> dict[str, np.ndarray]:
    """A neuron table as arrays by column name."""
    return {name: table[name].to_numpy(zero_copy_only=False) for name in COLUMNS}
