"""Tuning that is killed goes on at the last complete checkpoint, to the same weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from finetuning import write_toy
from interrupting import Stopped, kill_after, stop_after
from tiny_embedders import write_embedder
from tuning import run

# 30 triplets are 8 steps of 4 an epoch, the last of 2; a checkpoint after every step.
OPTIONS = {"checkpoint_minutes": 1e-9, "epochs": 2}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    data = write_toy(tmp_path_factory.mktemp("data"), classes=3, train=30)
    return data, write_embedder(tmp_path_factory.mktemp("embedder"))


@pytest.fixture(scope="module")
def undisturbed(inputs, tmp_path_factory):
    return run(*inputs, tmp_path_factory.mktemp("undisturbed"), **OPTIONS)


def what_it_is(folder: Path) -> tuple[bytes, dict]:
    """Weights and all that is said of them, outside timing fields."""
    said = json.loads((folder / "embedding.json").read_text())
    said["found"].pop("train_seconds")
    return (folder / "model.safetensors").read_bytes(), said


def test_killed_and_resumed_gives_the_same_weights(inputs, undisturbed, tmp_path, caplog):
    data, base = inputs
    kill_after(3, f"from tuning import run\nrun({data!r}, {base!r}, {tmp_path!r}, **{OPTIONS!r})")
    assert not (tmp_path / "embedding").exists()
    with caplog.at_level("INFO"):
        folder = run(data, base, tmp_path, **OPTIONS)
    assert "going on after step 3 of 16" in caplog.text
    assert what_it_is(folder) == what_it_is(undisturbed)


@pytest.mark.parametrize("seals", [8, 11])
def test_stopped_at_the_end_or_in_the_middle_of_an_epoch(
    inputs, undisturbed, tmp_path, monkeypatch, seals
):
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        stop_after(patch, seals)
        run(*inputs, tmp_path, **OPTIONS)
    assert what_it_is(run(*inputs, tmp_path, **OPTIONS)) == what_it_is(undisturbed)


def test_how_often_it_is_saved_changes_no_weight(inputs, undisturbed, tmp_path):
    folder = run(*inputs, tmp_path, epochs=2)
    assert what_it_is(folder)[0] == what_it_is(undisturbed)[0]


def test_results_that_are_deleted_come_back_without_training(inputs, undisturbed, tmp_path, caplog):
    shutil.rmtree(run(*inputs, tmp_path, keep_state=True, **OPTIONS))
    with caplog.at_level("INFO"):
        folder = run(*inputs, tmp_path, keep_state=True, **OPTIONS)
    assert "going on after step 16 of 16" in caplog.text
    assert what_it_is(folder) == what_it_is(undisturbed)
