"""Per-text predictions: what is written is read back, for every kind of task."""

from __future__ import annotations

from itertools import pairwise

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from problems import task_of
from scipy.special import expit, softmax

from probeline.activations.shards import write_shard
from probeline.data.store import Dataset
from probeline.errors import ProbelineError
from probeline.probe.task import SPLITS
from probeline.results.predictions import (
    PREDICTIONS_FORMAT,
    every_row,
    read_predictions,
    shard_logits,
    two_columns,
    write_predictions,
)
from probeline.sealed import seal

META = {"model": "tiny", "method": "stc", "variant": "selected: ffn.mean"}


def some_task(kind: str):
    """A dataset, a task over it, and logits of its rows."""
    rng = np.random.default_rng(0)
    sizes = {"train": 9, "validation": 4, "test": 5}
    if kind == "multilabel":
        y = {split: rng.integers(0, 2, (n, 3)) for split, n in sizes.items()}
    else:
        y = {split: np.arange(n) % (2 if kind == "binary" else 4) for split, n in sizes.items()}
    columns = {"binary": 1, "multiclass": 4, "multilabel": 3}[kind]
    return dataset_of(sizes), task_of(y), rng.normal(size=(18, columns)).astype(np.float32)


def dataset_of(sizes: dict[str, int], fingerprint: str = "abc") -> Dataset:
    ends = np.cumsum([0, *sizes.values()]).tolist()
    offsets = dict(zip(sizes, pairwise(ends), strict=True))
    return Dataset("made", fingerprint, ends[-1], offsets, False, None, {}, None, None, {})


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel"])
@pytest.mark.parametrize("level", [False, True])
def test_round_trip(tmp_path, kind, level):
    dataset, task, logits = some_task(kind)
    if level:
        # A level of a hierarchy leaves rows out.
        kept = {"train": [0, 2, 8], "validation": [9, 10], "test": [14, 15, 17]}
        for split, rows in kept.items():
            task.y[split] = task.y[split][np.array(rows) - task.rows[split][0]]
            task.rows[split] = np.array(rows)
    write_predictions(tmp_path / "stc.h5", dataset, task, logits, META)
    read = read_predictions(tmp_path / "stc.h5")
    assert read.rows.tolist() == list(range(18))
    assert read.split.tolist() == ["train"] * 9 + ["validation"] * 4 + ["test"] * 5
    defined = [0, 2, 8, 9, 10, 14, 15, 17] if level else range(18)
    assert np.flatnonzero(read.defined).tolist() == list(defined)
    assert read.labels == list(task.labels)
    assert read.logits.dtype == np.float32
    about = {"dataset": "made", "dataset_fingerprint": "abc", "task": "label"}
    assert read.meta.items() >= {**META, **about, "metric": "accuracy"}.items()
    assert read.meta["multilabel"] == (kind == "multilabel")
    if kind == "binary":
        z = logits[:, 0].astype(np.float64)
        p = softmax(read.logits.astype(np.float64), axis=1)
        np.testing.assert_allclose(p, np.stack([expit(-z), expit(z)], 1), atol=1e-7)
        np.testing.assert_array_equal(read.logits.argmax(axis=1), z > 0)
    else:
        np.testing.assert_array_equal(read.logits, logits)
    for split in SPLITS:
        np.testing.assert_array_equal(read.rows_of(split), task.rows[split])
        np.testing.assert_array_equal(read.of(split), read.logits[task.rows[split]])
        assert task.score(split, read.of(split)) == task.score(split, logits[task.rows[split]])


def test_lists_are_read_back_and_what_cannot_be_is_not_written(tmp_path):
    path = tmp_path / "stc.h5"
    write_predictions(path, *some_task("multilabel"), META, [0.5, -1.25, 0.0])
    assert read_predictions(path).meta["threshold"] == [0.5, -1.25, 0.0]
    for value in (np.zeros(3), None, ("a", "b")):
        with pytest.raises(TypeError, match="attribute 'extra' is to be"):
            write_predictions(path, *some_task("multilabel"), META | {"extra": value})
    assert read_predictions(path).meta["threshold"] == [0.5, -1.25, 0.0]


@pytest.mark.parametrize(
    "threshold, expected",
    [(None, [0, 0, 0]), (-1.25, 3 * [-1.25]), ([0.5, -1.25, 0.1], [0.5, -1.25, 0.1])],
)
def test_thresholds_that_were_taken_off(tmp_path, threshold, expected):
    path, given = tmp_path / "stc.h5", () if threshold is None else (threshold,)
    write_predictions(path, *some_task("multilabel"), META, *given)
    found = read_predictions(path).thresholds
    assert found.dtype == np.float32
    assert np.array_equal(found, np.array(expected, dtype=np.float32))


@pytest.mark.parametrize(
    "value, message",
    [
        ("[0.5, 1.0]", "neither one number nor 3"),
        ('["a", "b", "c"]', "neither one number nor 3"),
        ('{"a": 1}', "neither one number nor 3"),
        ("[0.5, NaN, 1.0]", "not finite"),
        ("no list", "predictions"),
        (float("inf"), "not finite"),
    ],
)
def test_thresholds_that_are_none(tmp_path, value, message):
    path = tmp_path / "stc.h5"
    write_predictions(path, *some_task("multilabel"), META)
    with h5py.File(path, "a") as file:
        file.attrs["threshold"] = value
    seal(path)
    with pytest.raises(ProbelineError, match=message) as caught:
        read_predictions(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_logits_of_every_row_of_a_shard(tmp_path):
    dataset = dataset_of({"train": 9, "validation": 4, "test": 5})
    X = np.random.default_rng(1).normal(size=(18, 3)).astype(np.float32)
    meta = dict.fromkeys(("model", "revision", "tokenizer_hash", "dataset", "dtype"), "x")
    meta |= {"max_length": 4, "representation": "hidden", "pooling": "mean", "layer": 1}
    write_shard(tmp_path / "hidden.mean.01.h5", X, meta | {"dataset_fingerprint": "abc"})
    sizes = []

    def first_two(part):
        sizes.append(len(part))
        return part[:, :2]

    found = shard_logits(tmp_path / "hidden.mean.01.h5", dataset, first_two)
    np.testing.assert_array_equal(found, X[:, :2])
    assert sizes == [9, 4, 5]  # a split at a time
    np.testing.assert_array_equal(every_row(dataset, lambda rows: X[rows]), X)
    other = dataset_of({"train": 9, "validation": 4, "test": 5}, "another")
    with pytest.raises(ProbelineError, match=r"hidden\.mean\.01\.h5: about another run"):
        shard_logits(tmp_path / "hidden.mean.01.h5", other, first_two)


# Half of the smallest normal number is no normal one, and not exact.
HALVED = st.floats(-1e4, 1e4, width=32).filter(lambda z: z == 0 or abs(z) > 1e-30)


@given(st.lists(HALVED, min_size=1, max_size=8))
def test_two_columns(values):
    z = np.array(values, np.float32)[:, None]
    two = two_columns(z)
    np.testing.assert_array_equal(two[:, 1] - two[:, 0], z[:, 0])
    np.testing.assert_array_equal(two.argmax(axis=1), z[:, 0] > 0)
    three = np.ones((2, 3))
    assert two_columns(three) is three


def test_one_label_of_a_multi_label_task_stays_one_column(tmp_path):
    task = task_of({split: np.array([[0], [1]]) for split in SPLITS})
    dataset = dataset_of(dict.fromkeys(SPLITS, 2))
    write_predictions(tmp_path / "a.h5", dataset, task, np.array(3 * [[-1.0], [2.0]]), META)
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
    for attributes in ({"format": 1}, {"complete": False}):
        path.write_bytes(whole)
        with h5py.File(path, "r+") as file:
            file.attrs.update(attributes)
        seal(path)
        with pytest.raises(ProbelineError, match="not complete predictions of this version"):
            read_predictions(path)
    with h5py.File(path, "w") as file:
        file.attrs.update(format=PREDICTIONS_FORMAT, complete=True)
    with pytest.raises(ProbelineError, match="not readable predictions"):
        read_predictions(path)


def test_an_error_leaves_the_old_file(tmp_path):
    path = tmp_path / "stc.h5"
    dataset, task, logits = some_task("multiclass")
    write_predictions(path, dataset, task, logits, META)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_predictions(path, dataset, task, logits, META | {"bad": object()})
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["stc.h5"]
