"""Extractions that compute several batches at a time: the same shards, whatever the disk does."""

from __future__ import annotations

import json
import threading
import time

import pytest
import torch
from tiny_datasets import write_texts
from tiny_models import SENTENCES, build
from torch.nn.modules.module import register_module_forward_pre_hook

from probeline.activations.extract import extract
from probeline.activations.shards import open_shard
from probeline.activations.state import State
from probeline.errors import ProbelineError
from probeline.files import read_json

TEXTS = [f"{first} {second}" for first in SENTENCES for second in SENTENCES][:64]
BLOCKS = len(TEXTS) // 8
OPTIONS = {
    "representations": ["ffn", "hidden"],
    "poolings": ["first", "max", "mean"],
    "storage_dtype": "float16",
    "block_texts": 8,
}
LONG = 60  # seconds that no test takes but one that fails


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """(dataset folder, model spec); every block has several batches."""
    folder = build("bert", tmp_path_factory.mktemp("bert"))
    data = write_texts(tmp_path_factory.mktemp("data"), TEXTS)
    spec = {"path": str(folder), "dtype": "float32", "device": "cpu"}
    return data, spec | {"max_length": 16, "batch_tokens": 16}


@pytest.fixture
def on():
    """Set torch's threads for the rest of the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def shards(inputs, folder) -> dict[str, bytes]:
    data, spec = inputs
    extract(data, "tiny", spec, OPTIONS, folder / "out", folder / "state", 0)
    found = {}
    for path in sorted((folder / "out").glob("*.h5")):
        with open_shard(path) as shard:
            found[path.name] = shard.read().tobytes()
    return found


@pytest.fixture
def one_by_one(inputs, tmp_path, on) -> dict[str, bytes]:
    on(1)
    found = shards(inputs, tmp_path / "one-by-one")
    on(2)
    return found


def slowed(monkeypatch, before) -> None:
    """Call `before(entry)` in the thread that writes, before it reads what it shall write."""
    save = State._save

    def slow(self, start, blocks, lengths, entry):
        before(entry)
        save(self, start, blocks, lengths, entry)

    monkeypatch.setattr(State, "_save", slow)


def test_a_slow_disk_gets_what_was_computed(inputs, tmp_path, one_by_one, monkeypatch):
    slowed(monkeypatch, lambda entry: time.sleep(0.2))
    assert shards(inputs, tmp_path) == one_by_one
    timing = read_json(tmp_path / "out" / "timing.json")
    assert timing["threads"] == 2 and timing["batches"] >= 2 * BLOCKS


def test_stopped_and_taken_up_again(inputs, tmp_path, one_by_one, monkeypatch):
    def full(entry) -> None:
        if entry["block"] == 3:
            raise ProbelineError("the disk is full")

    with monkeypatch.context() as broken:
        slowed(broken, full)
        with pytest.raises(ProbelineError, match="the disk is full"):
            shards(inputs, tmp_path)
    assert len((tmp_path / "state" / "journal.jsonl").read_text().splitlines()) == 3
    assert shards(inputs, tmp_path) == one_by_one
    assert read_json(tmp_path / "out" / "timing.json")["resumed_blocks"] == 3


def test_on_one_thread_a_block_is_written_while_the_next_is_computed(
    inputs, tmp_path, on, monkeypatch
):
    on(1)
    written, computed = [], [threading.Event() for _ in range(BLOCKS)]

    def until_the_next_is_computed(entry) -> None:
        following = entry["block"] + 1
        if following < BLOCKS:
            assert computed[following].wait(LONG)
        written.append(entry["block"])

    def pass_begins(module, inputs) -> None:
        if type(module).__name__ == "BertModel":
            seen[0] += 1
            for number, event in enumerate(computed):
                if seen[0] > first_pass[number]:
                    event.set()

    seen = [0]
    data, spec = inputs
    # Passes before each block, of an undisturbed extraction.
    extract(data, "tiny", spec, OPTIONS, tmp_path / "a", tmp_path / "a.state", 0, keep_state=True)
    first_pass = [0]
    for line in (tmp_path / "a.state" / "journal.jsonl").read_text().splitlines():
        first_pass.append(first_pass[-1] + json.loads(line)["batches"])
    slowed(monkeypatch, until_the_next_is_computed)
    handle = register_module_forward_pre_hook(pass_begins)
    try:
        shards(inputs, tmp_path / "b")
    finally:
        handle.remove()
    assert written == list(range(BLOCKS))
