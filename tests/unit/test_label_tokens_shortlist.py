"""Only the labels that a first stage ranks highest are read."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from finetuning import write_multilabel, write_toy
from label_tokens import batch, classifier
from sklearn.metrics import top_k_accuracy_score
from tiny_models import SENTENCES

from probeline.data.store import read_dataset
from probeline.errors import ProbelineError
from probeline.label_tokens.model import NOT_READ
from probeline.label_tokens.shortlist import read_shortlist, recall, shortlist, with_truth
from probeline.probe.task import task_data
from probeline.results.predictions import write_predictions

LABELS = [f"label {code}" for code in range(7)]


def chosen_for(texts: int, count: int, labels: int = 7) -> torch.Tensor:
    rng = np.random.default_rng(3)
    return torch.tensor(shortlist(rng.normal(size=(texts, labels)), count))


@pytest.mark.parametrize("kind", ["bert", "roberta", "gpt2"])
@pytest.mark.parametrize("chunk", [None, 2])
@torch.no_grad()
def test_isolated_logits_are_those_of_a_pass_over_all(kind, chunk):
    model, words = classifier(kind, LABELS, isolated=True)
    inputs = batch(words)
    whole = model(**inputs).logits
    candidates = chosen_for(len(SENTENCES), 3)
    model.config.chunk = chunk
    found = model(**inputs, candidates=candidates).logits
    read = torch.zeros_like(whole, dtype=torch.bool).scatter(1, candidates, True)
    torch.testing.assert_close(found[read], whole[read], atol=2e-5, rtol=1e-4)
    lowest = whole.masked_fill(~read, 0).amin(1, keepdim=True).clamp(max=0)
    torch.testing.assert_close(
        found[~read], (lowest - NOT_READ).expand_as(found)[~read], atol=2e-5, rtol=1e-4
    )
    assert read.sum() == 3 * len(SENTENCES)


@torch.no_grad()
def test_other_labels_are_not_there():
    """Where labels attend to each other, as in a classifier that has no others."""
    model, words = classifier("bert", LABELS)
    small, _ = classifier("bert", ["a", "b"])
    inputs = batch(words)
    small.body.load_state_dict(model.body.state_dict())
    small.classifier.load_state_dict(model.classifier.state_dict())
    codes = torch.tensor([5, 2])
    small.label_embeddings.weight.copy_(model.label_embeddings.weight[codes])
    found = model(**inputs, candidates=codes.expand(len(SENTENCES), -1)).logits
    torch.testing.assert_close(found[:, codes], small(**inputs).logits, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_a_shortlist_of_all_changes_nothing():
    model, words = classifier("bert", LABELS)
    inputs = batch(words)
    every = torch.arange(7).expand(len(SENTENCES), -1)
    assert torch.equal(model(**inputs, candidates=every).logits, model(**inputs).logits)


def test_only_labels_that_are_read_are_trained():
    model, words = classifier("bert", LABELS)
    inputs = batch(words)
    candidates = torch.tensor([0, 4]).expand(len(SENTENCES), -1)
    labels = torch.zeros(len(SENTENCES), dtype=torch.int64)
    model(**inputs, candidates=candidates, labels=labels).loss.backward()
    moved = model.label_embeddings.weight.grad.abs().sum(1) > 0
    assert moved.tolist() == [code in (0, 4) for code in range(7)]


def test_recall_by_scikit_learn():
    rng = np.random.default_rng(0)
    logits, y = rng.normal(size=(50, 9)), rng.integers(9, size=50)
    for count in (1, 3, 8):
        expected = top_k_accuracy_score(y, logits, k=count, labels=range(9))
        assert recall(shortlist(logits, count), y) == pytest.approx(expected)
    assert shortlist(logits, 20).shape == (50, 9) and recall(shortlist(logits, 20), y) == 1


def test_recall_of_several_labels_by_hand():
    logits = np.array([[3.0, 2, 1, 0], [0, 1, 2, 3], [1, 1, 1, 1]])
    y = np.array([[1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]])
    chosen = shortlist(logits, 2)
    assert chosen.tolist() == [[0, 1], [3, 2], [0, 1]]
    assert recall(chosen, y) == pytest.approx(2 / 3)
    assert np.isnan(recall(chosen, np.zeros_like(y)))


def test_the_truth_is_put_last():
    chosen = np.array([[3, 1], [0, 2], [1, 0]])
    assert with_truth(chosen, np.array([1, 1, 3])).tolist() == [[3, 1], [0, 1], [1, 3]]
    y = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]])
    found = with_truth(chosen, y)
    assert set(found[0]) == {0, 1} and found[1].tolist() == [0, 2] and set(found[2]) == {0, 1}
    assert chosen.tolist() == [[3, 1], [0, 2], [1, 0]]


@pytest.mark.parametrize("write", [write_toy, write_multilabel])
def test_stored_predictions_give_a_shortlist(tmp_path, write):
    dataset = read_dataset(write(tmp_path / "data"))
    task = task_data(dataset, "label")
    logits = np.random.default_rng(0).normal(size=(dataset.rows, task.classes)).astype(np.float32)
    write_predictions(tmp_path / "probe.h5", dataset, task, logits, {"method": "probe"})
    chosen, found = read_shortlist(tmp_path / "probe.h5", dataset, task, 1)
    np.testing.assert_array_equal(chosen[:, 0], logits.argmax(axis=1))
    test = task.rows["test"]
    assert found["test"] == recall(chosen[test], task.y["test"])
    assert set(found) == {"train", "validation", "test"}


def test_predictions_that_do_not_fit(tmp_path):
    dataset = read_dataset(write_toy(tmp_path / "data", classes=3))
    other = read_dataset(write_toy(tmp_path / "other", classes=2))
    task, path = task_data(dataset, "label"), tmp_path / "probe.h5"
    logits = np.zeros((dataset.rows, 3), np.float32)
    write_predictions(path, dataset, task, logits, {"method": "probe"})
    with pytest.raises(ProbelineError, match="predictions of other texts"):
        read_shortlist(path, other, task_data(other, "label"), 1)
    logits[5] = np.nan
    write_predictions(path, dataset, task, logits, {"method": "icl"})
    with pytest.raises(ProbelineError, match="not every text has logits"):
        read_shortlist(path, dataset, task, 1)
    with pytest.raises(ProbelineError, match="0 labels per text; expected 1 or more"):
        shortlist(np.zeros((2, 3)), 0)
    with pytest.raises(ProbelineError, match="row 1 of the first stage's logits"):
        shortlist(np.array([[0.0, 1], [np.nan, 1]]), 1)
