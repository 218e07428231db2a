"""Fine-tuning that is killed goes on at the last complete checkpoint, to the same weights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from finetuning import run, write_toy
from tiny_models import build

from probeline.finetune.checkpoints import Checkpoints

# 6 steps an epoch, checkpoints after 3, 6, 9, ...: in the middle and at the end of epochs. A step
# is two batches but for the last of an epoch, and the rows of batches differ in number.
OPTIONS = {
    "epochs": 3,
    "batch_size": 5,
    "gradient_accumulation": 2,
    "evaluations": 2,
    "warmup": 0.2,
}
KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from probeline.finetune.checkpoints import Checkpoints
from finetuning import run
from test_finetune_resume import OPTIONS
seal, count = Checkpoints.seal, []

def sealed(self, step, record):
    seal(self, step, record)
    count.append(step)
    if len(count) == 3:
        os.kill(os.getpid(), signal.SIGKILL)

Checkpoints.seal = sealed
run(Path({data!r}), Path({model!r}), Path({folder!r}), **OPTIONS)
"""


class Stopped(Exception):
    pass


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    data = write_toy(tmp_path_factory.mktemp("data"), classes=3)
    return data, build("bert", tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def undisturbed(inputs, tmp_path_factory):
    return run(*inputs, tmp_path_factory.mktemp("undisturbed"), **OPTIONS)


def what_it_is(model: Path) -> tuple[bytes, list[dict], dict]:
    """Weights, history and scores, outside timing fields."""
    training = json.loads((model / "training.json").read_text())
    scores = json.loads((model.parent / "scores.json").read_text())
    for key in ("seconds", "train_seconds", "texts_per_second"):
        scores.pop(key)
    return (model / "model.safetensors").read_bytes(), training["history"], scores


def stop_after(monkeypatch, seals: int):
    """Let the process be stopped right after so many checkpoints."""
    whole, count = Checkpoints.seal, []

    def seal(self, step, record):
        whole(self, step, record)
        count.append(step)
        if len(count) == seals:
            raise Stopped

    monkeypatch.setattr(Checkpoints, "seal", seal)


def test_killed_and_resumed_gives_the_same_weights(inputs, undisturbed, tmp_path):
    data, model = inputs
    values = {"data": str(data), "model": str(model), "folder": str(tmp_path)}
    script = KILLED.format(tests=str(Path(__file__).parent), **values)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "model").exists()
    assert [path.name for path in (tmp_path / "state").glob("checkpoint-9")]
    assert what_it_is(run(data, model, tmp_path, **OPTIONS)) == what_it_is(undisturbed)


@pytest.mark.parametrize("seals", [2, 5])
def test_stopped_at_the_end_or_in_the_middle_of_an_epoch(
    inputs, undisturbed, tmp_path, monkeypatch, seals
):
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        stop_after(patch, seals)
        run(*inputs, tmp_path, **OPTIONS)
    assert what_it_is(run(*inputs, tmp_path, **OPTIONS)) == what_it_is(undisturbed)


def test_a_half_written_checkpoint_is_skipped(inputs, undisturbed, tmp_path, monkeypatch, caplog):
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        stop_after(patch, 3)
        run(*inputs, tmp_path, **OPTIONS)
    last = tmp_path / "state/checkpoint-9"
    weights = last / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])
    with caplog.at_level("INFO"):
        model = run(*inputs, tmp_path, **OPTIONS)
    assert "checkpoint-9 is not complete; skipped" in caplog.text
    assert what_it_is(model) == what_it_is(undisturbed)


def test_a_state_about_other_settings_is_thrown_away(
    inputs, undisturbed, tmp_path, monkeypatch, caplog
):
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        stop_after(patch, 2)
        run(*inputs, tmp_path, **{**OPTIONS, "learning_rate": 1e-3})
    with caplog.at_level("INFO"):
        model = run(*inputs, tmp_path, **OPTIONS)
    assert "earlier partial training is about other options" in caplog.text
    assert "going on" not in caplog.text
    assert what_it_is(model) == what_it_is(undisturbed)


def test_killed_after_the_last_step_trains_no_more(
    inputs, undisturbed, tmp_path, monkeypatch, caplog
):
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr("probeline.finetune.stage.logits_of", _stopped)
        run(*inputs, tmp_path, **OPTIONS)
    with caplog.at_level("INFO"):
        model = run(*inputs, tmp_path, **OPTIONS)
    assert "going on after step 15 of 15" in caplog.text or "going on after step 18" in caplog.text
    assert what_it_is(model) == what_it_is(undisturbed)


def test_early_stopping_stops_and_stays_stopped(inputs, tmp_path, monkeypatch, caplog):
    # At such a learning rate nothing is learnt, so the first score stays the best.
    options = {**OPTIONS, "epochs": 10, "learning_rate": 1e-12, "early_stopping": 2}
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr("probeline.finetune.stage.logits_of", _stopped)
        run(*inputs, tmp_path, **options)
    with caplog.at_level("INFO"):
        run(*inputs, tmp_path, **options)
    scores = json.loads((tmp_path / "scores.json").read_text())
    # The first evaluation sets the mark; two more do not pass it.
    assert (scores["stopped_early"], scores["steps"]) == (True, 8)
    assert "validation loss" not in caplog.text


def _stopped(*_):
    raise Stopped
