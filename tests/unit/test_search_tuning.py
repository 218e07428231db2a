"""A search that fine-tunes a tiny model: its scores, its pruning, and a kill in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from finetuning import FAST, run, write_multilabel, write_toy
from tiny_models import build

from probeline.config import read
from probeline.errors import ProbelineError
from probeline.finetune.resumable import not_finite
from probeline.label_tokens.kind import read_kind
from probeline.search.stage import report, search

SPACE = {
    "learning_rate": {"low": 1e-6, "high": 5e-3, "log": True},
    "epochs": {"low": 1, "high": 3, "step": 1},
    "batch_size": [8, 16],
}
KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from probeline.finetune.checkpoints import Checkpoints
from test_search_tuning import tried
seal, count = Checkpoints.seal, []

def sealed(self, step, record):
    seal(self, step, record)
    if self.folder.name == "trial-2":
        os.kill(os.getpid(), signal.SIGKILL)

Checkpoints.seal = sealed
tried(Path({data!r}), Path({model!r}), Path({folder!r}))
"""


def tried(data: Path, model: Path, folder: Path, spec=None, **changes) -> pd.DataFrame:
    """Search and report into `folder`; return the table of trials."""
    settings = {"options": FAST | {"evaluations": 2}, "space": SPACE, "trials": 4, "seed": 1}
    search(
        data,
        "label",
        "tiny",
        {"path": str(model), "device": "cpu", **(spec or {})},
        folder / "journal.log",
        folder / "worker-0.json",
        folder / "state",
        **{**settings, **changes},
    )
    report(
        folder / "journal.log",
        [folder / "worker-0.json"],
        folder / "best.yaml",
        folder / "trials.csv",
        folder / "importance.csv",
        "tiny on toy",
    )
    return pd.read_csv(folder / "trials.csv")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    data = write_toy(tmp_path_factory.mktemp("data"), classes=3)
    return data, build("bert", tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def undisturbed(inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    tried(*inputs, folder)
    return folder


def test_a_score_is_that_of_fine_tuning_with_the_same_settings(inputs, undisturbed, tmp_path):
    table = pd.read_csv(undisturbed / "trials.csv")
    assert list(table["trial"]) == [0, 1, 2, 3] and set(table["state"]) == {"complete"}
    found = read(undisturbed / "best.yaml")["finetune"]
    assert set(found) == set(SPACE)
    run(*inputs, tmp_path, evaluations=2, **found)
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["validation_score"] == pytest.approx(table["score"].max(), abs=1e-12)
    assert not list((undisturbed / "state").iterdir())


def test_killed_and_resumed_finds_the_same(inputs, undisturbed, tmp_path, caplog):
    data, model = inputs
    values = {"data": str(data), "model": str(model), "folder": str(tmp_path)}
    script = KILLED.format(tests=str(Path(__file__).parent), **values)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["trial-2"]
    with caplog.at_level("INFO"):
        table = tried(data, model, tmp_path)
    assert "trial 2: going on" in caplog.text and "going on after step" in caplog.text
    assert "trial 1" not in caplog.text
    pd.testing.assert_frame_equal(table, pd.read_csv(undisturbed / "trials.csv"))
    assert (tmp_path / "best.yaml").read_bytes() == (undisturbed / "best.yaml").read_bytes()


def test_what_is_no_use_is_pruned(inputs, tmp_path, monkeypatch):
    """Every trial but the first would be, if the study said so."""
    monkeypatch.setattr("optuna.Trial.should_prune", lambda self: self.number > 0)
    table = tried(*inputs, tmp_path, trials=3, options={**FAST, "evaluations": 2})
    assert list(table["state"]) == ["complete", "pruned", "pruned"]
    assert list(table["evaluations"][1:]) == [1, 1]
    assert not list((tmp_path / "state").iterdir())


def test_multilabel(tmp_path):
    data = write_multilabel(tmp_path / "data", train=48)
    model = build("bert", tmp_path / "bert")
    table = tried(data, model, tmp_path, trials=1)
    assert json.loads((tmp_path / "worker-0.json").read_text())["metric"] == "micro-f1"
    assert 0 <= table["score"][0] <= 1


def test_labels_as_tokens(inputs, tmp_path):
    kind = read_kind({"initialization": "random"})
    table = tried(*inputs, tmp_path, trials=1, kind=kind)
    found = read(tmp_path / "best.yaml")["label_tokens"]["finetune"]
    run(*inputs, tmp_path, kind=kind, evaluations=2, **found)
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["validation_score"] == pytest.approx(table["score"][0], abs=1e-12)


def test_a_training_that_runs_away_ends_no_search(inputs, tmp_path, monkeypatch):
    def runs_away(job, *_):
        if job.name.startswith("trial 1,"):
            raise not_finite("the loss of step 1 is nan", job)
        return whole(job, *_)

    from probeline.search import tuning

    whole = tuning.train
    monkeypatch.setattr(tuning, "train", runs_away)
    table = tried(*inputs, tmp_path, trials=2)
    assert list(table["state"]) == ["complete", "pruned"]
    assert "not finite; try a learning_rate below" in table["note"][1]


def test_jobs_of_other_settings_are_not_put_together(inputs, undisturbed, tmp_path):
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"study": "x", "classifier": "finetune"}))
    with pytest.raises(ProbelineError, match="had different settings; delete"):
        report(
            undisturbed / "journal.log",
            [undisturbed / "worker-0.json", other],
            *(tmp_path / name for name in ("best.yaml", "trials.csv", "importance.csv")),
            "x",
        )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"space": {"epoch": [1]}}, "search.space: 'epoch' is not one of"),
        ({"options": {"epochs": 0}}, "finetune.epochs: expected a number above 0"),
        ({"options": {"mixed_precision": "fp16"}}, "fp16 needs CUDA"),
    ],
)
def test_refused_before_anything_is_tried(inputs, tmp_path, changes, expected):
    with pytest.raises(ProbelineError, match=expected):
        tried(*inputs, tmp_path, **changes)
    assert not (tmp_path / "journal.log").exists()
