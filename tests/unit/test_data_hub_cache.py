"""Datasets of the hub, from a server on this machine, and without it from what was fetched."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from local_hub import COMMIT, Repo, local_hub

LATER = "b" * 40
CARD = b"""---
configs:
- config_name: sst2
  data_files:
  - split: train
    path: sst2/train-*
  - split: validation
    path: sst2/validation-*
dataset_info:
- config_name: sst2
  features:
  - name: sentence
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': negative
          '1': positive
---
"""
SPEC = {
    "loader": "hub",
    "path": "org/glue",
    "config": "sst2",
    "text": "sentence",
    "splits": {"train": "train", "validation": 0.1, "test": "validation"},
}
CODE = """
import json, sys
from probeline.data.loaders import fetch_dataset, load_source
from probeline.errors import ProbelineError
for spec in json.loads(sys.argv[1]):
    try:
        source = load_source(spec)["train"]
        found = {"text": source.texts["text"][0].as_py(), "revision": source.revision}
        found |= {"labels": source.declared["label"], "fetched": fetch_dataset(spec)}
    except ProbelineError as error:
        found = {"error": str(error)}
    print(json.dumps(found))
"""


def table(**columns) -> bytes:
    written = io.BytesIO()
    pq.write_table(pa.table(columns), written)
    return written.getvalue()


def repo(commit: str, word: str) -> Repo:
    """GLUE's SST-2 in small: Parquet files whose classes the card names."""
    files = {"README.md": CARD}
    for split, rows in (("train", 20), ("validation", 6)):
        texts = [f"{word} {split} {row}" for row in range(rows)]
        labels = pa.array([row % 2 for row in range(rows)], pa.int64())
        name = f"sst2/{split}-00000-of-00001.parquet"
        files[name] = table(sentence=texts, label=labels)
    return Repo(files, commit, "dataset")


def load(hub, cache, *changes: dict, offline: bool = False) -> list[dict]:
    """What a process of its own makes of the entries."""
    specs = [SPEC | change for change in changes]
    done = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(specs)],
        capture_output=True,
        text=True,
        env=hub.environment(cache, offline),
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def hub():
    with local_hub({"org/glue": repo(COMMIT, "first")}) as hub:
        yield hub


@pytest.fixture(scope="module")
def cache(hub, tmp_path_factory):
    """A cache that has seen two commits of the dataset; the later one is main."""
    folder = tmp_path_factory.mktemp("cache")
    first = {"text": "first train 0", "labels": ["negative", "positive"]}
    expected = first | {"revision": COMMIT, "fetched": COMMIT}
    assert load(hub, folder, {}) == [expected]
    hub.repos = {"org/glue": repo(LATER, "second")}
    later = first | {"text": "second train 0", "revision": LATER, "fetched": LATER}
    assert load(hub, folder, {}, {"revision": "main"}) == [later, later]
    return folder


def test_without_the_hub_the_rows_are_those_of_the_revision(hub, cache):
    asked = len(hub.asked)
    found = load(hub, cache, {}, {"revision": "main"}, {"revision": LATER}, offline=True)
    assert [(one["text"], one["revision"]) for one in found] == [("second train 0", LATER)] * 3
    # The library alone would take the newest copy here too.
    (pinned,) = load(hub, cache, {"revision": COMMIT}, offline=True)
    assert (pinned["text"], pinned["revision"]) == ("first train 0", COMMIT)
    assert pinned["labels"] == ["negative", "positive"]
    assert len(hub.asked) == asked


def test_what_the_cache_does_not_have_is_named(hub, cache):
    changes = [
        {"revision": "c" * 40},
        {"path": "org/other"},
        {"config": "cola"},
        {"splits": {"train": "trian", "test": "validation"}},
    ]
    errors = [one["error"] for one in load(hub, cache, *changes, offline=True)]
    assert all("\n" not in error for error in errors)
    assert "the cache holds commit bbbbbbb, not ccccccc" in errors[0]
    assert "org/other: split 'train' could not be loaded from the hub" in errors[1]
    assert all("run `probeline fetch` where there is a network" in error for error in errors[:2])
    assert "cola" in errors[2] and "['sst2']" in errors[2]
    assert "trian" in errors[3]


def test_a_loading_script_is_refused(hub, tmp_path):
    hub.repos = {"org/script": Repo({"README.md": b"", "script.py": b"raise"}, kind="dataset")}
    (found,) = load(hub, tmp_path, {"path": "org/script", "config": None})
    assert "scripts are no longer supported" in found["error"]
