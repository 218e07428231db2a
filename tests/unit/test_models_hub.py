"""`fetch` against a server on this machine that answers like the hub."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from local_hub import COMMIT, Hub, Repo, local_hub
from safetensors.torch import load_file
from tiny_models import build

NOWHERE = Hub({}, "http://127.0.0.1:9")
EXTRA = {"README.md": b"# a model", "onnx/model.onnx": b"x" * 100, "pytorch_model.bin": b"y" * 100}


@pytest.fixture
def hub(tmp_path):
    repo = Repo.of_folder(build("bert", tmp_path / "model"))
    repo.files.update(EXTRA)
    with local_hub({"org/name": repo}) as hub:
        yield hub


CODE = """
import json, sys
from probeline.models.load import fetch, load_model
spec = {**json.loads(sys.argv[1]), "dtype": "float32"}
print(fetch(spec))
print(load_model(spec).revision)
"""


def run(tmp_path: Path, hub: Hub, offline: bool = False, **spec) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", CODE, json.dumps({"path": "org/name", **spec})],
        capture_output=True,
        text=True,
        env=hub.environment(tmp_path / "cache", offline),
        cwd=tmp_path,
        timeout=120,
    )


def test_fetch_pins_a_commit_and_takes_only_what_is_used(hub, tmp_path):
    done = run(tmp_path, hub)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [COMMIT, COMMIT]
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= set(hub.asked)
    assert not set(EXTRA) & set(hub.asked)
    # Later processes find everything in the cache, with no hub at all.
    for revision in (None, COMMIT):
        again = run(tmp_path, NOWHERE, offline=True, revision=revision)
        assert again.stdout.split() == [COMMIT, COMMIT], again.stderr


@pytest.mark.parametrize(
    "spec, words",
    [
        ({"path": "org/other"}, "org/other: no such folder here and no such model on the hub"),
        ({"revision": "v9"}, "org/name: the hub has no revision 'v9' of it"),
    ],
)
def test_what_the_hub_does_not_have(hub, tmp_path, spec, words):
    done = run(tmp_path, hub, **spec)
    assert words in done.stderr.strip().splitlines()[-1]


def test_weights_that_are_no_model_do_not_stand_in_for_it(hub, tmp_path):
    folder = build("bert", tmp_path / "pickled")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    body = (folder / "pytorch_model.bin").read_bytes()
    files = hub.repos["org/name"].files
    del files["model.safetensors"]
    files |= {"pytorch_model.bin": body, "adapter_model.safetensors": b"x" * 100}
    done = run(tmp_path, hub)
    assert done.stdout.split() == [COMMIT, COMMIT], done.stderr
    assert "pytorch_model.bin" in hub.asked and "adapter_model.safetensors" not in hub.asked


@pytest.mark.parametrize(
    "kept, words",
    [
        (("config.json", "model.safetensors"), "org/name: no tokenizer: "),
        (("config.json", "tokenizer.json", "README.md"), "org/name: no weights: "),
        (("tokenizer.json", "model.safetensors"), "org/name: no model there: "),
    ],
)
def test_a_repository_that_lacks_something_is_refused_when_it_is_fetched(
    hub, tmp_path, kept, words
):
    repo = hub.repos["org/name"]
    repo.files = {name: repo.files[name] for name in kept}
    done = run(tmp_path, hub)
    assert words in done.stderr.strip().splitlines()[-1]
    assert done.stdout == ""


def test_no_network(tmp_path):
    for offline in (True, False):
        done = run(tmp_path, NOWHERE, offline=offline)
        line = done.stderr.strip().splitlines()[-1]
        assert "not in the local hub cache and the hub cannot be reached" in line
        assert "probeline fetch" in line
