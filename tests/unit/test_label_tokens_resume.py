"""A killed training with labels as tokens goes on to the same weights."""

from __future__ import annotations

import filecmp
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from finetuning import run, write_multilabel, write_toy
from test_finetune_resume import OPTIONS, what_it_is
from tiny_models import build

from probeline.label_tokens.kind import read_kind

SECTION = {"initialization": "random", "thresholds": "per-label", "dropout": 0.3}
KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from probeline.finetune.checkpoints import Checkpoints
from probeline.label_tokens.kind import read_kind
from finetuning import run
from test_label_tokens_resume import OPTIONS, SECTION
seal, count = Checkpoints.seal, []

def sealed(self, step, record):
    seal(self, step, record)
    count.append(step)
    if len(count) == 2:
        os.kill(os.getpid(), signal.SIGKILL)

Checkpoints.seal = sealed
kind = read_kind(SECTION)
run(Path({data!r}), Path({model!r}), Path({folder!r}), kind=kind, **OPTIONS)
"""


@pytest.mark.parametrize("write", [write_toy, write_multilabel])
def test_killed_and_resumed_gives_the_same_weights(write, tmp_path):
    data, model = write(tmp_path / "data", train=43), build("bert", tmp_path / "bert")
    folder, kind = tmp_path / "killed", read_kind(SECTION)
    values = {"data": str(data), "model": str(model), "folder": str(folder)}
    script = KILLED.format(tests=str(Path(__file__).parent), **values)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (folder / "model").exists()
    assert (folder / "state/checkpoint-5/record.json").exists()
    resumed = run(data, model, folder, kind=kind, **OPTIONS)
    undisturbed = run(data, model, tmp_path / "undisturbed", kind=kind, **OPTIONS)
    assert what_it_is(resumed) == what_it_is(undisturbed)


def test_killed_after_the_last_step_gives_the_same_folder(tmp_path, monkeypatch):
    data, model = write_toy(tmp_path / "data"), build("bert", tmp_path / "bert")
    folder, kind = tmp_path / "killed", read_kind(SECTION)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("probeline.finetune.stage.logits_of", _stopped)
        run(data, model, folder, kind=kind, epochs=1)
    resumed = run(data, model, folder, kind=kind, epochs=1)
    undisturbed = run(data, model, tmp_path / "undisturbed", kind=kind, epochs=1)
    names = {path.name for path in undisturbed.iterdir()} - {"training.json"}
    same, other, missing = filecmp.cmpfiles(resumed, undisturbed, names, shallow=False)
    assert (set(same), other, missing) == (names, [], [])


def test_a_state_of_the_other_kind_is_thrown_away(tmp_path, monkeypatch, caplog):
    data, model = write_toy(tmp_path / "data"), build("bert", tmp_path / "bert")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("probeline.finetune.stage.logits_of", _stopped)
        run(data, model, tmp_path, epochs=1)
    with caplog.at_level("INFO"):
        run(data, model, tmp_path, kind=read_kind({}), epochs=1)
    assert "earlier partial training is about other label_tokens, max_length" in caplog.text


def _stopped(*_):
    raise KeyboardInterrupt
