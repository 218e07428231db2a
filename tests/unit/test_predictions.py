"""Per-text predictions: what is written is read back, for every kind of task."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from problems import task_of
from scipy.special import expit, softmax

from probeline.errors import ProbelineError
from probeline.probe.task import SPLITS
from probeline.results.predictions import read_predictions, two_columns, write_predictions

META = {"dataset": "made", "model": "tiny", "method": "stc", "variant": "selected: ffn.mean"}


def some_task(kind: str):
    rng = np.random.default_rng(0)
    sizes = {"train": 9, "validation": 4, "test": 5}
    if kind == "multilabel":
        y = {split: rng.integers(0, 2, (n, 3)) for split, n in sizes.items()}
    else:
        y = {split: np.arange(n) % (2 if kind == "binary" else 4) for split, n in sizes.items()}
    task = task_of(y)
    columns = {"binary": 1, "multiclass": 4, "multilabel": 3}[kind]
    logits = {s: rng.normal(size=(n, columns)).astype(np.float32) for s, n in sizes.items()}
    return task, logits


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel"])
def test_round_trip(tmp_path, kind):
    task, logits = some_task(kind)
    # A level of a hierarchy leaves rows out.
    task.rows["test"] = task.rows["test"] + 7
    write_predictions(tmp_path / "stc.h5", task, logits, META)
    read = read_predictions(tmp_path / "stc.h5")
    assert read.rows.tolist() == [*range(13), *range(20, 25)]
    assert read.split.tolist() == ["train"] * 9 + ["validation"] * 4 + ["test"] * 5
    assert read.labels == list(task.labels)
    assert read.logits.dtype == np.float32
    assert read.meta.items() >= {**META, "task": "label", "metric": "accuracy"}.items()
    assert read.meta["multilabel"] == (kind == "multilabel")
    for split in SPLITS:
        if kind == "binary":
            z = logits[split][:, 0].astype(np.float64)
            p = softmax(read.of(split).astype(np.float64), axis=1)
            np.testing.assert_allclose(p, np.stack([expit(-z), expit(z)], 1), atol=1e-7)
            np.testing.assert_array_equal(read.of(split).argmax(axis=1), z > 0)
        else:
            np.testing.assert_array_equal(read.of(split), logits[split])
        assert task.score(split, read.of(split)) == task.score(split, logits[split])


@given(st.lists(st.floats(-1e4, 1e4, width=32, allow_subnormal=False), min_size=1, max_size=8))
def test_two_columns(values):
    z = np.array(values, np.float32)[:, None]
    two = two_columns(z)
    np.testing.assert_array_equal(two[:, 1] - two[:, 0], z[:, 0])
    np.testing.assert_array_equal(two.argmax(axis=1), z[:, 0] > 0)
    three = np.ones((2, 3))
    assert two_columns(three) is three


def test_one_label_of_a_multi_label_task_stays_one_column(tmp_path):
    task = task_of({split: np.array([[0], [1]]) for split in SPLITS})
    logits = {split: np.array([[-1.0], [2.0]]) for split in SPLITS}
    write_predictions(tmp_path / "a.h5", task, logits, META)
    assert read_predictions(tmp_path / "a.h5").logits.shape == (6, 1)


def test_files_that_are_no_predictions(tmp_path):
    path = tmp_path / "stc.h5"
    with pytest.raises(ProbelineError, match=r"stc\.h5: no such predictions"):
        read_predictions(path)
    write_predictions(path, *some_task("binary"), META)
    whole = path.read_bytes()
    for size in (0, 7, 512, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ProbelineError, match=r"stc\.h5: not readable predictions.*delete it"):
            read_predictions(path)
    path.write_text("text")
    with pytest.raises(ProbelineError, match="not readable predictions"):
        read_predictions(path)
    for attributes in ({"format": 7}, {"complete": False}):
        path.write_bytes(whole)
        with h5py.File(path, "r+") as file:
            file.attrs.update(attributes)
        with pytest.raises(ProbelineError, match="not complete predictions of this version"):
            read_predictions(path)
    with h5py.File(path, "w") as file:
        file.attrs.update(format=1, complete=True)
    with pytest.raises(ProbelineError, match="not readable predictions"):
        read_predictions(path)


def test_an_error_leaves_the_old_file(tmp_path):
    path = tmp_path / "stc.h5"
    task, logits = some_task("multiclass")
    write_predictions(path, task, logits, META)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_predictions(path, task, logits, META | {"bad": object()})
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["stc.h5"]
