"""Tuning that is killed goes on at the last complete checkpoint, to the same weights."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from finetuning import write_toy
from tiny_embedders import write_embedder
from tuning import run

from probeline.finetune.checkpoints import Checkpoints

KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from probeline.finetune.checkpoints import Checkpoints
from tuning import run
seal, count = Checkpoints.seal, []

def sealed(self, step, record):
    seal(self, step, record)
    count.append(step)
    if len(count) == 3:
        os.kill(os.getpid(), signal.SIGKILL)

Checkpoints.seal = sealed
run(Path({data!r}), Path({base!r}), Path({folder!r}), **{options!r})
"""
# 30 triplets are 8 steps of 4 an epoch, the last of 2; a checkpoint after every step.
OPTIONS = {"checkpoint_minutes": 1e-9, "epochs": 2}


class Stopped(Exception):
    pass


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
    values = {"data": str(data), "base": str(base), "folder": str(tmp_path), "options": OPTIONS}
    script = KILLED.format(tests=str(Path(__file__).parent), **values)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "embedding").exists()
    with caplog.at_level("INFO"):
        folder = run(data, base, tmp_path, **OPTIONS)
    assert "going on after step 3 of 16" in caplog.text
    assert what_it_is(folder) == what_it_is(undisturbed)


@pytest.mark.parametrize("seals", [8, 11])
def test_stopped_at_the_end_or_in_the_middle_of_an_epoch(
    inputs, undisturbed, tmp_path, monkeypatch, seals
):
    whole, count = Checkpoints.seal, []

    def seal(self, step, record):
        whole(self, step, record)
        count.append(step)
        if len(count) == seals:
            raise Stopped

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Checkpoints, "seal", seal)
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
