"""The whole stage: what is stored, what is refused, that it is the same every time."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from probeline.data.store import build_dataset, read_dataset
from probeline.errors import ProbelineError

MADE = {"validation": 0.2, "test": 0.2}
GIVEN = {"train": "train.json", "validation": "validation.json", "test": "test.json"}


def write(folder: Path, **splits: list[dict]) -> Path:
    folder.mkdir(exist_ok=True)
    for split, rows in splits.items():
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.json").write_text(lines, encoding="utf-8")
    return folder


def some(count: int, start: int = 0, labels: str = "ab") -> list[dict]:
    return [
        {"text": f"text {row}", "label": labels[row % len(labels)]}
        for row in range(start, start + count)
    ]


def build(folder: Path, splits=GIVEN, name="d", **keys) -> dict:
    path = "." if splits.get("train") else "train.json"
    spec = {"loader": "json", "path": path, "splits": splits, **keys}
    return build_dataset(name, spec, folder / "out", str(folder), 42)


def refused(*args, **keys) -> str:
    with pytest.raises(ProbelineError) as caught:
        build(*args, **keys)
    message = str(caught.value)
    assert message.startswith("datasets.d: ") and "\n" not in message
    assert not (args[0] / "out" / "dataset.json").exists()
    return message


def test_rows_are_train_then_validation_then_test(tmp_path):
    write(tmp_path, train=some(4), validation=some(2, 10), test=some(3, 20))
    manifest = build(tmp_path)
    data = read_dataset(tmp_path / "out")
    numbers = [0, 1, 2, 3, 10, 11, 20, 21, 22]
    assert data.texts == [f"text {number}" for number in numbers]
    assert data.labels("label").tolist() == [number % 2 for number in numbers]
    assert data.labels("label").dtype == np.int64
    assert data.offsets == {"train": (0, 4), "validation": (4, 6), "test": (6, 9)}
    assert data.texts[data.split("test")] == ["text 20", "text 21", "text 22"]
    assert (data.name, data.rows, data.pairs) == ("d", 9, None)
    assert data.defined("label").all()
    assert manifest == json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert manifest["tasks"]["label"] == {
        "kind": "single",
        "labels": ["a", "b"],
        "counts": {"train": [2, 2], "validation": [1, 1], "test": [2, 1]},
        "defined": {"train": 4, "validation": 2, "test": 3},
        "unused": [],
    }
    texts = pq.read_table(tmp_path / "out" / "texts.parquet")
    assert texts["split"].to_pylist() == ["train"] * 4 + ["validation"] * 2 + ["test"] * 3
    assert pq.read_schema(tmp_path / "out" / "labels.parquet").field("label").type == "int32"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "dataset.json",
        "labels.parquet",
        "texts.json",
        "texts.parquet",
    ]


def test_texts_can_be_left_unread(tmp_path):
    write(tmp_path, train=some(4), validation=some(2), test=some(2))
    build(tmp_path)
    data = read_dataset(tmp_path / "out", texts=False)
    assert data.texts is None and data.labels("label").tolist() == [0, 1] * 4


def test_pairs(tmp_path):
    rows = [{"p": f"p{row}", "h": f"h{row}" if row else "", "label": row % 2} for row in range(10)]
    write(tmp_path, train=rows, validation=rows[:2], test=rows[:2])
    assert build(tmp_path, text=["p", "h"])["pair"]
    data = read_dataset(tmp_path / "out")
    assert data.texts[:3] == ["p0", "p1", "p2"] and data.pairs[:3] == ["", "h1", "h2"]


def test_several_labels(tmp_path):
    rows = [{"text": f"t{row}", "label": ["a", "b", "c"][: row % 3]} for row in range(9)]
    write(tmp_path, train=rows, validation=rows[:2], test=rows[:3])
    build(tmp_path)
    data = read_dataset(tmp_path / "out")
    assert data.tasks["label"]["kind"] == "multi" and data.tasks["label"]["labels"] == ["a", "b"]
    assert data.labels("label").dtype == np.uint8
    assert data.labels("label")[:3].tolist() == [[0, 0], [1, 0], [1, 1]]
    assert data.defined("label").tolist() == [True] * 14
    stored = pq.read_table(tmp_path / "out" / "labels.parquet")["label"]
    assert stored.to_pylist()[:3] == [[], [0], [0, 1]]


def test_a_hierarchy(tmp_path):
    kinds = [("A", "a1"), ("A", "a2"), ("B", "none"), ("none", "none")]
    rows = [
        {"text": f"t{row}", "top": kinds[row % 4][0], "leaf": kinds[row % 4][1]}
        for row in range(80)
    ]
    write(tmp_path, train=rows)
    manifest = build(tmp_path, MADE, label=["top", "leaf"], undefined="none")
    data = read_dataset(tmp_path / "out")
    assert manifest["hierarchy"] == ["top", "leaf"] == list(data.tasks)
    assert data.tasks["leaf"]["parents"] == {"a1": "A", "a2": "A"}
    assert data.tasks["leaf"]["defined"] == {"train": 24, "validation": 8, "test": 8}
    assert data.tasks["top"]["counts"]["test"] == [8, 4]
    number = np.array([int(text[1:]) for text in data.texts])
    assert data.labels("leaf").tolist() == np.array([0, 1, -1, -1])[number % 4].tolist()
    assert data.defined("top").tolist() == (number % 4 != 3).tolist()


def test_splits_are_cut_from_train_beside_given_ones(tmp_path):
    write(tmp_path, train=some(100), test=some(10, 500))
    build(tmp_path, {"train": "train.json", "validation": 0.1, "test": "test.json"})
    data = read_dataset(tmp_path / "out")
    assert data.offsets == {"train": (0, 90), "validation": (90, 100), "test": (100, 110)}
    assert data.texts[100:] == [f"text {row}" for row in range(500, 510)]
    assert sorted(data.texts[:100]) == sorted(f"text {row}" for row in range(100))
    assert data.tasks["label"]["counts"]["validation"] == [5, 5]


def test_the_papers_imdb_split(tmp_path):
    import datasets

    write(tmp_path, train=some(500), test=some(50, 900))
    splits = {"train": "train.json", "validation": 0.2, "test": "test.json"}
    build(tmp_path, splits, split_method="datasets")
    theirs = datasets.Dataset.from_list(some(500)).train_test_split(test_size=0.2, seed=42)
    data = read_dataset(tmp_path / "out")
    assert data.texts[data.split("train")] == theirs["train"]["text"][:]
    assert data.texts[data.split("validation")] == theirs["test"]["text"][:]


def test_split_seed_goes_before_the_global_seed(tmp_path):
    write(tmp_path, train=some(100))
    spec = {"loader": "json", "path": "train.json", "splits": MADE}
    made = [
        build_dataset("d", spec | own, tmp_path / "out", str(tmp_path), seed)["fingerprint"]
        for own, seed in [({}, 1), ({"split_seed": 1}, 2), ({"split_seed": None}, 2)]
    ]
    assert made[0] == made[1] != made[2]


# --- copies, empty texts, limits


def copied() -> list[dict]:
    return [{"text": f"text {row % 60}", "label": "ab"[row % 60 % 2]} for row in range(100)]


@pytest.mark.parametrize("method", ["stratified", "random"])
def test_copies_stand_in_one_split(tmp_path, method):
    write(tmp_path, train=copied())
    manifest = build(tmp_path, MADE, split_method=method)
    data = read_dataset(tmp_path / "out")
    parts = [set(data.texts[data.split(split)]) for split in data.offsets]
    assert sum(map(len, parts)) == 60 and data.rows == 100
    assert manifest["duplicates"] == {"policy": "same-split", "copies": 40, "dropped": {"train": 0}}


def test_copies_may_be_kept_anywhere(tmp_path):
    write(tmp_path, train=copied())
    assert build(tmp_path, MADE, duplicates="keep")["rows"] == 100
    data = read_dataset(tmp_path / "out")
    assert sum(len(set(data.texts[data.split(split)])) for split in data.offsets) > 60


def test_given_splits_stay_as_they_are(tmp_path):
    write(tmp_path, train=copied(), validation=some(3), test=some(3))
    assert build(tmp_path)["rows"] == 106


def test_dropped_copies_stay_where_scores_are_taken(tmp_path):
    write(tmp_path, train=some(10), validation=some(4, 8), test=some(3, 11) + some(1, 13))
    manifest = build(tmp_path, duplicates="drop")
    data = read_dataset(tmp_path / "out")
    assert data.texts[data.split("train")] == [f"text {row}" for row in range(8)]
    assert data.texts[data.split("validation")] == ["text 8", "text 9", "text 10"]
    assert data.texts[data.split("test")] == ["text 11", "text 12", "text 13"]
    assert manifest["duplicates"]["dropped"] == {"train": 2, "validation": 1, "test": 1}


def test_dropped_copies_before_a_cut(tmp_path):
    write(tmp_path, train=copied())
    manifest = build(tmp_path, MADE, duplicates="drop")
    data = read_dataset(tmp_path / "out")
    assert len(set(data.texts)) == data.rows == 60
    assert manifest["offsets"]["test"] == [48, 60]


def test_empty_texts(tmp_path):
    train = [*some(4), {"text": " \n\u00a0", "label": "a"}, {"text": "", "label": None}, *some(2)]
    write(tmp_path, train=train, validation=some(2), test=some(2))
    message = refused(tmp_path)
    assert "train.json: row 5: an empty text (and 1 more in train)" in message
    assert "empty: drop" in message
    manifest = build(tmp_path, empty="drop")
    assert manifest["empty"] == {
        "policy": "drop",
        "dropped": {"train": 2, "validation": 0, "test": 0},
    }
    # Rows are still named by where they stand in the file.
    train.append({"text": "t", "label": None})
    write(tmp_path, train=train)
    (tmp_path / "out" / "dataset.json").unlink()
    assert "train.json: row 9: no label" in refused(tmp_path, empty="drop")
    write(tmp_path, train=[{"text": "", "label": "a"}])
    assert "every text of train is empty" in refused(tmp_path, empty="drop")


def test_a_pair_is_empty_when_both_texts_are(tmp_path):
    rows = [{"p": "p", "h": "", "label": "a"}, {"p": "", "h": "h", "label": "b"}]
    write(tmp_path, train=rows, validation=rows, test=rows)
    assert build(tmp_path, text=["p", "h"])["rows"] == 6
    (tmp_path / "out" / "dataset.json").unlink()
    write(tmp_path, test=[*rows, {"p": " ", "h": "", "label": "b"}])
    assert "test.json: row 3: an empty text;" in refused(tmp_path, text=["p", "h"])
    write(tmp_path, test=[{"p": "p", "h": None, "label": "a"}])
    assert "row 1: no text (null) in 'h'" in refused(tmp_path, text=["p", "h"])


def test_limits(tmp_path):
    write(tmp_path, train=some(300, labels="aaab"), test=some(100, 900, labels="aaab"))
    splits = {"train": "train.json", "validation": 0.2, "test": "test.json"}
    counts = build(tmp_path, splits, max_texts=40)["tasks"]["label"]["counts"]
    assert counts == {"train": [30, 10], "validation": [30, 10], "test": [30, 10]}
    manifest = build(tmp_path, splits, max_texts={"train": 8})
    assert manifest["offsets"] == {"train": [0, 8], "validation": [8, 68], "test": [68, 168]}
    data = read_dataset(tmp_path / "out")
    numbers = [int(text.split()[1]) for text in data.texts]
    assert numbers[:8] == sorted(numbers[:8]) and numbers[68:] == list(range(900, 1000))
    (tmp_path / "out" / "dataset.json").unlink()
    message = refused(tmp_path, splits, max_texts=1)
    assert "max_texts: 1 texts of train cannot hold all 2 classes" in message


# --- bad input


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"label": ["label", "fine"]}, "train.json: has no column 'fine'"),
        ({"path": "nothing.json"}, "nothing.json: no such file or folder"),
        ({"loader": "xml"}, "loader: 'xml' is not one of hub, csv, tsv, json, parquet, folder"),
        ({"splits": {"train": "train.json", "test": 0.2}}, "splits.validation: missing; expected"),
        ({"splits": {**GIVEN, "validation": 1.5}}, "splits.validation: 1.5; expected the name"),
        ({"splits": {**GIVEN, "validation": True}}, "splits.validation: True; expected the name"),
        ({"splits": {**GIVEN, "test": "tset.json"}}, "did you mean 'test.json'?"),
        ({"splits": {**GIVEN, "test": "train.json"}}, "splits.train and splits.test both name"),
        ({"splits": {**GIVEN, "validation": 0.6, "test": 0.4}}, "of 8 texts leave none for train"),
        ({"text": "txt"}, "train.json: has no column 'txt'; did you mean 'text'?"),
        ({"empty": "skip"}, "empty: 'skip' is not one of error, drop"),
        ({"duplicates": "remove"}, "duplicates: 'remove' is not one of same-split, keep, drop"),
        ({"split_method": "iid"}, "split_method: 'iid' is not one of"),
    ],
)
def test_bad_entries(tmp_path, keys, message):
    write(tmp_path, train=some(8), validation=some(2), test=some(2))
    assert message in refused(tmp_path, **keys)


@pytest.mark.parametrize(
    ("splits", "rows", "message"),
    [
        (GIVEN, {"train": [], "validation": some(2), "test": some(2)}, "train.json: is empty"),
        (GIVEN, {"train": some(4), "validation": [], "test": some(2)}, "validation.json: is empty"),
        (
            GIVEN,
            {"train": some(4), "validation": some(2), "test": [*some(2), *some(1, labels="c")]},
            "test.json: row 3: label 'c' of 'label' stands in test but not in train",
        ),
        (
            GIVEN,
            {"train": some(4, labels="a"), "validation": some(2, labels="ab"), "test": some(2)},
            "validation.json: row 2: label 'b' of 'label' stands in validation but not in train",
        ),
        (MADE, {"train": some(9, labels="a")}, "label 'label': the data have only 'a'"),
        (
            MADE,
            {"train": [*some(20), *some(2, 50, labels="c")]},
            "label 'c': 2 distinct texts, fewer than the 3 splits to be made",
        ),
        (
            MADE,
            {"train": [*some(8), {"text": "t", "label": None}]},
            "train.json: row 9: no label in 'label' (empty or null)",
        ),
        (
            MADE,
            {"train": [*some(8), {"text": "t", "label": 7}]},
            "train.json: row 9: 'label' holds a whole number, row 1 a text",
        ),
        (
            MADE,
            {"train": [{"text": "t", "label": ["a"]}, {"text": "t", "label": ["a", 1]}]},
            "train.json: row 2: the list of 'label' holds a whole number, row 1 a text",
        ),
    ],
)
def test_bad_rows(tmp_path, splits, rows, message):
    write(tmp_path, **rows)
    assert message in refused(tmp_path, splits)


def test_a_failed_build_leaves_the_old_artifact(tmp_path):
    write(tmp_path, train=some(8), validation=some(2), test=some(2))
    first = build(tmp_path)
    write(tmp_path, train=some(8, labels="a"))
    with pytest.raises(ProbelineError):
        build(tmp_path)
    assert read_dataset(tmp_path / "out").fingerprint == first["fingerprint"]


# --- reading


def test_incomplete_artifacts_are_refused(tmp_path):
    def reason() -> str:
        with pytest.raises(ProbelineError) as caught:
            read_dataset(tmp_path / "out")
        return str(caught.value)

    assert "out: no dataset here (dataset.json is missing)" in reason()
    write(tmp_path, train=some(8), validation=some(2), test=some(2))
    build(tmp_path)
    out = tmp_path / "out"
    kept = {path.name: path.read_bytes() for path in out.iterdir()}

    def restored(name: str, content: bytes) -> str:
        (out / name).write_bytes(content)
        message = reason()
        (out / name).write_bytes(kept[name])
        return message

    manifest = json.loads(kept["dataset.json"])
    assert "not a complete JSON file" in restored("dataset.json", kept["dataset.json"][:50])
    for change, expected in (
        ({"format": 0}, "of format 0, expected 1"),
        ({"rows": 5}, "5 rows, and the splits end at 12"),
        ({"fingerprint": "0"}, "texts.parquet: of another build than dataset.json"),
        ({"labels_fingerprint": "0"}, "labels.parquet: of another build than dataset.json"),
    ):
        assert expected in restored("dataset.json", json.dumps(manifest | change).encode())
    del manifest["offsets"]
    assert "has no 'offsets'" in restored("dataset.json", json.dumps(manifest).encode())
    assert "of format None, expected 1" in restored("dataset.json", b"[]")
    assert "texts.parquet: cannot be read" in restored("texts.parquet", kept["texts.parquet"][:99])
    (out / "labels.parquet").unlink()
    assert "labels.parquet: cannot be read" in reason()


def test_unknown_tasks_and_splits(tmp_path):
    write(tmp_path, train=some(8), validation=some(2), test=some(2))
    build(tmp_path)
    data = read_dataset(tmp_path / "out")
    with pytest.raises(ProbelineError, match="task 'lable' is not one of label; did you mean"):
        data.labels("lable")
    with pytest.raises(ProbelineError, match="split 'valid' is not one of train, validation, test"):
        data.split("valid")


# --- the same every time


def test_the_fingerprint_follows_texts_and_splits_only(tmp_path):
    write(tmp_path, train=some(8), validation=some(2), test=some(2))
    first = build(tmp_path)
    renamed = build(tmp_path, name="other")
    assert renamed["fingerprint"] == first["fingerprint"]
    write(tmp_path, test=[{**row, "label": "a"} for row in some(2)])
    labels = build(tmp_path)
    assert labels["fingerprint"] == first["fingerprint"]
    assert labels["labels_fingerprint"] != first["labels_fingerprint"]
    write(tmp_path, test=some(2, 1))
    text = build(tmp_path)
    write(tmp_path, validation=some(1), test=[*some(1, 1), *some(1, 1)])
    moved = build(tmp_path)
    prints = [first["fingerprint"], text["fingerprint"], moved["fingerprint"]]
    assert len(set(prints)) == 3 and all(len(p) == 64 for p in prints)


BUILD = """
import sys
from probeline.data.store import build_dataset
spec = {"loader": "folder", "path": sys.argv[1], "splits": {"validation": 0.25, "test": 0.25}}
build_dataset("d", spec, sys.argv[2], None, 7)
print(sorted({"torch", "transformers", "datasets", "sklearn"} & set(sys.modules)))
"""
READ = """
import sys
from probeline.data.store import read_dataset
data = read_dataset(sys.argv[1])
assert data.rows == len(data.labels("label")) == len(data.texts)
loaded = {name.partition(".")[0] for name in sys.modules}
print(sorted({"torch", "datasets", "sklearn", "scipy", "pandas", "pydantic"} & loaded))
"""


@pytest.mark.parametrize("label", [["a"], "a"])
def test_readers_import_no_more_than_they_use(tmp_path, label):
    rows = [*some(3), {"text": "t", "label": "a"}, {"text": "t", "label": "b"}]
    if isinstance(label, list):
        rows = [{**row, "label": [row["label"]]} for row in rows]
    write(tmp_path, train=rows, validation=rows, test=rows)
    build(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_neither_hash_seed_nor_listing_order_matters(tmp_path, monkeypatch):
    for label in "cab":
        (tmp_path / "texts" / label).mkdir(parents=True)
        for number in range(8):
            (tmp_path / "texts" / label / f"{number}.txt").write_text(f"{label} {number // 2}")
    prints = []
    for seed in ("0", "1"):
        out = tmp_path / f"out{seed}"
        done = subprocess.run(
            [sys.executable, "-c", BUILD, str(tmp_path / "texts"), str(out)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == "[]"
        prints.append(_contents(out))
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda *a: iter(list(scandir(*a))[::-1]))
    spec = {
        "loader": "folder",
        "path": str(tmp_path / "texts"),
        "splits": {"validation": 0.25, "test": 0.25},
    }
    build_dataset("d", spec, tmp_path / "out2", None, 7)
    monkeypatch.undo()
    prints.append(_contents(tmp_path / "out2"))
    assert prints[0] == prints[1] == prints[2]


def _contents(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}
