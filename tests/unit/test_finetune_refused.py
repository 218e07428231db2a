"""Options, data and losses that cannot be trained with: each is refused in one line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from finetuning import FILLERS, SIZES, run, write_toy
from tiny_models import build
from torch.nn.modules.module import register_module_forward_pre_hook

from probeline.data.store import read_dataset
from probeline.data.writing import write_dataset
from probeline.errors import ProbelineError
from probeline.finetune.options import LoraOptions, Options, read_options


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return build("bert", tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return write_toy(tmp_path_factory.mktemp("toy"))


def refusal(*inputs, **options) -> str:
    with pytest.raises(ProbelineError) as caught:
        run(*inputs, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_defaults_and_plain_values():
    assert read_options({}) == Options()
    assert read_options({"lora": {}}).lora == LoraOptions()
    rates = [
        read_options({"learning_rate": None, "lora": lora}).learning_rate for lora in (None, {})
    ]
    assert rates == [2e-5, 2e-4]
    found = read_options({"epochs": 2, "report_to": ["tensorboard"], "lora": {"targets": ["q"]}})
    assert (found.epochs, found.report_to, found.lora.targets) == (2.0, ("tensorboard",), ("q",))
    assert json.loads(json.dumps(found.plain())) == found.plain()
    assert read_options(found.plain()) == found


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"epoch": 3}, "finetune: 'epoch' is not one of epochs"),
        ({"epochs": 0}, "finetune.epochs: expected a number above 0, found 0"),
        ({"epochs": True}, "finetune.epochs"),
        ({"learning_rate": "2e-5"}, "finetune.learning_rate"),
        ({"learning_rate": float("nan")}, "finetune.learning_rate"),
        ({"schedule": "exponential"}, "one of linear, cosine, constant"),
        ({"batch_size": 2.5}, "finetune.batch_size: expected an integer of 1 or more"),
        ({"warmup": 1.2}, "finetune.warmup"),
        ({"max_grad_norm": 0}, "finetune.max_grad_norm"),
        ({"report_to": "wandb"}, "finetune.report_to: expected a list of names"),
        ({"lora": {"rnk": 4}}, "finetune.lora: 'rnk' is not one of rank"),
        ({"lora": {"targets": []}}, "finetune.lora.targets"),
        ({"lora": {"quantize": "int8"}}, "finetune.lora.quantize: expected null or nf4"),
        ({"lora": 4}, "finetune.lora: expected null or a section"),
    ],
)
def test_bad_options(section, said):
    with pytest.raises(ProbelineError) as caught:
        read_options(section)
    assert said in str(caught.value)


def test_an_architecture_that_is_not_known(bert, toy, tmp_path):
    folder = build("bert", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "berd"}))
    assert "did you mean 'bert'?" in refusal(toy, folder, tmp_path)


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_one_class_in_train(bert, tmp_path, kind):
    rows = sum(SIZES.values())
    in_train = np.arange(rows) < SIZES["train"]
    codes = np.where(in_train, 1, np.arange(rows) % 2)
    if kind == "multi":
        codes = np.zeros((rows, 2), bool)
    write_dataset(
        tmp_path / "data",
        {"name": "flat", "tasks": {"label": {"kind": kind, "labels": ["no", "yes"], "counts": {}}}},
        pa.table({"text": [FILLERS[0]] * rows}),
        SIZES,
        {"label": codes},
    )
    said = refusal(tmp_path / "data", bert, tmp_path)
    assert ("only the class 'yes'" if kind == "single" else "no label at all") in said


def test_a_metric_that_test_cannot_be_scored_by_is_refused_before_a_model_is_loaded(tmp_path):
    rows = sum(SIZES.values())
    codes = np.where(np.arange(rows) < rows - SIZES["test"], np.arange(rows) % 2, 1)
    task = {"kind": "single", "labels": ["no", "yes"], "counts": {}}
    write_dataset(
        tmp_path / "data",
        {"name": "flat", "tasks": {"label": task}},
        pa.table({"text": [FILLERS[0]] * rows}),
        SIZES,
        {"label": codes},
    )
    said = refusal(tmp_path / "data", tmp_path / "no model", tmp_path, metric="roc-auc")
    assert "roc-auc needs rows of both kinds" in said


def test_an_end_token_in_a_text_of_an_encoder_decoder_is_found_before_training(toy, tmp_path):
    dataset = read_dataset(toy)
    texts = [text + " [EOS]" * (row == 90) for row, text in enumerate(dataset.texts)]
    codes = {"label": dataset.labels("label")}
    about = {"name": "ends", "tasks": dataset.tasks}
    write_dataset(tmp_path / "data", about, pa.table({"text": texts}), SIZES, codes)
    said = refusal(tmp_path / "data", build("t5", tmp_path / "t5"), tmp_path)
    assert "the text in row 90 holds the model's end token, [EOS]" in said
    assert not (tmp_path / "state").exists()


def test_more_tokens_than_positions(bert, toy, tmp_path):
    said = refusal(toy, bert, tmp_path, spec={"max_length": 65})
    assert "max_length 65 is above the model's 64 positions" in said


def test_a_loss_that_is_not_finite_names_the_step(bert, toy, tmp_path, monkeypatch):
    from probeline.finetune.loss import ClassificationLoss

    rows, calls = ClassificationLoss.rows, []

    def broken(self, logits, labels):
        calls.append(1)
        return rows(self, logits, labels) * (float("nan") if len(calls) == 3 else 1.0)

    monkeypatch.setattr(ClassificationLoss, "rows", broken)
    said = refusal(toy, bert, tmp_path, max_grad_norm=None, mixed_precision="bf16")
    assert "the loss of step 3 is nan" in said
    # Quoted, since YAML's bare no is false.
    expected = 'a learning_rate below 0.005, or max_grad_norm: 1, or mixed_precision: "no"'
    assert expected in said


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_a_batch_too_large_for_the_memory(bert, toy, tmp_path, monkeypatch, error):
    from probeline.finetune.loss import ClassificationLoss

    def full(*_):
        raise error

    monkeypatch.setattr(ClassificationLoss, "rows", full)
    said = refusal(toy, bert, tmp_path, batch_size=8)
    assert "a batch of 8 texts does not fit into the memory of the cpu" in said
    assert "batch_size: 4 with gradient_accumulation: 2, or gradient_checkpointing: true" in said


def test_a_batch_of_the_evaluation_too_large_for_the_memory(bert, toy, tmp_path):
    """It is not of `batch_size` texts: that setting would not help."""

    def full(module, *_):
        if not module.training and type(module).__name__ == "BertModel":
            raise torch.OutOfMemoryError("CUDA out of memory")

    handle = register_module_forward_pre_hook(full)
    try:
        said = refusal(toy, bert, tmp_path, spec={"batch_tokens": 40})
    finally:
        handle.remove()
    assert re.search(r"a batch of \d+ texts x \d+ tokens does not fit the cpu memory; ", said)
    assert "set `batch_tokens` of this model below" in said


def test_a_checkpoint_that_the_disk_has_no_room_for(bert, toy, tmp_path, monkeypatch):
    """/dev/full takes nothing."""
    if not Path("/dev/full").is_char_device():
        pytest.skip("needs /dev/full, which this system does not have")
    save = torch.save
    monkeypatch.setattr(torch, "save", lambda value, path: save(value, "/dev/full"))
    said = refusal(toy, bert, tmp_path)
    assert f"{tmp_path}/state/checkpoint-6: the checkpoint cannot be written" in said
    assert not (tmp_path / "model").exists()


def test_half_precision_without_cuda(bert, toy, tmp_path):
    said = refusal(toy, bert, tmp_path, mixed_precision="fp16")
    assert said == "finetune.mixed_precision: fp16 needs CUDA, the device is cpu; use auto"


def test_an_integration_that_is_not_there(bert, toy, tmp_path):
    assert "nosuchthing" in refusal(toy, bert, tmp_path, report_to=["nosuchthing"])


def test_a_package_that_is_not_installed(bert, toy, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    said = refusal(toy, bert, tmp_path)
    assert said == "fine-tuning needs the package accelerate; run: pip install accelerate"
