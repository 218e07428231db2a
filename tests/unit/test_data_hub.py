"""The hub loader, on folders laid out like repositories of the hub: files and a card."""

from __future__ import annotations

import datasets
import numpy as np
import pytest
from datasets import ClassLabel, Features, List, Sequence, Value

from probeline.data.loaders import load_source
from probeline.data.store import build_dataset, read_dataset
from probeline.errors import ProbelineError

CARD = """---
configs:
- config_name: sst2
  data_files:
  - split: train
    path: sst2/train-*
  - split: validation
    path: sst2/validation-*
  - split: test
    path: sst2/test-*
---
# A card
"""
ROWS = {"train": 200, "validation": 20, "test": 10}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def glue(tmp_path):
    """GLUE's SST-2 in small: a ClassLabel, and a test split whose labels are withheld (-1)."""
    features = Features(
        {
            "sentence": Value("string"),
            "label": ClassLabel(names=["negative", "positive"]),
            "tags": Sequence(ClassLabel(names=["x", "y", "z"])),
            "more": List(ClassLabel(names=["u", "v"])),
            "idx": Value("int32"),
        }
    )
    folder = tmp_path / "glue"
    (folder / "sst2").mkdir(parents=True)
    for split, rows in ROWS.items():
        data = {
            "sentence": [f"{split} sentence {row}" for row in range(rows)],
            "label": [-1 if split == "test" else row % 2 for row in range(rows)],
            "tags": [[0, 1, 2][: row % 4] for row in range(rows)],
            "more": [[row % 2] for row in range(rows)],
            "idx": list(range(rows)),
        }
        made = datasets.Dataset.from_dict(data, features=features)
        made.to_parquet(folder / "sst2" / f"{split}-00000-of-00001.parquet")
    (folder / "README.md").write_text(CARD)
    return folder


def entry(folder, **keys):
    return {
        "loader": "hub",
        "path": str(folder),
        "config": "sst2",
        "text": "sentence",
        "splits": {"train": "train", "validation": 0.03, "test": "validation"},
        **keys,
    }


def test_the_papers_glue_split(glue, tmp_path):
    build_dataset("sst2", entry(glue, split_method="datasets"), tmp_path / "out", seed=42)
    stored = read_dataset(tmp_path / "out")
    official = datasets.load_dataset(str(glue), "sst2")
    cut = official["train"].train_test_split(test_size=0.03, seed=42)
    for split, theirs in (
        ("train", cut["train"]),
        ("validation", cut["test"]),
        ("test", official["validation"]),
    ):
        part = stored.split(split)
        assert stored.texts[part] == theirs["sentence"][:]
        assert stored.labels("label")[part].tolist() == theirs["label"][:]
    assert stored.tasks["label"]["labels"] == ["negative", "positive"]
    assert stored.offsets == {"train": (0, 194), "validation": (194, 200), "test": (200, 220)}


@pytest.mark.parametrize(("column", "names"), [("tags", ["x", "y", "z"]), ("more", ["u", "v"])])
def test_lists_of_class_labels(glue, tmp_path, column, names):
    build_dataset("tags", entry(glue, label=column), tmp_path / "out")
    stored = read_dataset(tmp_path / "out")
    assert stored.tasks["label"]["kind"] == "multi"
    assert stored.tasks["label"]["labels"] == names
    row = stored.texts.index("train sentence 6")
    expected = [1, 1, 0] if column == "tags" else [1, 0]
    assert stored.labels("label")[row].tolist() == expected
    assert stored.labels("label").dtype == np.uint8


def test_slices_of_a_split(glue):
    sources = load_source(entry(glue, splits={"train": "train[:25%]", "test": "train[190:]"}))
    assert [sources[split].rows for split in ("train", "test")] == [50, 10]
    assert sources["test"].texts["text"][0].as_py() == "train sentence 190"
    assert sources["test"].where(3) == f"{glue}[train[190:]]: row 4"


def test_a_card_with_files_of_other_kinds(tmp_path):
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "train.csv").write_text("text,label\na,0\nb,1\n")
    (tmp_path / "repo" / "test.csv").write_text("text,label\nc,1\n")
    spec = {"loader": "hub", "path": "repo", "splits": {"test": "test"}}
    source = load_source(spec | {"path": str(tmp_path / "repo")})["train"]
    assert source.labels["label"].to_pylist() == [0, 1]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"splits": {"train": "trian", "test": "test"}}, "split 'trian' could not be loaded"),
        ({"splits": {"train": "trian", "test": "test"}}, "should be one of"),
        ({"config": "cola"}, "'cola' not found. available: ['sst2']"),
        ({"text": "text"}, "[train]: has no column 'text'; it has: sentence, label"),
        ({"label": "lable"}, "has no column 'lable'; did you mean 'label'?"),
        ({"text": "idx"}, "column 'idx' holds int32; expected texts"),
    ],
)
def test_what_is_not_there(glue, keys, message):
    with pytest.raises(ProbelineError) as caught:
        load_source(entry(glue, **keys))
    assert message in str(caught.value).lower().replace("unknown", "unknown")
    assert "\n" not in str(caught.value)


def test_withheld_labels(glue, tmp_path):
    splits = {"train": "train", "validation": "validation", "test": "test"}
    with pytest.raises(ProbelineError, match=r"\[test\]: row 1: label -1 .* use another split"):
        build_dataset("sst2", entry(glue, splits=splits), tmp_path / "out")


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ProbelineError, match="nothing: no such folder"):
        load_source(entry(tmp_path / "nothing"))


def test_a_dataset_that_is_neither_cached_nor_reachable(monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        ProbelineError, match="no/such: split 'train' could not be loaded"
    ) as caught:
        load_source(entry("no/such"))
    assert "\n" not in str(caught.value)
