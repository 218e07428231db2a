"""Unfinished work on a node's own disk: where it lies, that it is taken up, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from tiny_datasets import write_texts
from tiny_models import SENTENCES, build

from probeline.activations.names import shard_names
from probeline.activations.shards import open_shard
from probeline.activations.state import State
from probeline.errors import ProbelineError
from probeline.models.reference import shape_of_folder
from probeline.workflow.extract import run_extract
from probeline.workflow.staging import state_folder

PLACE = ("extract", "notes", "tiny")


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """$TMPDIR on another file system than the results, where there is one."""
    memory = Path("/dev/shm")
    base = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="probeline-test-", dir=base))
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    yield folder
    shutil.rmtree(folder)


def test_beside_the_results_unless_asked_for(elsewhere):
    assert state_folder(None, *PLACE) == Path(".probeline/extract/notes/tiny")
    assert state_folder("results", *PLACE) == Path(".probeline/extract/notes/tiny")
    assert list(elsewhere.iterdir()) == []


def test_in_tmpdir_under_names_of_user_and_folder(elsewhere, tmp_path, monkeypatch):
    first = state_folder("tmpdir", *PLACE)
    own = elsewhere / f"probeline-{os.getuid()}"
    assert first.is_relative_to(own)
    assert first.parts[-3:] == PLACE
    assert own.stat().st_mode & 0o077 == 0
    assert state_folder("tmpdir", *PLACE) == first
    monkeypatch.chdir(tmp_path)
    assert state_folder("tmpdir", *PLACE) != first


def test_a_word_that_is_none(elsewhere):
    with pytest.raises(ProbelineError, match=r"`staging` 'tmp' is not .*did you mean 'tmpdir'"):
        state_folder("tmp", *PLACE)


@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_folder_that_may_be_somebody_elses(elsewhere, tmp_path, kind):
    own = elsewhere / f"probeline-{os.getuid()}"
    if kind == "link":
        own.symlink_to(tmp_path)
    else:
        own.touch()
    with pytest.raises(ProbelineError, match="set TMPDIR to a folder of your own"):
        state_folder("tmpdir", *PLACE)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a folder away")
def test_a_folder_of_another_user(elsewhere):
    own = elsewhere / f"probeline-{os.getuid()}"
    own.mkdir()
    os.chown(own, 12345, -1)
    with pytest.raises(ProbelineError, match="belongs to somebody else"):
        state_folder("tmpdir", *PLACE)


# Extraction


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """(dataset folder, model folder)"""
    texts = [f"{first} {second}" for first in SENTENCES for second in SENTENCES]
    model = build("bert", tmp_path_factory.mktemp("bert"))
    return write_texts(tmp_path_factory.mktemp("data"), texts), model


def extracted(inputs, staging: str | None) -> dict[str, bytes]:
    """Run the job in the working directory; bytes of the shards by name."""
    data, model = inputs
    names = shard_names(shape_of_folder(model, "model"), ["hidden"], ["max", "mean"])
    spec = {"path": str(model), "dtype": "float32", "device": "cpu", "batch_tokens": 64}
    options = {"storage_dtype": "float16", "block_texts": 8}
    settings = {"model": "tiny", "spec": spec, "options": options, "seed": 1}
    out = Path("results/activations/notes/tiny")
    run_extract(data, out, None, 1, names, settings, staging)
    for name in names:
        open_shard(out / name).__exit__()
    return {name: (out / name).read_bytes() for name in names}


class Killed(Exception):
    pass


def interrupted(inputs, monkeypatch, blocks: int) -> None:
    """A job that ends after some blocks, as one on a node that fails."""
    saved = State._save

    def save(self, start, *rest):
        if len(self.done) == blocks:
            raise Killed
        saved(self, start, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(State, "_save", save)
        with pytest.raises(Killed):
            extracted(inputs, "tmpdir")


def blocks_done(folder: Path) -> int:
    journals = list(folder.rglob("journal.jsonl"))
    return journals[0].read_bytes().count(b"\n") if journals else 0


def test_staged_shards_are_those_that_were_not(elsewhere, inputs):
    plain = extracted(inputs, None)
    shutil.rmtree("results")
    shutil.rmtree(".probeline")
    assert extracted(inputs, "tmpdir") == plain
    assert not list(Path(".probeline").rglob("*.h5"))
    # Nothing of a finished job stays on the node.
    assert [path for path in elsewhere.rglob("*") if path.is_file()] == []


def test_nothing_is_beside_the_results_before_all_is_done(elsewhere, inputs, monkeypatch):
    interrupted(inputs, monkeypatch, 3)
    assert not Path("results").exists()
    assert blocks_done(elsewhere) == 3


def test_on_the_same_node_it_goes_on(elsewhere, inputs, monkeypatch):
    plain = extracted(inputs, None)
    shutil.rmtree("results")
    interrupted(inputs, monkeypatch, 3)
    assert extracted(inputs, "tmpdir") == plain
    timing = Path("results/activations/notes/tiny/timing.json").read_text()
    assert '"resumed_blocks": 3' in timing


def test_on_another_node_it_begins_anew(elsewhere, inputs, monkeypatch):
    plain = extracted(inputs, None)
    shutil.rmtree("results")
    interrupted(inputs, monkeypatch, 3)
    # Its $TMPDIR knows nothing.
    shutil.rmtree(elsewhere / f"probeline-{os.getuid()}")
    assert extracted(inputs, "tmpdir") == plain
    timing = Path("results/activations/notes/tiny/timing.json").read_text()
    assert '"resumed_blocks": 0' in timing


# Results on another disk


def test_results_and_states_linked_to_one_disk_keep_shards_in_both(elsewhere, inputs):
    for name in ("results", ".probeline"):
        (elsewhere / name).mkdir()
        Path(name).symlink_to(elsewhere / name)
    plain = extracted(inputs, None)
    for name in plain:
        state = Path(".probeline/extract/notes/tiny/shards", name)
        assert state.samefile(Path("results/activations/notes/tiny", name))
    shutil.rmtree(elsewhere / "results" / "activations")
    assert extracted(inputs, None) == plain
    timing = json.loads(Path("results/activations/notes/tiny/timing.json").read_text())
    assert timing["batches"] == 0
