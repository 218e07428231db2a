"""A killed training with labels as tokens goes on to the same weights."""

from __future__ import annotations

import filecmp

import pytest
from finetuning import run, write_multilabel, write_toy
from interrupting import kill_after
from test_finetune_resume import OPTIONS, what_it_is
from tiny_models import build

from probeline.label_tokens.kind import read_kind

SECTION = {"initialization": "random", "thresholds": "per-label", "dropout": 0.3}
TRAINING = """
from finetuning import run
from probeline.label_tokens.kind import read_kind
run({data!r}, {model!r}, {folder!r}, kind=read_kind({section!r}), **{options!r})
"""


@pytest.mark.parametrize("write", [write_toy, write_multilabel])
def test_killed_and_resumed_gives_the_same_weights(write, tmp_path):
    data, model = write(tmp_path / "data", train=43), build("bert", tmp_path / "bert")
    folder, kind = tmp_path / "killed", read_kind(SECTION)
    told = {"section": SECTION, "options": OPTIONS}
    kill_after(2, TRAINING.format(data=data, model=model, folder=folder, **told))
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
