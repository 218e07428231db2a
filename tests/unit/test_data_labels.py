"""Vocabularies, codes, hierarchies."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from probeline.data.labels import encode_tasks, settle_vocabulary
from probeline.data.source import Place, Source
from probeline.errors import ProbelineError


def source(declared=None, **columns) -> Source:
    labels = pa.table({name: pa.array(values) for name, values in columns.items()})
    rows = labels.num_rows
    return Source(
        texts=pa.table({"text": pa.array(["t"] * rows, pa.large_string())}),
        labels=labels,
        declared=declared or {},
        places=(Place("f", rows),),
        index=np.arange(rows),
    )


def encode(values, declared=None, **spec):
    return encode_tasks(source({"label": declared} if declared else None, label=values), spec)[0]


def refusal(call, *args, **keys) -> str:
    with pytest.raises(ProbelineError) as caught:
        call(*args, **keys)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("values", "labels", "codes"),
    [
        (["b", "a", "b", "B"], ["B", "a", "b"], [2, 1, 2, 0]),
        (["10", "9", "-1"], ["-1", "9", "10"], [2, 1, 0]),
        (["10", "9", "x"], ["10", "9", "x"], [0, 1, 2]),
        (["07", "7"], ["07", "7"], [0, 1]),
        ([10, 9, -1], ["-1", "9", "10"], [2, 1, 0]),
        ([True, False], ["false", "true"], [1, 0]),
        (["True", "False"], ["False", "True"], [1, 0]),
    ],
)
def test_order_without_names(values, labels, codes):
    task = encode(values)
    assert (task.labels, task.codes.tolist(), task.multi) == (labels, codes, False)


@pytest.mark.parametrize(
    ("values", "names", "labels", "codes"),
    [
        ([0, 1, 0], ["neg", "pos"], ["neg", "pos"], [0, 1, 0]),
        (["0", "1"], ["neg", "pos"], ["neg", "pos"], [0, 1]),
        ([True, False], ["no", "yes"], ["no", "yes"], [1, 0]),
        (["True", "FALSE"], ["no", "yes"], ["no", "yes"], [1, 0]),
        (["pos", "neg"], ["pos", "neg"], ["pos", "neg"], [0, 1]),
        (["2", "1"], ["2", "1"], ["2", "1"], [0, 1]),
        ([5, 1], {"5": "five", "1": "one"}, ["five", "one"], [0, 1]),
        ([5, 1], {5: "five", 1: "one"}, ["five", "one"], [0, 1]),
        ([True, False], {True: "yes", False: "no"}, ["yes", "no"], [0, 1]),
        (
            ["joy", "love", "rage"],
            {"joy": "good", "love": "good", "rage": "bad"},
            ["good", "bad"],
            [0, 0, 1],
        ),
    ],
)
def test_names_from_the_config(values, names, labels, codes):
    task = encode(values, label_names=names)
    assert (task.labels, task.codes.tolist()) == (labels, codes)


def test_names_of_a_class_label():
    assert encode([1, 0, 1], declared=["zero", "one"]).labels == ["zero", "one"]
    assert encode([1, 0], declared=["z", "o"], label_names=["no", "yes"]).labels == ["no", "yes"]
    task = encode([1, 0], declared=["z", "o"], label_names={"o": "odd", "z": "even"})
    assert (task.labels, task.codes.tolist()) == (["odd", "even"], [0, 1])


@pytest.mark.parametrize(
    ("values", "spec", "message"),
    [
        (["a", None], {}, "f: row 2: no label in 'label' (empty or null)"),
        (["a", " "], {}, "f: row 2: no label in 'label'"),
        ([1, 2, None], {}, "f: row 3: no label in 'label'"),
        (["a", "a"], {}, "label 'label': the data have only 'a'; expected at least two"),
        ([0, 1, 2], {"label_names": ["n", "y"]}, "f: row 3: label 2 of 'label' is outside label_n"),
        ([0, -1], {"label_names": ["n", "y"]}, "row 2: label -1 of 'label' is outside"),
        (
            ["pos", "nge"],
            {"label_names": ["neg", "pos"]},
            "row 2: label 'nge' of 'label' is not in label_names; did you mean 'neg'?",
        ),
        (["a", "b"], {"label_names": ["a", "b", "a"]}, "label_names: 'a' stands there twice"),
        (
            [5, 6],
            {"label_names": {"5": "five"}},
            "f: row 2: label '6' of 'label' is not in label_n",
        ),
        (["a", "b"], {"undefined": "none"}, "undefined: is for hierarchies"),
        ([["a"], None], {}, "f: row 2: no labels in 'label' (null); expected a list"),
        ([["a"], ["b", None]], {}, "f: row 2: an empty or null label in the list 'label'"),
        ([["a"], ["b", ""]], {}, "f: row 2: an empty or null label in the list 'label'"),
        ([["a"], []], {}, "the data have only 'a'"),
        ([[], []], {}, "the data have none"),
        ([[0, 1], [0, 0], [1, 0]], {}, "f: row 2: 'label' names a label twice; if this is a vec"),
    ],
)
def test_labels_that_are_refused(values, spec, message):
    assert message in refusal(encode, values, **spec)


def test_a_class_label_without_a_label():
    message = refusal(encode, [0, -1], declared=["neg", "pos"])
    assert "row 2: label -1" in message and "use another split" in message


def test_several_labels_per_text():
    task = encode([["b", "a"], [], ["b", "b"], ["c"]])
    assert task.multi and task.labels == ["a", "b", "c"]
    assert task.codes.astype(int).tolist() == [[1, 1, 0], [0, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert task.counts(np.array([0, 1])).tolist() == [1, 1, 0]
    named = encode([[1], [0, 1]], declared=["x", "y"])
    assert named.labels == ["x", "y"] and named.codes.astype(int).tolist() == [[0, 1], [1, 1]]


LEVELS = {"coarse": ["A", "B", "A", "none", "A"], "fine": ["a1", "b1", "a2", "none", "none"]}


def test_a_hierarchy():
    coarse, fine = encode_tasks(source(**LEVELS), {"label": list(LEVELS), "undefined": "none"})
    assert coarse.codes.tolist() == [0, 1, 0, -1, 0] and coarse.parents is None
    assert fine.codes.tolist() == [0, 2, 1, -1, -1]
    assert fine.parents == {"a1": "A", "a2": "A", "b1": "B"}


@pytest.mark.parametrize(
    ("undefined", "columns"),
    [
        ("", {"c": ["A", "B", "A"], "f": ["x", "y", None]}),
        ("", {"c": ["A", "B", "A"], "f": ["x", "y", " "]}),
        (-1, {"c": [1, 2, 1], "f": [10, 11, -1]}),
        ("-1", {"c": [1, 2, 1], "f": [10, 11, -1]}),
    ],
)
def test_what_undefined_may_look_like(undefined, columns):
    tasks = encode_tasks(source(**columns), {"label": ["c", "f"], "undefined": undefined})
    assert tasks[1].codes.tolist() == [0, 1, -1]


@pytest.mark.parametrize(
    ("columns", "spec", "message"),
    [
        (
            {"c": ["A", "B", "none"], "f": ["x", "y", "x"]},
            {"undefined": "none"},
            "f: row 3: 'f' is 'x' but 'c' is undefined",
        ),
        (
            {"c": ["A", "B", "B"], "f": ["x", "y", "x"]},
            {},
            "f: row 3: label 'x' of 'f' stands under 'B', in f: row 1 under 'A'",
        ),
        (
            {"c": ["A", "B"], "f": ["x", None]},
            {},
            "f: row 2: no label in 'f' (empty or null); undefined: '' declares it",
        ),
        (
            {"c": ["A", "B"], "f": ["x", "y"]},
            {"undefined": "nnoe"},
            "undefined: 'nnoe' stands in none of the columns c, f",
        ),
        ({"c": ["A", "B"], "f": [["x"], ["y"]]}, {}, "label: column 'f' holds lists"),
        (
            {"c": ["A", "B"], "f": ["x", "y"]},
            {"label_names": ["A", "B"]},
            "label_names: with several label columns, give a mapping of column",
        ),
        (
            {"coarse": ["A", "B"], "f": ["x", "y"]},
            {"label_names": {"corse": ["A", "B"]}},
            "label_names: 'corse' is none of the label columns coarse, f; did you mean 'coarse'?",
        ),
    ],
)
def test_hierarchies_that_are_refused(columns, spec, message):
    spec = {"label": list(columns), **spec}
    assert message in refusal(encode_tasks, source(**columns), spec)


def test_names_for_each_level():
    columns = {"c": [0, 1], "f": ["x", "y"]}
    spec = {"label": ["c", "f"], "label_names": {"c": ["no", "yes"], "f": {"x": "X", "y": "Y"}}}
    tasks = encode_tasks(source(**columns), spec)
    assert [task.labels for task in tasks] == [["no", "yes"], ["X", "Y"]]


def settled(values, train, validation, test, **spec):
    data = source(label=values)
    splits = {
        name: np.array(rows, dtype=np.int64)
        for name, rows in (("train", train), ("validation", validation), ("test", test))
    }
    return settle_vocabulary(encode_tasks(data, spec)[0], splits, data.where)


def test_names_that_train_lacks_leave_the_vocabulary():
    task = settled([0, 2, 0, 2], [0, 1], [2], [3], label_names=["a", "b", "c"])
    assert task.labels == ["a", "c"] and task.unused == ["b"]
    assert task.codes.tolist() == [0, 1, 0, 1]
    many = settled([["x"], ["z"], ["z"], []], [0, 1], [2], [3], label_names=["x", "y", "z"])
    assert many.labels == ["x", "z"] and many.codes.shape == (4, 2)


@pytest.mark.parametrize(
    ("values", "splits", "message"),
    [
        (
            ["a", "b", "a", "c"],
            ([0, 1], [2], [3]),
            "f: row 4: label 'c' of 'label' stands in test ",
        ),
        (["a", "b", "c", "a"], ([0, 1], [2], [3]), "row 3: label 'c' of 'label' stands in validat"),
        ([["a"], ["b"], ["a", "c"], []], ([0, 1], [2], [3]), "f: row 3: label 'c' of 'label' stan"),
        (["a", "a", "b", "a"], ([0, 1], [3], [0]), "label 'label': train has only 'a'"),
        ([["a"], ["a", "b"], ["a"], []], ([0, 1], [2], [3]), "every text of train has 'a'"),
    ],
)
def test_labels_that_cannot_be_learned(values, splits, message):
    assert message in refusal(settled, values, *splits)


def test_a_level_that_a_split_never_reaches():
    data = source(c=["A", "B", "A", "B"], f=["x", "y", "none", "y"])
    tasks = encode_tasks(data, {"label": ["c", "f"], "undefined": "none"})
    splits = {"train": np.array([0, 1]), "validation": np.array([2]), "test": np.array([3])}
    message = refusal(settle_vocabulary, tasks[1], splits, data.where)
    assert message == "label 'f': is undefined on every text of validation"
