"""Probes on disk, and the stage that writes them."""

from __future__ import annotations

from dataclasses import fields

import h5py
import numpy as np
import pytest
from problems import split_problem
from small_project import PROBE, make_project, split_rows

from probeline.errors import ProbelineError
from probeline.probe.stage import probe_shards, read_rows
from probeline.probe.store import read_probe, write_probe
from probeline.probe.task import SPLITS, task_data
from probeline.probe.train import train_probe
from probeline.sealed import seal

META = {
    "dataset": "made",
    "labels": ["ä, [b]", "{c}"],
    "multilabel": False,
    "layer": 3,
    "seconds": 0.5,
}


@pytest.fixture(scope="module")
def probe():
    X, task = split_problem()
    return train_probe(X, task, PROBE | {"class_weight": [None, "balanced"]})


@pytest.fixture
def path(tmp_path, probe):
    write_probe(tmp_path / "hidden.mean.03.h5", probe, META)
    return tmp_path / "hidden.mean.03.h5"


@pytest.fixture(scope="module", params=["binary", "multiclass", "multilabel"])
def project(request, tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("project"), request.param)


def test_round_trip(path, probe):
    read, meta = read_probe(path)
    for name in ("coefficients", "intercept"):
        np.testing.assert_array_equal(getattr(read, name), getattr(probe, name))
    for name in ("mean", "scale", "kept"):
        np.testing.assert_array_equal(getattr(read.scaler, name), getattr(probe.scaler, name))
    assert read.steps == probe.steps
    for step in read.steps:
        for field in fields(step):
            value = getattr(step, field.name)
            assert value is None or type(value).__name__ == field.type.split(" ")[0]
    assert (read.chosen, read.validation_score, read.test_score) == (
        probe.chosen,
        probe.validation_score,
        probe.test_score,
    )
    assert meta.items() >= META.items()
    assert meta["converged"] is True


def test_thousands_of_labels(tmp_path, probe):
    """Attributes have a size limit in HDF5; text is not held to it."""
    labels = [f"a rather long name of label number {k}" for k in range(5000)]
    write_probe(tmp_path / "a.h5", probe, META | {"labels": labels})
    assert read_probe(tmp_path / "a.h5")[1]["labels"] == labels


def one_line(call, *words) -> str:
    with pytest.raises(ProbelineError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message
    return message


def test_missing(tmp_path):
    one_line(lambda: read_probe(tmp_path / "a.h5"), tmp_path / "a.h5", "no such probe")


def test_truncated_anywhere(path):
    whole = path.read_bytes()
    for size in [0, 1, 8, 100, 600, 2048, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:size])
        one_line(lambda: read_probe(path), path, "delete it")


def test_foreign(tmp_path, project):
    one_line(lambda: read_probe(project.shards[0]), project.shards[0], "not a complete probe")
    table = next(iter(project.tables.values()))
    one_line(lambda: read_probe(table), table, "not a readable probe")
    one_line(lambda: read_probe(tmp_path), tmp_path)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs.update(format=1, complete=True)
    one_line(lambda: read_probe(tmp_path / "a.h5"), "not a readable probe")


@pytest.mark.parametrize("attributes", [{"format": 0}, {"format": 99}, {"complete": False}])
def test_other_format_or_incomplete(path, attributes):
    with h5py.File(path, "r+") as file:
        file.attrs.update(attributes)
    seal(path)
    one_line(lambda: read_probe(path), path, "not a complete probe of this version; delete it")


def test_the_stage_trains_what_it_is_asked_for(project):
    """Each probe on disk is the one trained by hand on that shard's values."""
    task = project.task
    for path, values in list(zip(project.probes, project.values.values(), strict=True))[::5]:
        probe, meta = read_probe(path)
        alone = train_probe(split_rows(values), task, PROBE)
        np.testing.assert_array_equal(probe.coefficients, alone.coefficients)
        assert probe.steps == alone.steps
        assert probe.test_score == alone.test_score
        assert f"{meta['representation']}.{meta['pooling']}.{meta['layer']:02d}.h5" in path
        assert meta["labels"] == list(task.labels)
        assert meta["dataset_fingerprint"] == project.dataset.fingerprint
        assert meta["metric"] == ("micro-f1" if task.multilabel else "accuracy")


def test_deeper_layers_know_more(project):
    scores = {}
    for path in project.probes:
        probe, meta = read_probe(path)
        scores.setdefault(meta["layer"], []).append(probe.validation_score)
    assert np.mean(scores[3]) > np.mean(scores[0]) + 0.1


def test_outputs_without_a_shard(project, tmp_path):
    out = tmp_path / "hidden.first.01.h5"
    one_line(
        lambda: probe_shards(project.shards, [out], project.data, "label", PROBE),
        out,
        "no shard of this name",
    )


def test_rows_of_a_level_that_is_not_everywhere_defined(tmp_path):
    """Only the rows where the task applies are read, whatever the split they stand in."""
    project = make_project(tmp_path)
    dataset = project.dataset
    codes = dataset.labels("label").copy()
    codes[::3] = -1
    dataset._codes["label"] = codes
    task = task_data(dataset, "label")
    X, meta = read_rows(project.shards[2], dataset, task)
    values = list(project.values.values())[2]
    for split in SPLITS:
        rows = np.arange(len(values))[dataset.split(split)]
        rows = rows[codes[rows] >= 0]
        np.testing.assert_array_equal(X[split], values[rows])
        np.testing.assert_array_equal(task.y[split], codes[rows])
    assert meta["layer"] == 2


def test_a_shard_of_another_dataset(project, tmp_path):
    other = make_project(tmp_path, "binary", seed=5)
    dataset = other.dataset
    dataset.fingerprint = "another"
    one_line(
        lambda: read_rows(project.shards[0], dataset, other.task),
        project.shards[0],
        "dataset_fingerprint",
    )


def test_unknown_metric_or_task(project):
    dataset = project.dataset
    one_line(lambda: task_data(dataset, "label", "acuracy"), "'acuracy' does not fit task 'label'")
    if dataset.tasks["label"]["kind"] == "multi":
        one_line(lambda: task_data(dataset, "label", "matthews"), "multi-label")
