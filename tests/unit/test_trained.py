"""Folders of fine-tuned models that carry Python code of their own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from bad_inputs import fine_tuned

import probeline
from probeline.errors import ProbelineError

CODE = """
from transformers import BertConfig, BertForSequenceClassification


class Mine(BertForSequenceClassification):
    config_class = BertConfig

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = output.logits + 7
        return output
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A fine-tuned model without code."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "hf"))
    (tmp_path / "model").mkdir()
    fine_tuned(lambda training: None)(tmp_path / "model")
    return tmp_path / "model"


def test_code_runs_if_whoever_loads_it_says_so(folder):
    plain = probeline.load(folder, device="cpu").logits(["a text"])
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForSequenceClassification": "modeling_mine.Mine"}
    (folder / "config.json").write_text(json.dumps(config))
    # Named, and not there: the class of transformers was trained.
    assert np.array_equal(probeline.load(folder, device="cpu").logits(["a text"]), plain)
    (folder / "modeling_mine.py").write_text(CODE)
    with pytest.raises(ProbelineError, match=r"runs Python code of its own.*--trust-remote-code"):
        probeline.load(folder, device="cpu")
    trusted = probeline.load(folder, device="cpu", trust_remote_code=True)
    assert np.allclose(trusted.logits(["a text"]), plain + 7)


def test_trust_leaves_folders_without_code_as_they_are(folder):
    plain = probeline.load(folder, device="cpu").scores(["a text"])
    trusted = probeline.load(folder, device="cpu", trust_remote_code=True).scores(["a text"])
    assert np.array_equal(plain, trusted)
