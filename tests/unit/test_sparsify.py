"""Importance, rank and what is kept, against sums done by hand and a plain loop."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from problems import split_problem
from small_project import PROBE, make_project

from probeline.errors import ProbelineError
from probeline.probe.store import read_probe, write_probe
from probeline.probe.train import Probe, train_probe
from probeline.sparsify import (
    COLUMNS,
    kept_count,
    neuron_table,
    rank_neurons,
    read_neurons,
    sparsify,
)


def kept(coefficients, eta) -> list[int]:
    neurons, _, cumulative = rank_neurons(np.asarray(coefficients, np.float32))
    return neurons[: kept_count(cumulative, eta)].tolist()


def test_by_hand_one_column():
    # Squares 9, 0, 16, 1, 4: in order 2 (16), 0 (25), 4 (29), 3 (30); thirty in all.
    W = [[3], [0], [-4], [1], [2]]
    assert kept(W, 0.001) == [2]
    assert kept(W, 16 / 30) == [2]
    assert kept(W, 0.54) == [2, 0]
    assert kept(W, 25 / 30) == [2, 0]
    assert kept(W, 0.9) == [2, 0, 4]
    assert kept(W, 29 / 30) == [2, 0, 4]
    assert kept(W, 0.98) == [2, 0, 4, 3]
    assert kept(W, 1.0) == [2, 0, 4, 3]


def test_by_hand_several_classes():
    # Squares summed over classes: 3 + 3 = 6, 9, 1 + 1 + 1 = 3.
    W = [[3**0.5, 0, 3**0.5], [0, -3, 0], [1, 1, -1]]
    neurons, importance, cumulative = rank_neurons(np.array(W))
    assert neurons.tolist() == [1, 0, 2]
    np.testing.assert_allclose(importance, [9, 6, 3])
    np.testing.assert_allclose(cumulative, [0.5, 15 / 18, 1])


def test_equal_importance_goes_by_number():
    assert kept([[1], [-1], [1], [1]], 0.5) == [0, 1]
    assert kept([[1], [-1], [1], [1]], 0.75) == [0, 1, 2]


def test_shares_that_no_float_hits():
    """Ten equal weights: 0.1 + 0.1 + 0.1 is not 0.3 in floats, three neurons are enough."""
    for tenths in range(1, 11):
        assert len(kept(np.ones((10, 1)), tenths / 10)) == tenths


def test_eta_one_keeps_every_weight():
    assert kept([[1], [1e-9], [0], [-1e-12]], 1.0) == [0, 1, 3]
    assert kept([[1e20], [1e-20]], 1.0) == [0, 1]


def test_all_zero():
    neurons, importance, cumulative = rank_neurons(np.zeros((5, 3), np.float32))
    assert len(neurons) == len(importance) == len(cumulative) == 0
    assert kept(np.zeros((5, 3)), 0.5) == kept(np.zeros((5, 3)), 1.0) == []


def by_loop(W: np.ndarray, eta: Fraction) -> list[int]:
    importance = [sum(int(w) ** 2 for w in row) for row in W]
    order = sorted(range(len(W)), key=lambda j: (-importance[j], j))
    total, reached, chosen = sum(importance), 0, []
    for j in order:
        if not importance[j] or (chosen and Fraction(reached, total) >= eta):
            break
        chosen.append(j)
        reached += importance[j]
    return chosen


@settings(max_examples=150, deadline=None)
@given(
    W=st.tuples(st.integers(1, 12), st.integers(1, 4)).flatmap(
        lambda shape: arrays(np.int64, shape, elements=st.integers(-9, 9))
    ),
    eta=st.integers(1, 1000).map(lambda n: Fraction(n, 1000)),
)
def test_the_shortest_prefix(W, eta):
    """With whole-number weights, in exact arithmetic."""
    assert kept(W, float(eta)) == by_loop(W, eta)


@given(
    arrays(np.float32, (8, 2), elements=st.floats(-3, 3, width=32)),
    st.lists(st.floats(1e-3, 1), min_size=2, max_size=6),
)
def test_larger_etas_keep_more(W, etas):
    sets = [set(kept(W, eta)) for eta in sorted(etas)]
    assert all(small <= large for small, large in pairwise(sets))
    assert set(kept(W, 1.0)) == set(np.flatnonzero(np.square(W.astype(float)).sum(axis=1)))


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("project"))


def test_the_table(project):
    path = project.tables["ffn", "max"]
    table = pq.read_table(path).to_pandas()
    assert tuple(table.columns) == COLUMNS
    assert set(table["representation"]) == {"ffn"}
    assert set(table["pooling"]) == {"max"}
    assert table["layer"].is_monotonic_increasing
    for layer, part in table.groupby("layer"):
        name = f"ffn.max.{layer:02d}.h5"
        probe, _ = read_probe(next(p for p in project.probes if p.endswith(name)))
        neurons, importance, cumulative = rank_neurons(probe.coefficients)
        assert part["neuron"].tolist() == neurons.tolist()
        assert part["rank"].tolist() == list(range(1, len(part) + 1))
        np.testing.assert_array_equal(part["importance"], importance)
        np.testing.assert_array_equal(part["cumulative"], cumulative)
    arrays = read_neurons(path)
    assert set(arrays) == set(COLUMNS)
    np.testing.assert_array_equal(arrays["neuron"], table["neuron"])


def test_the_order_of_probes_does_not_matter(project):
    probes = [p for p in project.probes if "hidden.mean" in p]
    assert neuron_table(probes) == neuron_table(reversed(probes))


def test_an_all_zero_probe_has_no_row(tmp_path):
    X, task = split_problem()
    probe = train_probe(X, task, PROBE)
    zero = Probe(0 * probe.coefficients, *(getattr(probe, n) for n in list(vars(probe))[1:]))
    for layer, one in ((1, probe), (2, zero)):
        meta = {"representation": "ffn", "pooling": "mean", "layer": layer}
        write_probe(tmp_path / f"{layer}.h5", one, meta)
    table = neuron_table([tmp_path / "1.h5", tmp_path / "2.h5"])
    assert set(table["layer"].to_pylist()) == {1}
    sparsify([tmp_path / "2.h5"], tmp_path / "none.parquet")
    empty = read_neurons(tmp_path / "none.parquet")
    assert all(len(values) == 0 for values in empty.values())


def test_files_that_are_no_table(tmp_path, project):
    whole = Path(project.tables["ffn", "max"]).read_bytes()
    path = tmp_path / "a.parquet"
    with pytest.raises(ProbelineError, match=r"a\.parquet: no such neuron table"):
        read_neurons(path)
    for size in (0, 3, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ProbelineError, match=r"a\.parquet: not a readable Parquet file"):
            read_neurons(path)
    pq.write_table(pa.table({"layer": [1], "neuron": [2]}), path)
    with pytest.raises(ProbelineError, match="not a neuron table; expected columns"):
        read_neurons(path)
    with pytest.raises(ProbelineError, match="not a readable Parquet file"):
        read_neurons(project.shards[0])
