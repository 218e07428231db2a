"""Bad models and settings that do not fit: each is refused in one line that says what to do."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import build

from probeline.errors import ProbelineError
from probeline.models.families import FAMILIES
from probeline.models.load import load_model


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    return build("bert", tmp_path_factory.mktemp("bert"))


@pytest.fixture
def copy(bert, tmp_path) -> Path:
    """A model folder that a test may damage."""
    return Path(shutil.copytree(bert, tmp_path / "model"))


def refusal(path, **spec) -> str:
    """The one line that loading refuses with."""
    with pytest.raises(ProbelineError) as caught:
        load_model({"path": str(path), "dtype": "float32", "device": "cpu", **spec})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit_config(folder: Path, **changes) -> None:
    """Change keys of config.json; `...` removes one."""
    config = json.loads((folder / "config.json").read_text())
    config.update(changes)
    kept = {key: value for key, value in config.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(kept))


def test_folder_without_a_model(tmp_path):
    assert "no model there" in refusal(tmp_path)


def test_broken_config(copy):
    (copy / "config.json").write_text('{"model_type": ')
    assert "config.json: not a complete JSON file" in refusal(copy)


def test_folder_without_weights(copy):
    (copy / "model.safetensors").unlink()
    assert "no weights" in refusal(copy)
    (copy / "adapter_model.safetensors").touch()
    assert "only an adapter" in refusal(copy)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9999])
def test_half_copied_safetensors(copy, share):
    path = copy / "model.safetensors"
    os.truncate(path, int(share * path.stat().st_size))
    line = refusal(copy)
    assert "model.safetensors" in line
    assert "copy it again" in line


def test_git_lfs_pointer(copy):
    (copy / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid ...")
    assert "not a safetensors file" in refusal(copy)


def test_truncated_bin(copy):
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(b"PK\x03\x04 half")
    assert "cannot be loaded" in refusal(copy)


def test_missing_body_weights_are_named(copy):
    weights = load_file(copy / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    line = refusal(copy)
    assert "1 weights of the model's body are missing" in line
    assert "encoder.layer.1.output.dense.weight" in line


def test_weights_of_another_model(copy):
    edit_config(copy, hidden_size=32)
    assert "cannot be loaded" in refusal(copy)
    save_file({"other": torch.zeros(2)}, copy / "model.safetensors", metadata={"format": "pt"})
    assert "are missing" in refusal(copy)


def test_unknown_architecture_comes_with_the_list(copy):
    edit_config(copy, model_type="albret")
    line = refusal(copy)
    assert "'albret'" in line
    assert all(name in line for name in FAMILIES)
    edit_config(copy, model_type=...)
    assert "names no model_type" in refusal(copy)


def test_config_without_a_layer_count(copy):
    edit_config(copy, num_hidden_layers=...)
    assert "no positive integer 'num_hidden_layers'" in refusal(copy)


def test_folder_without_a_tokenizer(copy):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copy / name).unlink(missing_ok=True)
    assert "no tokenizer" in refusal(copy)


def test_broken_tokenizer(copy):
    (copy / "tokenizer.json").write_text("{")
    assert "its tokenizer cannot be read" in refusal(copy)


@pytest.mark.parametrize(
    "spec, words",
    [
        ({"max_length": 65}, "max_length 65 is above the model's 64 positions"),
        ({"max_length": 3}, "max_length 3 leaves no room for text beside 3 special tokens"),
        ({"dtype": "float8"}, "'float8' is not one of auto, float32, bfloat16, float16"),
        ({"device": "gpu"}, "'gpu' is not one of auto, cpu, cuda, mps"),
    ],
)
def test_settings_that_do_not_fit(bert, spec, words):
    assert words in refusal(bert, **spec)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_device_that_is_not_there(bert):
    assert "cuda is not available on this machine" in refusal(bert, device="cuda")


class _Bomb:
    def __reduce__(self):
        return (os.mkdir, (str(Path(os.environ["BOMB"])),))


def test_pickle_that_runs_code_is_refused(copy, tmp_path, monkeypatch):
    monkeypatch.setenv("BOMB", str(tmp_path / "exploded"))
    (copy / "model.safetensors").unlink()
    torch.save({"x": _Bomb()}, copy / "pytorch_model.bin")
    assert "cannot be loaded" in refusal(copy)
    assert not (tmp_path / "exploded").exists()


REMOTE = """
from pathlib import Path
from transformers import BertModel
Path({marker!r}).touch()

class Mine(BertModel):
    def __init__(self, config, **more):
        super().__init__(config, **more)
        for layer in self.encoder.layer:
            layer.output.projection = layer.output._modules.pop("dense")
"""


@pytest.mark.parametrize("trusted", [False, True])
def test_code_in_the_folder_runs_only_when_trusted(copy, tmp_path, trusted):
    """When it does, and is not the architecture it names, that is said."""
    edit_config(copy, auto_map={"AutoModel": "modeling_mine.Mine"})
    marker = tmp_path / "ran"
    (copy / "modeling_mine.py").write_text(REMOTE.format(marker=str(marker)))
    weights = load_file(copy / "model.safetensors")
    for name in [name for name in weights if re.search(r"\d\.output\.dense", name)]:
        weights[name.replace("dense", "projection")] = weights.pop(name)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    code = (
        "import sys\nfrom probeline.models.load import load_model\n"
        "load_model({'path': sys.argv[1], 'dtype': 'float32', 'trust_remote_code': "
        f"{trusted}"
        "})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(copy)],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HOME": str(tmp_path / "home")},
    )
    assert marker.exists() == trusted
    line = done.stderr.strip().splitlines()[-1]
    assert ("no hooks for it" if trusted else "weights of the model's body are missing") in line
