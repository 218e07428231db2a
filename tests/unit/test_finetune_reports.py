"""Integrations of transformers are told how a training goes, and what they write is kept."""

from __future__ import annotations

import importlib
import json
import stat
import struct
from pathlib import Path

import pytest
from finetuning import run, write_toy
from interrupting import Stopped, stop_after
from tiny_models import build
from transformers import TrainerCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

OPTIONS = {"epochs": 2, "evaluations": 2, "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    data = write_toy(tmp_path_factory.mktemp("data"), classes=3)
    return data, build("bert", tmp_path_factory.mktemp("bert"))


class Diary(TrainerCallback):
    """Writes what it is told where the integrations of transformers do, a file per process."""

    def on_train_begin(self, args, state, control, **_) -> None:
        folder = Path(args.output_dir) / "runs"
        folder.mkdir(exist_ok=True)
        self.path = folder / f"{len(list(folder.iterdir()))}.jsonl"
        self._write({"begun": args.run_name})

    def on_log(self, args, state, control, logs=None, **_) -> None:
        self._write({"step": state.global_step, **logs})

    def on_train_end(self, args, state, control, **_) -> None:
        self._write({"ended": state.global_step})
        self.path.chmod(0o600)

    def _write(self, line: dict) -> None:
        with self.path.open("a") as handle:
            handle.write(json.dumps(line) + "\n")


@pytest.fixture
def diary(monkeypatch):
    """Its name for `report_to`."""
    monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "diary", Diary)
    return "diary"


def lines_of(*paths: Path) -> list[dict]:
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def check_told(told: list[dict], model: Path) -> None:
    """Losses and scores, each of its step, are those of the history."""
    history = json.loads((model / "training.json").read_text())["history"]
    assert {one["split"] for one in history} == {"train", "validation"}
    for split, loss, score in (
        ("train", "loss", None),
        ("validation", "eval_loss", "eval_accuracy"),
    ):
        found = [
            (one["step"], one[loss], one[score] if score else None) for one in told if loss in one
        ]
        assert found == [
            (
                one["step"],
                pytest.approx(one["loss"]),
                pytest.approx(one["score"]) if score else None,
            )
            for one in history
            if one["split"] == split
        ]


def test_an_integration_is_told_losses_and_scores(inputs, tmp_path, diary):
    model = run(*inputs, tmp_path, report_to=[diary], **OPTIONS)
    (file,) = (model / "runs").iterdir()
    told = lines_of(file)
    assert told[0] == {"begun": "tiny on toy/label"} and told[-1] == {"ended": 12}
    check_told(told, model)
    # Linear from the first step on, as there is no warm-up.
    rates = [one["learning_rate"] for one in told if "loss" in one]
    assert rates == pytest.approx([1e-3 * (12 - step) / 12 for step in range(1, 13)])
    assert stat.S_IMODE(file.stat().st_mode) == stat.S_IMODE((model / "config.json").stat().st_mode)
    assert not (tmp_path / "state").exists()


def test_nobody_is_told_unasked(inputs, tmp_path, diary):
    model = run(*inputs, tmp_path, **OPTIONS)
    assert not (model / "runs").exists()


def test_what_was_written_before_a_kill_is_kept(inputs, tmp_path, diary, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        stop_after(patch, 2)
        run(*inputs, tmp_path, report_to=[diary], **OPTIONS)
    model = run(*inputs, tmp_path, report_to=[diary], **OPTIONS)
    first, second = sorted((model / "runs").iterdir())
    assert {"ended": 12} not in lines_of(first) and lines_of(second)[-1] == {"ended": 12}
    check_told(lines_of(first, second), model)


def test_who_is_told_changes_no_weight(inputs, tmp_path, diary):
    """So that a training can go on with another integration."""
    one = run(*inputs, tmp_path / "one", report_to=[diary], **OPTIONS)
    other = run(*inputs, tmp_path / "other", **OPTIONS)
    weights = [(model / "model.safetensors").read_bytes() for model in (one, other)]
    assert weights[0] == weights[1]


def event_type():
    """The record of tensorboard's files, from whichever package there is."""
    for name in ("tensorboard.compat.proto.event_pb2", "tensorboardX.proto.event_pb2"):
        try:
            return importlib.import_module(name).Event
        except ImportError:
            continue
    pytest.skip("needs tensorboard or tensorboardX, which is not installed")


def events_of(path: Path, event) -> list[dict]:
    """The scalars of an event file: records of length, checksum, content, checksum."""
    content, found, at = path.read_bytes(), [], 0
    while at < len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        record = event.FromString(content[at + 12 : at + 12 + length])
        at += 12 + length + 4
        found += [
            {"step": record.step, value.tag: value.simple_value}
            for value in record.summary.value
            if value.WhichOneof("value") == "simple_value"
        ]
    return found


def test_tensorboard_writes_into_the_model_s_folder(inputs, tmp_path, monkeypatch):
    event = event_type()
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    model = run(*inputs, tmp_path, report_to=["tensorboard"], **OPTIONS)
    (file,) = (path for path in (model / "runs").rglob("*") if path.is_file())
    names = {
        "train/loss": "loss",
        "train/learning_rate": "rate",
        "eval/loss": "eval_loss",
        "eval/accuracy": "accuracy",
    }
    found = {name: [] for name in names.values()}
    for one in events_of(file, event):
        step = one.pop("step")
        ((tag, value),) = one.items()
        if tag in names:
            found[names[tag]].append((step, value))
    told = [{"step": step, "loss": value} for step, value in found["loss"]]
    told += [
        {"step": step, "eval_loss": value, "eval_accuracy": score}
        for (step, value), (_, score) in zip(found["eval_loss"], found["accuracy"], strict=True)
    ]
    check_told(told, model)
    assert len(found["rate"]) == 12
