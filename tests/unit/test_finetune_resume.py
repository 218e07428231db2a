"""Fine-tuning that is killed goes on at the last complete checkpoint, to the same weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from finetuning import run, write_toy
from interrupting import Stopped, kill_after, stop_after
from tiny_models import build

from probeline.finetune.checkpoints import Checkpoints
from probeline.finetune.record import Record

# 43 rows are 9 batches, the last of 3 rows, and 5 steps an epoch, the last of one batch, with
# checkpoints after steps 3, 5, 8, 10, 13 and 15: in the middle and at the end of epochs.
OPTIONS = {
    "epochs": 3,
    "batch_size": 5,
    "gradient_accumulation": 2,
    "evaluations": 2,
    "warmup": 0.2,
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    data = write_toy(tmp_path_factory.mktemp("data"), classes=3, train=43)
    return data, build("bert", tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def undisturbed(inputs, tmp_path_factory):
    return run(*inputs, tmp_path_factory.mktemp("undisturbed"), **OPTIONS)


def what_it_is(model: Path) -> tuple[bytes, list[dict], dict]:
    """Weights, history and scores, outside timing fields."""
    training = json.loads((model / "training.json").read_text())
    scores = json.loads((model.parent / "scores.json").read_text())
    for key in ("seconds", "train_seconds", "seconds_per_epoch", "texts_per_second"):
        scores.pop(key)
    return (model / "model.safetensors").read_bytes(), training["history"], scores


def test_killed_and_resumed_gives_the_same_weights(inputs, undisturbed, tmp_path):
    data, model = inputs
    kill_after(
        3, f"from finetuning import run\nrun({data!r}, {model!r}, {tmp_path!r}, **{OPTIONS!r})"
    )
    assert not (tmp_path / "model").exists()
    assert (tmp_path / "state/checkpoint-8/record.json").exists()
    assert what_it_is(run(data, model, tmp_path, **OPTIONS)) == what_it_is(undisturbed)


@pytest.mark.parametrize("seals", [2, 5])
def test_stopped_at_the_end_or_in_the_middle_of_an_epoch(
    inputs, undisturbed, tmp_path, monkeypatch, seals
):
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        stop_after(patch, seals)
        run(*inputs, tmp_path, **OPTIONS)
    assert what_it_is(run(*inputs, tmp_path, **OPTIONS)) == what_it_is(undisturbed)


CODE = """
from transformers import BertForSequenceClassification


class Mine(BertForSequenceClassification):
    def forward(self, **inputs):
        output = super().forward(**inputs)
        output.logits = output.logits * 1
        return output
"""


@pytest.mark.parametrize("edit", [("* 1", "* 2"), None])
def test_a_model_whose_own_code_is_edited_is_begun_anew(
    inputs, tmp_path, monkeypatch, caplog, edit
):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "hf"))
    data, plain = inputs
    model = shutil.copytree(plain, tmp_path / "own")
    config = json.loads((model / "config.json").read_text())
    config["auto_map"] = {"AutoModelForSequenceClassification": "modeling_mine.Mine"}
    (model / "config.json").write_text(json.dumps(config))
    (model / "modeling_mine.py").write_text(CODE)
    options = OPTIONS | {"spec": {"trust_remote_code": True}}
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        stop_after(patch, 2)
        run(data, model, tmp_path, **options)
    if edit is not None:
        (model / "modeling_mine.py").write_text(CODE.replace(*edit))
    with caplog.at_level("INFO"):
        run(data, model, tmp_path, **options)
    assert ("earlier partial training is about other code" in caplog.text) == (edit is not None)
    assert ("going on after step" in caplog.text) == (edit is None)


def test_a_half_written_checkpoint_is_skipped(inputs, undisturbed, tmp_path, monkeypatch, caplog):
    seal = Checkpoints.seal

    def stopped(self, step, record):
        if step == 8:
            raise Stopped
        seal(self, step, record)

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Checkpoints, "seal", stopped)
        run(*inputs, tmp_path, **OPTIONS)
    assert (tmp_path / "state/checkpoint-8/weights.safetensors").exists()
    with caplog.at_level("INFO"):
        model = run(*inputs, tmp_path, **OPTIONS)
    assert "checkpoint-8 is not complete; skipped" in caplog.text
    assert "going on after step 5 of 15" in caplog.text
    assert what_it_is(model) == what_it_is(undisturbed)


@pytest.mark.parametrize("damage", [b"1234567", b"123456780", b"12345679", b""])
@pytest.mark.parametrize("reduced", [False, True])
def test_a_checkpoint_whose_file_is_damaged_is_skipped(tmp_path, damage, reduced):
    checkpoints = Checkpoints(tmp_path / "state", {"seed": 1})
    for step in (3, 5):
        checkpoints.path(step).mkdir()
        (checkpoints.path(step) / "weights.safetensors").write_bytes(b"12345678")
        checkpoints.seal(step, Record(best_step=3))
    if reduced:
        checkpoints.reduce()
    assert checkpoints.last()[0] == 5
    (checkpoints.path(5) / "weights.safetensors").write_bytes(damage)
    assert checkpoints.last()[0] == 3
    assert not checkpoints.path(5).exists()


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
    assert "going on after step 15 of 15" in caplog.text
    assert "validation loss" not in caplog.text
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


@pytest.mark.parametrize("keep", ["best", "last"])
def test_results_that_are_deleted_come_back_without_training(inputs, tmp_path, caplog, keep):
    """Of the state that is kept, what only a training that goes on needs is gone."""
    whole = what_it_is(run(*inputs, tmp_path, keep_state=True, **OPTIONS, keep=keep))
    checkpoints = list((tmp_path / "state").glob("checkpoint-*"))
    assert {path.name for folder in checkpoints for path in folder.iterdir()} == {
        "record.json",
        "weights.safetensors",
    }
    shutil.rmtree(tmp_path / "model")
    (tmp_path / "predictions.h5").unlink()
    (tmp_path / "scores.json").unlink()
    with caplog.at_level("INFO"):
        again = run(*inputs, tmp_path, keep_state=True, **OPTIONS, keep=keep)
    assert "going on after step 15 of 15" in caplog.text
    assert "validation loss" not in caplog.text
    assert what_it_is(again) == whole


def _stopped(*_):
    raise Stopped
