"""The loss and the batches, as computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from finetuning import write_toy
from tiny_models import build

from probeline.activations.batching import Tokens, tokenize
from probeline.data.store import read_dataset
from probeline.finetune.batches import EpochBatches, EpochLoader, TrainRows, tokenize_dataset
from probeline.finetune.loss import classification_loss
from probeline.models.load import load_model
from probeline.probe.task import TaskData


def task_of(y, classes: int) -> TaskData:
    y = np.asarray(y)
    multilabel = y.ndim == 2
    return TaskData(
        "label",
        tuple(f"l{k}" for k in range(classes)),
        multilabel,
        "micro-f1" if multilabel else "accuracy",
        {"train": np.arange(len(y))},
        {"train": y},
    )


def test_class_weights_are_those_of_scikit_learn():
    y = np.array([0, 0, 0, 1])
    logits = np.array([[2.0, 0.0], [1.0, 1.0], [0.0, 1.0], [3.0, 0.0]], np.float32)
    each = np.log(np.exp(logits).sum(1)) - logits[np.arange(4), y]
    plain = classification_loss(task_of(y, 2), None, 0.0).mean(logits, y)
    assert plain == pytest.approx(each.mean())
    # n / (classes * count): 4 / (2 * 3) and 4 / (2 * 1).
    weighted = classification_loss(task_of(y, 2), "balanced", 0.0).mean(logits, y)
    assert weighted == pytest.approx((each * [2 / 3, 2 / 3, 2 / 3, 2]).mean())
    assert weighted != pytest.approx(plain)


def test_a_class_that_train_lacks_is_no_harm():
    loss = classification_loss(task_of([0, 2, 2], 3), "balanced", 0.0)
    np.testing.assert_allclose(loss.weights.numpy(), [1.5, 0.0, 0.75])


def test_label_weights_and_smoothing_of_several_labels():
    y = np.array([[1, 0], [0, 0], [0, 0], [0, 1]], np.uint8)
    logits = np.array([[1.0, -1.0], [0.5, 0.0], [-2.0, 1.0], [0.0, 3.0]], np.float32)
    target = y * 0.8 + 0.1
    each = np.logaddexp(0, logits) - target * logits
    weight = np.where(y > 0, 4 / 2, 4 / 6)
    found = classification_loss(task_of(y, 2), "balanced", 0.2).mean(logits, y)
    assert found == pytest.approx((each * weight).mean(), rel=1e-6)


def test_smoothing_of_one_label():
    y = np.array([1])
    logits = np.array([[1.0, 2.0, 0.0]], np.float32)
    log_p = logits - np.log(np.exp(logits).sum())
    expected = -(0.9 * log_p[0, 1] + 0.1 * log_p.mean())
    found = classification_loss(task_of([0, 1, 2], 3), None, 0.1).mean(logits, y)
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("pairs", [False, True])
def test_texts_are_tokenized_in_blocks_as_all_at_once(tmp_path, monkeypatch, pairs):
    model = load_model({"path": str(build("bert", tmp_path / "bert")), "device": "cpu"})
    dataset = read_dataset(write_toy(tmp_path / "data", pairs=pairs))
    monkeypatch.setattr("probeline.finetune.batches._TEXTS_AT_ONCE", 7)
    found = tokenize_dataset(model, dataset)
    whole = tokenize(model, dataset.texts, dataset.pairs)
    assert [text.tolist() for text in found.ids] == whole.ids
    assert {text.dtype for text in found.ids} == {np.dtype("int32")}
    assert (found.types is None) == (whole.types is None) == (not pairs)
    if pairs:
        assert [text.tolist() for text in found.types] == whole.types
    np.testing.assert_array_equal(found.before, whole.before)


@pytest.fixture
def rows():
    lengths = np.random.default_rng(0).integers(1, 20, 103)
    ids = [[7] * int(length) for length in lengths]
    return TrainRows(Tokens(ids, None, lengths.astype(np.int32)), torch.arange(103), pad_id=0)


@pytest.mark.parametrize("group", [False, True])
def test_every_row_once_an_epoch_in_an_order_of_seed_and_epoch(rows, group):
    batches = EpochBatches(rows.tokens.lengths, 8, group, seed=3)
    first = list(batches)
    assert len(first) == len(batches) == 13
    assert sorted(row for batch in first for row in batch) == list(range(103))
    assert list(batches) == first
    batches.set_epoch(1)
    assert list(batches) != first
    assert list(EpochBatches(rows.tokens.lengths, 8, group, seed=4)) != first


def test_grouping_pads_less(rows):
    def padding(group):
        batches = EpochBatches(rows.tokens.lengths, 8, group, seed=3)
        lengths = rows.tokens.lengths
        return sum(lengths[batch].max() * len(batch) - lengths[batch].sum() for batch in batches)

    assert padding(True) < padding(False) / 3


def test_batches_are_padded_on_the_right_and_leave_the_generator_alone(rows):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    loader = EpochLoader(rows, EpochBatches(rows.tokens.lengths, 8, False, seed=3))
    for batch in loader:
        lengths = rows.tokens.lengths[batch["labels"].numpy()]
        np.testing.assert_array_equal(batch["attention_mask"].sum(1).numpy(), lengths)
        assert (batch["input_ids"][:, 0] == 7).all()
        assert ((batch["input_ids"] == 7) == (batch["attention_mask"] == 1)).all()
    assert torch.equal(torch.random.get_rng_state(), before)
