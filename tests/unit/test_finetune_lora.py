"""Adapters: what is trained, what is written, and that merging changes nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
import transformers
from finetuning import run, write_multilabel, write_toy
from safetensors.torch import load_file
from scipy.special import expit
from tiny_models import TINY, build
from transformers.quantizers.quantizers_utils import should_convert_module

import probeline
from probeline.data.store import read_dataset
from probeline.errors import ProbelineError
from probeline.finetune.lora import WHOLE_MODULES, linear_maps, load_adapter, merge_adapter
from probeline.finetune.model import body_prefix
from probeline.models.load import load_model
from probeline.results.predictions import read_predictions

LORA = {"rank": 4, "alpha": 16, "dropout": 0.0}
OPTIONS = {"epochs": 8, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return write_toy(tmp_path_factory.mktemp("toy"), classes=3, train=144)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return build("gpt2", tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="module")
def tuned(gpt2, toy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned")
    run(toy, gpt2, folder, lora=LORA, **OPTIONS)
    return folder


def logits(model, folder, texts) -> np.ndarray:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        inputs = (tokenizer(text, return_tensors="pt") for text in texts)
        return np.array([model(**one).logits[0].numpy() for one in inputs])


def test_it_learns_and_trains_only_adapters_and_the_head(tuned, gpt2):
    scores = json.loads((tuned / "scores.json").read_text())
    assert scores["test_score"] == 1.0
    stored = load_file(tuned / "model/adapter/adapter_model.safetensors")
    heads = [name for name in stored if "lora_" not in name]
    assert heads == ["base_model.model.score.weight"]
    assert scores["parameters_trained"] == sum(weight.numel() for weight in stored.values())
    assert scores["parameters_trained"] < scores["parameters"] / 2
    # Four linear maps in each of three blocks, two factors each.
    assert len(stored) - 1 == 2 * 4 * 3
    before = load_file(gpt2 / "model.safetensors")
    after = load_adapter(tuned / "model/adapter").get_base_model().state_dict()
    name = "h.0.attn.c_attn.weight"
    kept = after[f"transformer.{name.replace('c_attn', 'c_attn.base_layer')}"]
    assert torch.equal(kept, before.get(name, before.get(f"transformer.{name}")))


def test_the_merged_model_equals_the_adapter_and_the_stored_logits(tuned, toy):
    folder, texts = tuned / "model", read_dataset(toy).texts
    auto = transformers.AutoModelForSequenceClassification
    # The adapter has a folder of its own, or transformers would add it to the merged weights.
    merged = logits(auto.from_pretrained(folder).eval(), folder, texts)
    adapted = logits(load_adapter(folder / "adapter"), folder, texts)
    np.testing.assert_allclose(merged, adapted, atol=1e-4)
    stored = read_predictions(tuned / "predictions.h5")
    np.testing.assert_allclose(stored.logits, adapted, atol=1e-4)
    assert stored.meta["variant"] == "lora"
    load_model({"path": str(folder), "device": "cpu", "dtype": "float32"})


def test_merging_can_wait(toy, gpt2, tuned, tmp_path):
    folder = run(toy, gpt2, tmp_path, lora={**LORA, "merge": False}, **OPTIONS)
    assert not (folder / "model.safetensors").exists()
    merge_adapter(folder, tmp_path / "merged")
    found = (tmp_path / "merged/model.safetensors").read_bytes()
    assert found == (tuned / "model/model.safetensors").read_bytes()
    config = json.loads((tmp_path / "merged/config.json").read_text())
    assert config["id2label"]["2"] == "label 2"
    modes = {path.stat().st_mode for path in (tmp_path / "merged").iterdir()}
    assert modes == {(folder / "training.json").stat().st_mode}


@pytest.mark.parametrize("given", ["model", "model/adapter"])
def test_what_is_merged_later_predicts_what_was_stored(tmp_path, given):
    data = write_multilabel(tmp_path / "data")
    lora = {**LORA, "merge": False}
    folder = run(data, build("bert", tmp_path / "bert"), tmp_path, lora=lora, learning_rate=1e-2)
    with pytest.raises(ProbelineError, match="holds adapters alone; in Python, probel") as caught:
        probeline.load(folder, "cpu")
    assert f"merge_adapter('{folder}', OUT)" in str(caught.value)
    assert "\n" not in str(caught.value)
    merge_adapter(tmp_path / given, tmp_path / "merged")
    loaded, texts = probeline.load(tmp_path / "merged", "cpu"), read_dataset(data).texts
    stored = read_predictions(tmp_path / "predictions.h5").logits
    assert len(np.unique(stored > 0, axis=0)) > 2
    np.testing.assert_allclose(loaded.logits(texts), stored, atol=1e-4)
    threshold = json.loads((folder / "training.json").read_text())["found"]["threshold"]
    np.testing.assert_allclose(loaded.scores(texts), expit(stored + threshold), atol=1e-4)


def test_an_adapter_alone_is_merged_to_a_model_without_a_record(tuned, tmp_path):
    alone = shutil.copytree(tuned / "model/adapter", tmp_path / "mine/elsewhere")
    (tmp_path / "mine/training.json").write_text("another's")
    merge_adapter(alone, tmp_path / "merged")
    assert not (tmp_path / "merged/training.json").exists()
    load_model({"path": str(tmp_path / "merged"), "device": "cpu", "dtype": "float32"})


@pytest.mark.parametrize("out", [".", "adapter", "../model", ".."])
def test_an_adapter_is_not_replaced_by_what_it_is_merged_to(tuned, tmp_path, out):
    folder = Path(shutil.copytree(tuned / "model", tmp_path / "all/model"))
    with pytest.raises(ProbelineError, match="would be replaced, and holds the adapter"):
        merge_adapter(folder, folder / out)
    assert (folder / "adapter/adapter_model.safetensors").is_file()


def test_peft_reads_the_adapter_by_itself(tuned):
    folder = tuned / "model/adapter"
    model = peft.AutoPeftModelForSequenceClassification.from_pretrained(folder, num_labels=3)
    assert model.get_base_model().config.num_labels == 3


def test_named_targets_and_a_pooler(toy, tmp_path):
    folder = run(
        toy,
        build("bert", tmp_path / "bert"),
        tmp_path,
        lora={**LORA, "targets": ["query", "value"]},
        **OPTIONS,
    )
    stored = load_file(folder / "adapter/adapter_model.safetensors")
    adapted = {name.split(".lora_")[0].rpartition(".")[2] for name in stored if "lora_" in name}
    assert adapted == {"query", "value"}
    # The pooler is of the head, since many checkpoints lack it: trained whole like the classifier.
    whole = {name for name in stored if "lora_" not in name}
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in whole} == {"dense", "classifier"}


def test_a_bad_target_is_one_line(toy, gpt2, tmp_path):
    with pytest.raises(ProbelineError) as caught:
        run(toy, gpt2, tmp_path, lora={"targets": ["c_atn"]})
    assert "'c_atn' is no linear map" in str(caught.value)
    assert "did you mean 'c_attn'?" in str(caught.value) and "\n" not in str(caught.value)


def test_four_bits_without_cuda_is_one_line_before_anything_is_loaded(toy, tmp_path):
    with pytest.raises(ProbelineError, match=r"quantize: nf4 needs a CUDA device") as caught:
        run(toy, tmp_path / "no model here", tmp_path, lora={"quantize": "nf4"})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", TINY)
def test_of_linear_maps_only_those_that_are_trained_are_not_put_into_four_bits(kind):
    with torch.device("meta"):
        auto = transformers.AutoModelForSequenceClassification
        model = auto.from_config(TINY[kind].config())
    maps = linear_maps(model, body_prefix(model))
    linear = (torch.nn.Linear, transformers.pytorch_utils.Conv1D)
    names = [name for name, module in model.named_modules() if isinstance(module, linear)]
    assert [n for n in names if should_convert_module(n, list(WHOLE_MODULES))] == maps != names


def test_no_adapter_to_merge(tmp_path):
    with pytest.raises(ProbelineError, match="no adapter there"):
        merge_adapter(tmp_path, tmp_path / "out")
