"""Many labels: in several passes, or at one shared position."""

import numpy as np
import pytest
import torch
from label_tokens import FREE_PLACES, batch, classifier
from tiny_models import SENTENCES

from probeline.label_tokens.chunks import chunk_difference
from probeline.label_tokens.order import order_difference
from probeline.label_tokens.tokens import fit_tokenizer, text_room

MANY = [f"label {number}" for number in range(23)]


@pytest.mark.parametrize("kind", FREE_PLACES)
@torch.no_grad()
def test_isolated_chunks_equal_the_single_pass(kind):
    whole, words = classifier(kind, MANY, isolated=True)
    expected = whole(**batch(words)).logits
    for chunk in (1, 5, 22, 23, 100):
        parts, _ = classifier(kind, MANY, isolated=True, chunk=chunk)
        found = parts(**batch(words)).logits
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        # Merged by one softmax over all labels.
        torch.testing.assert_close(found.softmax(1), expected.softmax(1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"labels_attend": False}, {"isolated": True}], ids=str)
@pytest.mark.parametrize("kind", ["bert", "llama"])
@torch.no_grad()
def test_the_difference_of_chunks(kind, options):
    whole, words = classifier(kind, MANY, **options)
    parts, _ = classifier(kind, MANY, **options, chunk=10)
    halves = [batch(words, SENTENCES[:5]), batch(words, SENTENCES[5:])]
    expected = max(
        float((whole(**half).logits - parts(**half).logits).abs().max()) for half in halves
    )
    for model in (whole, parts):
        model.train()
        before = model.config.chunk
        assert chunk_difference(model, halves, 10) == pytest.approx(expected, abs=1e-5)
        assert model.config.chunk == before and model.training
    assert expected < 1e-4 if options.get("isolated") else expected > 1e-3


READINGS = {
    "joint": {},
    "unordered": {"shared_positions": True, "labels_attend": False},
    "isolated": {"isolated": True},
}


@pytest.mark.parametrize("chunk", [None, 10])
@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("kind", ["bert", "llama"])
@torch.no_grad()
def test_the_difference_that_the_order_makes(kind, reading, chunk):
    model, words = classifier(kind, MANY, **READINGS[reading], chunk=chunk)
    halves = [batch(words, SENTENCES[:5]), batch(words, SENTENCES[5:])]
    found = order_difference(model, halves)
    # By a classifier whose labels stand in the reverse order, within the passes of the first.
    size = chunk or len(MANY)
    order = [code for start in range(0, 23, size) for code in range(23)[start : start + size][::-1]]
    other, _ = classifier(kind, [MANY[code] for code in order], **READINGS[reading], chunk=chunk)
    other.label_embeddings.weight.copy_(model.label_embeddings.weight[order])
    largest, changed = 0.0, 0
    for half in halves:
        forth, back = model(**half).logits, other(**half).logits[:, np.argsort(order)]
        largest = max(largest, float((forth - back).abs().max()))
        changed += int((forth.argmax(1) != back.argmax(1)).sum())
    assert found["difference"] == pytest.approx(largest, abs=1e-5)
    assert found["changed"] == pytest.approx(changed / len(SENTENCES))
    assert found["difference"] > 1e-3 if reading == "joint" else found["difference"] < 1e-4


@torch.no_grad()
def test_a_chunk_is_a_classifier_of_its_labels():
    """In any mode: the pass over some labels is the model that has only these."""
    parts, words = classifier("bert", MANY, chunk=10)
    found = parts(**batch(words)).logits
    for start in range(0, len(MANY), 10):
        some = MANY[start : start + 10]
        alone, _ = classifier("bert", some)
        alone.label_embeddings.weight.copy_(parts.label_embeddings.weight[start : start + 10])
        expected = alone(**batch(words)).logits
        np.testing.assert_allclose(found[:, start : start + 10], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{"chunk": 20}, {"shared_positions": True}], ids=str)
@pytest.mark.parametrize("kind", ["bert", "roberta", "gpt2"])
def test_more_labels_than_positions_train(kind, options):
    labels = [f"label {number}" for number in range(150)]
    model, words = classifier(kind, labels, **options)
    positions = 62 if kind == "roberta" else 64
    special = words.num_special_tokens_to_add(pair=True)
    room = text_room(model.config, positions, special, 512)
    fit_tokenizer(words, room, token_types=False)
    long = [f"{text} {' '.join(SENTENCES)}" for text in SENTENCES]
    inputs = words(long, truncation=True, padding=True, return_tensors="pt")
    assert inputs["input_ids"].shape[1] == room
    truth = torch.arange(len(long)) * 7
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(8):
        loss = model(**inputs, labels=truth).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert model.label_embeddings.weight.grad.abs().sum(1).min() > 0
    assert losses[-1] < losses[0]
