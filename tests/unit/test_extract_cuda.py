"""Extraction on a GPU: copies beside computing change nothing, and what is broken is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_datasets import write_texts
from tiny_models import SENTENCES, build

from probeline.activations.extract import extract
from probeline.activations.shards import open_shard
from probeline.errors import ProbelineError

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA")

# Blocks of several batches, of one length as of many.
TEXTS = [f"{first} {second}" for first in SENTENCES for second in SENTENCES for _ in range(4)]
OPTIONS = {
    "representations": ["ffn", "hidden"],
    "poolings": ["first", "last", "max", "mean"],
    "storage_dtype": "float32",
    "block_texts": 64,
}


def extracted(model: Path, folder: Path, device: str, **spec) -> dict[str, np.ndarray]:
    data = write_texts(folder / "data", TEXTS)
    spec = {"path": str(model), "dtype": "float32", "batch_tokens": 300, **spec, "device": device}
    extract(data, "tiny", spec, OPTIONS, folder / "out", folder / "state", 42)
    found = {}
    for path in sorted((folder / "out").glob("*.h5")):
        with open_shard(path) as shard:
            found[path.name] = shard.read()
    return found


@pytest.mark.parametrize("kind", ["bert", "llama"])
@pytest.mark.parametrize("budget", [60, 300, 5_000])
def test_equals_the_cpu(kind, budget, tmp_path):
    model = build(kind, tmp_path / "model")
    ours = extracted(model, tmp_path / "cuda", "cuda", batch_tokens=budget)
    theirs = extracted(model, tmp_path / "cpu", "cpu", batch_tokens=budget)
    assert ours.keys() == theirs.keys()
    for name, values in theirs.items():
        np.testing.assert_allclose(ours[name], values, rtol=1e-4, atol=1e-5, err_msg=name)


def test_two_runs_are_the_same_to_the_bit(tmp_path):
    model = build("bert", tmp_path / "model")
    first, again = (extracted(model, tmp_path / name, "cuda") for name in ("a", "b"))
    for name, values in first.items():
        np.testing.assert_array_equal(again[name], values, err_msg=name)


def test_what_is_not_finite_is_named(tmp_path):
    model = build("bert", tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    (name,) = (name for name in weights if "layer.1.output.dense.bias" in name)
    weights[name][0] = float("nan")
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    with pytest.raises(ProbelineError, match=r"NaN or infinite value in row .*'hidden' layer 2"):
        extracted(model, tmp_path, "cuda")
