"""What decides a dataset's texts, and that other names of the labels draw the same rows."""

from __future__ import annotations

import json

import pytest

from probeline.data.selection import is_drawn, merged, selection
from probeline.data.store import build_dataset, read_dataset, read_texts
from probeline.errors import ProbelineError

WORDS = ("bread", "cheese", "goal", "match", "rain", "storm")


def params(**changes) -> dict:
    spec = {
        "path": "notes.csv",
        "label": "label",
        "label_names": None,
        "undefined": None,
        "splits": {"train": "a.csv", "validation": "b.csv", "test": "c.csv"},
        "split_method": "stratified",
        "max_texts": None,
    }
    return {"spec": spec | changes, "seed": 1, "source": None, "version": 1}


MADE = {"splits": {"train": None, "validation": 0.2, "test": 0.2}}
RELABELLED = {"label": ["coarse", "fine"], "label_names": ["a", "b"], "undefined": "none"}


@pytest.mark.parametrize(
    "drawing", [{}, MADE | {"split_method": "random"}, MADE | {"split_method": "datasets"}]
)
def test_labels_decide_nothing_where_no_draw_goes_by_them(drawing):
    assert selection(params(**drawing)) == selection(params(**drawing, **RELABELLED))


@pytest.mark.parametrize("drawing", [MADE, {"max_texts": 50}])
def test_a_stratified_draw_goes_by_the_column_but_not_by_its_names(drawing):
    plain = selection(params(**drawing))
    assert plain == selection(params(**drawing, label_names=["b", "a"]))
    assert plain == selection(params(**drawing, label_names={"0": "no", "1": "yes"}))
    assert plain != selection(params(**drawing, label_names={"0": "no", "1": "no", "2": "yes"}))
    assert plain != selection(params(**drawing, label="other"))
    assert plain != selection(params(**drawing, undefined="none"))


def test_everything_else_stays():
    assert selection(params()) != selection(params(path="other.csv"))
    assert selection(params()) != selection(params() | {"seed": 2})
    assert selection(params()) != selection(params() | {"version": 2})
    assert not is_drawn(params()["spec"]) and is_drawn(params(**MADE)["spec"])


def test_merged_values_by_column():
    names = {"coarse": {"a": "x", "b": "x", "c": "y"}, "fine": {"d": "z"}, "third": ["p", "q"]}
    assert merged(names) == {"coarse": [["a", "b"]]}
    assert merged({2: "x", 1: "x", 3: "y"}) == [["1", "2"]]
    # Names that merge nothing say no more than none at all.
    assert merged({"coarse": {"a": "x"}, "fine": ["p"]}) == merged(["p"]) == merged(None) == []


def write_json_lines(path, label_of) -> None:
    """Write 90 texts, three unequal classes, in an order that mixes them."""
    with path.open("w", encoding="utf-8") as handle:
        for row in range(90):
            label = label_of(("c", "a", "c", "b", "c", "a")[row % 6], row)
            text = f"{WORDS[row % 6]} number {row}"
            handle.write(json.dumps({"text": text, "label": label}) + "\n")


def single(label, row):
    return label


def several(label, row):
    return [label, "late"] if row % 5 == 0 else [label] if row % 7 else []


@pytest.mark.parametrize("label_of", [single, several])
@pytest.mark.parametrize("drawing", [{}, {"max_texts": {"train": 20, "test": 9}}])
def test_other_names_draw_the_same_rows(tmp_path, label_of, drawing):
    write_json_lines(tmp_path / "notes.jsonl", label_of)
    spec = {
        "loader": "json",
        "path": str(tmp_path / "notes.jsonl"),
        "splits": {"validation": 0.2, "test": 0.2},
        **drawing,
    }
    names = {"a": "zebra", "b": "yak", "c": "ant", "late": "mouse"}
    plain = build_dataset("notes", spec, tmp_path / "plain", seed=3)
    named = build_dataset("notes", spec | {"label_names": names}, tmp_path / "named", seed=3)
    assert plain["fingerprint"] == named["fingerprint"]
    assert plain["labels_fingerprint"] != named["labels_fingerprint"]
    for name in ("texts.parquet", "texts.json"):
        one, other = ((tmp_path / way / name).read_bytes() for way in ("plain", "named"))
        assert one == other


def test_texts_open_without_labels(tmp_path):
    write_json_lines(tmp_path / "notes.jsonl", single)
    spec = {
        "loader": "json",
        "path": str(tmp_path / "notes.jsonl"),
        "splits": {"validation": 0.2, "test": 0.2},
    }
    build_dataset("notes", spec, tmp_path / "out")
    dataset = read_dataset(tmp_path / "out", texts=False)
    (tmp_path / "out" / "labels.parquet").unlink()
    (tmp_path / "out" / "dataset.json").unlink()
    texts = read_texts(tmp_path / "out")
    assert (texts.fingerprint, texts.offsets) == (dataset.fingerprint, dataset.offsets)
    assert (texts.rows, texts.pair) == (90, False)
    (tmp_path / "out" / "texts.json").unlink()
    with pytest.raises(ProbelineError, match=r"no dataset here \(texts.json is missing\)"):
        read_texts(tmp_path / "out")
