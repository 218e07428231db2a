"""Candidate neurons at every eta and depth, and their activations."""

from __future__ import annotations

import numpy as np
import pytest
from small_project import ETAS, make_project

from probeline.activations.names import parse_name
from probeline.aggregate.neurons import Neurons, candidates, read_activations
from probeline.aggregate.stage import Activations
from probeline.errors import ProbelineError
from probeline.probe.store import read_probe
from probeline.sparsify import kept_count, rank_neurons


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("project"))


def keys(neurons: Neurons, indices=slice(None)) -> list[tuple]:
    part = neurons.take(indices)
    parts = (part.representation, part.pooling, part.layer, part.neuron)
    return list(zip(*(values.tolist() for values in parts), strict=True))


def recomputed(project, sources, eta, depth) -> set[tuple]:
    """From the probes, one at a time."""
    found = set()
    for path in project.probes:
        probe, meta = read_probe(path)
        key = (meta["representation"], meta["pooling"])
        if key not in sources or meta["layer"] > depth:
            continue
        ranked, _, cumulative = rank_neurons(probe.coefficients)
        for neuron in ranked[: kept_count(cumulative, eta)].tolist():
            found.add((*key, meta["layer"], neuron))
    return found


@pytest.mark.parametrize(
    "sources", [[("ffn", "mean")], [("ffn", "mean"), ("hidden", "mean"), ("hidden", "max")]]
)
def test_at_every_eta_and_depth(project, sources):
    neurons = candidates([project.tables[source] for source in sources], ETAS)
    assert len(set(keys(neurons))) == len(neurons)
    for level, eta in enumerate(ETAS):
        for depth in range(5):
            indices = neurons.at(level, depth)
            assert set(keys(neurons, indices)) == recomputed(project, sources, eta, depth)


def test_what_no_eta_keeps_is_not_a_candidate(project):
    few = candidates([project.tables["ffn", "mean"]], [0.05, 0.3])
    assert set(keys(few)) == recomputed(project, [("ffn", "mean")], 0.3, 9)


def test_groups_say_where_each_neuron_is(project):
    neurons = candidates(list(project.tables.values()), ETAS)
    neurons = neurons.take(np.random.default_rng(0).permutation(len(neurons)))
    seen = []
    for representation, pooling, layer, indices in neurons.groups():
        seen += indices.tolist()
        assert {key[:3] for key in keys(neurons, indices)} == {(representation, pooling, layer)}
    assert sorted(seen) == list(range(len(neurons)))


def by_key(project) -> dict:
    return {parse_name(path.rsplit("/", 1)[-1]): path for path in project.shards}


def test_activations_are_the_right_columns(project):
    neurons = candidates(list(project.tables.values()), ETAS)
    neurons = neurons.take(np.random.default_rng(0).permutation(len(neurons)))
    values = read_activations(
        neurons, by_key(project), project.dataset.fingerprint, project.dataset.rows
    )
    expected = [project.values[r, p, layer][:, n] for r, p, layer, n in keys(neurons)]
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, np.stack(expected, axis=1))
    some = neurons.take(np.array([7, 2, 5]))
    np.testing.assert_array_equal(Activations(neurons, values).of(some), values[:, [7, 2, 5]])


def test_no_neuron_no_shard_or_another_dataset(project):
    neurons = candidates([project.tables["ffn", "mean"]], ETAS)
    shards, fingerprint = by_key(project), project.dataset.fingerprint
    rows = project.dataset.rows
    none = read_activations(neurons.take(np.array([], int)), shards, fingerprint, rows)
    assert none.shape == (rows, 0)
    with pytest.raises(ProbelineError, match=r"no shard of ffn\.mean, layer"):
        read_activations(neurons, {}, fingerprint, rows)
    with pytest.raises(ProbelineError, match=r"dataset_fingerprint is .* expected 'other'"):
        read_activations(neurons, shards, "other", rows)
    assert len(candidates([], ETAS)) == 0
