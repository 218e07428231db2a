"""The grid of eta, depth and penalty against fitting every point anew with scikit-learn."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from problems import by_sklearn, objective
from sklearn.preprocessing import StandardScaler
from small_project import AGGREGATE, ETAS, make_project, split_rows

from probeline.aggregate.grid import Candidate, Columns, choose, search
from probeline.aggregate.head import fit_head
from probeline.aggregate.stage import aggregate, load_columns, read_grid
from probeline.errors import ProbelineError
from probeline.probe.losses import make_loss
from probeline.probe.path import Step
from probeline.probe.task import SPLITS

SOURCES = [("ffn", "mean"), ("hidden", "mean")]


@pytest.fixture(scope="module", params=["binary", "multiclass", "multilabel"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def project(kind, tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("project"), kind)


def loaded(project, sources=SOURCES, etas=ETAS):
    tables = [project.tables[source] for source in sources]
    return load_columns(tables, project.shards, project.dataset, project.task, etas)


def from_scratch(X, task, penalty, l1_ratio=0.0):
    """scikit-learn on standardised features: objective, and logits of validation."""
    scaler = StandardScaler().fit(X["train"].astype(np.float64))
    train = scaler.transform(X["train"])
    y = task.y["train"]
    columns = y.T if task.multilabel else [y]
    fits = [by_sklearn(train, column, penalty, l1_ratio) for column in columns]
    W, b = np.hstack([fit[0] for fit in fits]), np.concatenate([fit[1] for fit in fits])
    loss = make_loss(y, task.classes, dtype=np.float64)
    best = objective(train, loss, W, b, penalty, l1_ratio)
    return best, scaler.transform(X["validation"]) @ W + b


def test_every_point_equals_a_fit_from_scratch(project):
    task = project.task
    columns, activations = loaded(project)
    found = search(columns, task, ETAS, AGGREGATE)
    assert len({(c.eta, c.depth, c.step.C) for c in found}) == len(found)
    assert {c.depth for c in found} == set(columns.neurons.layer.tolist())
    assert len({c.depth for c in found}) >= 3
    assert {round(c.step.C, 9) for c in found} == {0.01, 1.0}
    for candidate in found[:: max(1, len(found) // 9)]:
        indices = columns.neurons.at(ETAS.index(candidate.eta), candidate.depth)
        assert candidate.available == candidate.step.neurons == len(indices)
        X = split_rows(activations.of(columns.neurons.take(indices)))
        best, logits = from_scratch(X, task, candidate.step.penalty)
        assert candidate.step.converged
        assert candidate.step.objective == pytest.approx(best, rel=2e-5)
        if task.multilabel:
            logits = logits - candidate.step.threshold
        score = task.score("validation", logits)
        assert candidate.step.score == pytest.approx(score, abs=0.021)  # one text of fifty


def test_depth_is_the_highest_layer_that_is_read(project):
    columns, _ = loaded(project)
    for candidate in search(columns, project.task, ETAS, AGGREGATE):
        indices = columns.neurons.at(ETAS.index(candidate.eta), candidate.depth)
        assert columns.neurons.layer[indices].max() == candidate.depth


def test_depths_may_be_listed(project):
    columns, _ = loaded(project)
    found = search(columns, project.task, ETAS, AGGREGATE | {"depths": [1, 3]})
    assert {c.depth for c in found} == {1, 3}
    # Beyond the last layer there is nothing more.
    beyond = search(columns, project.task, ETAS, AGGREGATE | {"depths": [3, 9]})
    assert {c.depth for c in beyond} == {3}
    assert len(beyond) == len(ETAS) * 2


def test_columns_are_standardised_on_train(project):
    columns, activations = loaded(project)
    X = split_rows(activations.of(columns.neurons))
    scaler = StandardScaler().fit(X["train"].astype(np.float64))
    np.testing.assert_allclose(columns.train.T, scaler.transform(X["train"]), atol=1e-4)
    np.testing.assert_allclose(columns.validation.T, scaler.transform(X["validation"]), atol=1e-4)


def test_without_a_shared_gram_matrix(project, monkeypatch):
    columns, _ = loaded(project)
    whole = search(columns, project.task, ETAS, AGGREGATE)
    monkeypatch.setattr("probeline.aggregate.grid._LARGEST_GRAM", 3)
    alone = search(columns, project.task, ETAS, AGGREGATE)
    assert [(c.eta, c.depth, c.available) for c in alone] == [
        (c.eta, c.depth, c.available) for c in whole
    ]
    np.testing.assert_allclose(
        [c.step.objective for c in alone], [c.step.objective for c in whole], rtol=2e-5
    )


def test_l1_and_class_weights_are_tried_too(project):
    columns, _ = loaded(project)
    options = AGGREGATE | {"l1_ratios": [0.0, 0.5, 1.0], "class_weight": "balanced"}
    found = search(columns, project.task, ETAS[:2], options)
    assert {c.step.l1_ratio for c in found} == {0.0, 0.5, 1.0}
    assert {c.step.class_weight for c in found} == {"balanced"}
    sparse = [c for c in found if c.step.l1_ratio == 1.0 and c.step.C < 0.1]
    assert any(c.step.neurons < c.available for c in sparse)


def test_the_head_is_the_grid_point_again(project):
    task = project.task
    columns, activations = loaded(project)
    for l1_ratio in (0.0, 1.0):
        found = search(columns, task, ETAS, AGGREGATE | {"l1_ratios": [l1_ratio]})
        chosen = choose(found, "best", 0.0)
        head = fit_head(columns, task, chosen, ETAS, AGGREGATE)
        assert head.step.objective == pytest.approx(chosen.step.objective, rel=2e-5)
        assert head.step.gap <= 0.1 * AGGREGATE["tolerance"] or not head.step.converged
        assert head.depth == head.neurons.layer.max() <= chosen.depth
        assert (head.coefficients != 0).any(axis=1).all()
        X = split_rows(activations.of(head.neurons))
        logits = {split: head.logits(X[split]) for split in SPLITS}
        assert task.score("validation", logits["validation"]) == head.step.score
        everything = columns.neurons.at(ETAS.index(chosen.eta), chosen.depth)
        X = split_rows(activations.of(columns.neurons.take(everything)))
        _, expected = from_scratch(X, task, chosen.step.penalty, l1_ratio)
        shift = head.step.threshold
        # In softmax only differences between classes matter.
        centre = (lambda Z: Z) if logits["validation"].shape[1] == 1 or task.multilabel else rowwise
        np.testing.assert_allclose(
            centre(logits["validation"] + np.float32(shift)), centre(expected), atol=0.03
        )


def rowwise(Z):
    return Z - Z.mean(axis=1, keepdims=True)


def run_stage(project, out, **options):
    tables = [project.tables[source] for source in SOURCES]
    options = AGGREGATE | options
    slug = "mean-all"
    aggregate(tables, project.shards, project.data, "label", slug, out, ETAS, options)
    return out


def test_the_stage_and_its_file(project, tmp_path):
    out = run_stage(project, tmp_path / "grid.parquet")
    found, position, test, meta = read_grid(out)
    task = project.task
    columns, activations = loaded(project)
    assert found == search(columns, task, ETAS, AGGREGATE)
    chosen = choose(found, "best", 0.02)
    assert found[position] == chosen
    head = fit_head(columns, task, chosen, ETAS, AGGREGATE)
    X = split_rows(activations.of(head.neurons))
    assert test == task.score("test", head.logits(X["test"]))
    assert meta["slug"] == "mean-all"
    assert meta["final"]["score"] == head.step.score
    assert meta["final"]["neurons"] == len(head.neurons)
    table = pq.read_table(out)
    # Test is read for the one point that validation chose, and for no other.
    assert table["test_score"].null_count == len(found) - 1
    assert table["chosen"].to_pylist().count(True) == 1
    assert out.read_bytes() == run_again(project, out).read_bytes()


def run_again(project, out):
    """The same bytes but for the seconds in the metadata, which are copied over."""
    meta = pq.read_table(out).schema.metadata
    second = run_stage(project, out.with_name("again.parquet"))
    pq.write_table(pq.read_table(second).replace_schema_metadata(meta), second)
    return second


def test_all_probes_zero(project):
    """One point, the intercept alone; its score is the most frequent label's."""
    task = project.task
    columns, _ = loaded(project)
    none = columns.neurons.take(np.array([], int))
    empty = Columns(none, columns.scaler, columns.train[:0], columns.validation[:0])
    (point,) = search(empty, task, ETAS, AGGREGATE)
    assert (point.depth, point.available, point.step.neurons) == (0, 0, 0)
    head = fit_head(empty, task, point, ETAS, AGGREGATE)
    assert head.depth == len(head.neurons) == 0
    rows = len(task.y["validation"])
    logits = head.logits(np.empty((rows, 0), np.float32))
    assert point.step.score == task.score("validation", logits)
    if not task.multilabel:
        majority = np.bincount(task.y["train"]).argmax()
        assert point.step.score == (task.y["validation"] == majority).mean()


def test_files_that_are_no_grid(project, tmp_path):
    path = tmp_path / "grid.parquet"
    with pytest.raises(ProbelineError, match=r"grid\.parquet: no such grid"):
        read_grid(path)
    whole = run_stage(project, path).read_bytes()
    for size in (0, 3, 500, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ProbelineError, match=r"grid\.parquet: not a readable grid"):
            read_grid(path)
    path.write_bytes(whole)
    table = pq.read_table(path)
    for foreign in (
        pq.read_table(project.tables["ffn", "mean"]),
        table.drop_columns(["log_loss"]),
        table.replace_schema_metadata({}),
        table.replace_schema_metadata({"probeline": "no json"}),
        table.slice(0, 0),
        pa.table({"a": [1]}).replace_schema_metadata({"probeline": json.dumps([1])}),
    ):
        pq.write_table(foreign, path)
        with pytest.raises(ProbelineError, match=r"grid\.parquet: not a readable grid"):
            read_grid(path)
    with pytest.raises(ProbelineError, match="not a readable grid"):
        read_grid(Path(project.shards[0]))


def candidate(score, neurons=10, depth=3, log_loss=1.0, eta=0.5, error=0.0) -> Candidate:
    step = Step(1, 1, 0, None, score, error, log_loss, 0, neurons, neurons, 1, 0, 1, True)
    return Candidate(eta, depth, neurons, step)


def test_best_is_the_lowest_loss_among_equals():
    found = [candidate(0.8, log_loss=0.1), candidate(0.9, log_loss=0.6), candidate(0.9)]
    assert choose(found, "best", 0.5) is found[1]
    again = [candidate(0.9, 12), candidate(0.9, 8), candidate(0.9, 9, depth=1)]
    assert choose(again, "best", 0.5) is again[1]


@pytest.mark.parametrize("error, place", [(0.0, 0), (0.019, 0), (0.02, 1), (0.03, 1)])
def test_best_within_half_a_standard_error(error, place):
    found = [
        candidate(0.90, log_loss=0.5, error=error),
        # The errors of others do not count.
        candidate(0.89, log_loss=0.3, error=0.5),
        candidate(0.7, 1, 0, 0, error=0.5),
    ]
    assert choose(found, "best", 0.0) is found[place]


def test_sparsest_and_shallowest_within():
    found = [
        candidate(0.900, neurons=100, depth=6, log_loss=0.1, error=1.0),
        candidate(0.896, neurons=40, depth=5),
        candidate(0.895, neurons=50, depth=2),
        candidate(0.890, neurons=3, depth=1),
    ]
    assert choose(found, "sparsest", 0.005) is found[1]
    assert choose(found, "shallowest", 0.005) is found[2]
    assert choose(found, "sparsest", 0.0) is choose(found, "shallowest", 0.0) is found[0]
    assert choose(found, "sparsest", 0.5) is choose(found, "shallowest", 0.5) is found[3]


def test_ties_of_sparsest_and_shallowest():
    found = [candidate(0.9, 5, 3), candidate(0.9, 5, 2), candidate(0.9, 5, 2, log_loss=0.5)]
    assert choose(found, "sparsest", 0.0) is found[2]
    assert choose(found[:2], "sparsest", 0.0) is found[1]
    deep = [candidate(0.9, 9, 2), candidate(0.9, 5, 2), candidate(0.9, 4, 3)]
    assert choose(deep, "shallowest", 0.0) is deep[1]


def test_within_is_not_lost_to_rounding():
    """Half a percent below 0.9 is 0.895, whatever the floats make of it."""
    found = [candidate(0.9, neurons=100), candidate(0.9 - 0.005, neurons=5)]
    found.append(candidate(179 / 200, neurons=4))
    assert choose(found, "sparsest", 0.005) is found[2]


def test_nothing_was_warned_of(project):
    columns, _ = loaded(project)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        search(columns, project.task, ETAS, AGGREGATE | {"l1_ratios": [0.0, 1.0]})
