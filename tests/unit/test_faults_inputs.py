"""Inputs that change behind a run's back: noticed when the run is planned."""

from __future__ import annotations

import os
import shutil
import time

import pytest
from pipeline import config_of
from tiny_models import build

from probeline.errors import ConfigError
from probeline.workflow.plan import load_plan


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "model"
    build("bert", folder)
    return folder


@pytest.fixture
def config(model, tmp_path):
    shutil.copytree(model, tmp_path / "model")
    return config_of(tmp_path, "multiclass")


def known(config) -> tuple[dict, dict, list[str]]:
    """What the rules that run the model go by."""
    plan = load_plan(config)
    trained = plan.finetune_params("texts", "label", "tiny")
    return plan.extract_params("tiny"), trained, plan.model_files("tiny")


def test_weights_changed_under_their_name_and_time(config, tmp_path):
    before, trained_before, files_before = known(config)
    path = tmp_path / "model" / "model.safetensors"
    times, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    after, trained_after, files_after = known(config)
    assert files_before == files_after
    assert {key for key in before if before[key] != after[key]} == {"package"}
    assert {key for key in trained_before if trained_before[key] != trained_after[key]} == {
        "package"
    }


def test_a_copy_of_the_model_with_other_times_is_the_same(config, tmp_path):
    before = load_plan(config).extract_params("tiny")
    for path in (tmp_path / "model").iterdir():
        os.utime(path, (1, 1))
    assert load_plan(config).extract_params("tiny") == before


@pytest.fixture
def with_scores(config, model, tmp_path):
    """Scores made elsewhere, label texts of a file, and an embedder in a folder."""
    shutil.copytree(model, tmp_path / "embedder")
    (tmp_path / "scores.csv").write_text("text,a,b,c\n")
    (tmp_path / "labels.csv").write_text("label,text\n")
    config["scores"] = {
        "mine": {"path": str(tmp_path / "scores.csv"), "dataset": "texts", "kind": "logits"}
    }
    config["datasets"]["texts"]["label_texts"] = str(tmp_path / "labels.csv")
    config["lrsl"] = {"sources": ["stc"], "embedder": str(tmp_path / "embedder")}
    return config


INPUTS = {
    "texts.jsonl": "datasets.texts",
    "model/model.safetensors": "models.tiny",
    "scores.csv": "scores.mine.path",
    "embedder/model.safetensors": "lrsl.embedder",
}


@pytest.mark.parametrize("name", INPUTS)
def test_files_from_the_future_are_named(with_scores, tmp_path, name):
    load_plan(with_scores)
    then = time.time() + 7200
    os.utime(tmp_path / name, (then, then))
    with pytest.raises(ConfigError) as error:
        load_plan(with_scores)
    (line,) = error.value.problems
    assert line.startswith(f"{INPUTS[name]}: ") and name in line and "in the future" in line


def test_the_time_of_a_file_of_label_texts_plays_no_part(with_scores, tmp_path):
    """What it says is a parameter of jobs, the file itself is not among their inputs."""
    then = time.time() + 7200
    os.utime(tmp_path / "labels.csv", (then, then))
    assert load_plan(with_scores).label_texts("texts", "label") == {}


PIPES = {
    "texts.jsonl": "datasets.texts",
    "labels.csv": "datasets.texts.label_texts",
    "scores.csv": "scores.mine.path",
    "model/config.json": "models.tiny",
}


@pytest.mark.parametrize("name", PIPES)
def test_pipes_are_refused_before_anybody_reads_them(with_scores, tmp_path, name):
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(ConfigError) as error:
        load_plan(with_scores)
    (line,) = error.value.problems
    assert line.startswith(f"{PIPES[name]}: ") and "a pipe, not a regular file" in line
