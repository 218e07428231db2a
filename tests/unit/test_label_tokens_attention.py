"""Attention from label tokens to text, against the body's own for one text at a time."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from label_tokens import LABELS, classifier, extended, with_labels
from tiny_models import SENTENCES, VOCABULARY

from probeline.errors import ProbelineError
from probeline.label_tokens.attention import attention_page, label_attention, write_attention

COLUMNS = ["row", "layer", "label", "token", "position", "weight"]


@pytest.mark.parametrize("kind", ["bert", "roberta", "gpt2", "t5"])
@torch.no_grad()
def test_weights_are_those_of_the_body(kind):
    model, words = classifier(kind)
    table = label_attention(
        model, words, SENTENCES, rows=[7, 3, *range(10, 8 + len(SENTENCES))], layers="all"
    )
    assert list(table.columns) == COLUMNS
    body = extended(model)
    body.set_attn_implementation("eager")
    for row, text in zip([7, 3], SENTENCES, strict=False):
        ids = words(text)["input_ids"]
        whole = with_labels(model, ids)
        every = body(torch.tensor([whole]), output_attentions=True).attentions
        of_text = [at for at, token in enumerate(whole) if token < len(VOCABULARY)]
        for code, label in enumerate(LABELS):
            place = whole.index(len(VOCABULARY) + code)
            for layer, weights in enumerate(every, start=1):
                own = table[
                    (table["row"] == row) & (table["layer"] == layer) & (table["label"] == label)
                ]
                assert list(own["token"]) == words.convert_ids_to_tokens(ids)
                assert list(own["position"]) == list(range(len(ids)))
                expected = weights[0].mean(0)[place, of_text]
                np.testing.assert_allclose(own["weight"], expected, atol=1e-5)
    assert table["layer"].nunique() == len(every)


@torch.no_grad()
def test_the_last_layer_and_what_goes_to_other_labels():
    model, words = classifier("bert", labels_attend=False)
    table = label_attention(model, words, SENTENCES[:2])
    assert set(table["layer"]) == {model.config.body.num_hidden_layers}
    assert set(table["row"]) == {0, 1}
    total = table.groupby(["row", "label"])["weight"].sum()
    # A label token attends to itself too.
    assert ((total > 0) & (total < 1)).all()


@torch.no_grad()
def test_chunks_are_read_as_the_model_reads_them():
    model, words = classifier("bert", isolated=True)
    whole = label_attention(model, words, SENTENCES[:2], layers="all")
    model.config.chunk = 2
    parts = label_attention(model, words, SENTENCES[:2], layers="all")
    order = ["row", "layer", "label", "position"]
    pd.testing.assert_frame_equal(
        parts.sort_values(order, ignore_index=True),
        whole.sort_values(order, ignore_index=True),
        atol=1e-5,
    )


def test_the_model_is_left_as_it_was():
    model, words = classifier("bert")
    model.body.set_attn_implementation("sdpa")
    model.train()
    label_attention(model, words, SENTENCES[:1])
    assert model.training and model.body.config._attn_implementation == "sdpa"


def test_pairs_and_files(tmp_path):
    model, words = classifier("bert")
    table = label_attention(model, words, SENTENCES[:1], SENTENCES[1:2])
    assert len(table) == len(LABELS) * len(words(SENTENCES[0], SENTENCES[1])["input_ids"])
    write_attention(table, tmp_path / "attention.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "attention.parquet"), table)
    write_attention(table, tmp_path / "attention.csv")
    assert len(pd.read_csv(tmp_path / "attention.csv")) == len(table)
    table["token"] = table["token"].where(table["position"] != 1, "<b>")
    attention_page(table, "tiny & toy", tmp_path / "attention.html", labels=2)
    page = (tmp_path / "attention.html").read_text()
    assert "tiny &amp; toy" in page and page.count("&lt;b&gt;") == 2 and page.count("<p><b>") == 2
    assert page.count("rgba(0,114,178,1.00)") >= 2


def test_layers_that_are_none():
    model, words = classifier("bert")
    with pytest.raises(ProbelineError, match="layers: 'first' is not one of last, all"):
        label_attention(model, words, SENTENCES, layers="first")
