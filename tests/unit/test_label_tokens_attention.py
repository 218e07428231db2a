"""Attention from label tokens to text, against the body's own for one text at a time."""

from __future__ import annotations

import html
import re

import numpy as np
import pandas as pd
import pytest
import torch
from label_tokens import LABELS, classifier, extended, with_labels
from tiny_models import SENTENCES, VOCABULARY

from probeline.errors import ProbelineError
from probeline.label_tokens.attention import COLUMNS, label_attention, write_attention
from probeline.label_tokens.attention_page import attention_page
from probeline.label_tokens.tokens import fit_tokenizer


@pytest.mark.parametrize("kind", ["bert", "roberta", "gpt2", "t5"])
@torch.no_grad()
def test_weights_are_those_of_the_body(kind):
    model, words = classifier(kind)
    table = label_attention(
        model, words, SENTENCES, rows=[7, 3, *range(10, 8 + len(SENTENCES))], layers="all"
    )
    assert list(table.columns) == list(COLUMNS)
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


@pytest.mark.parametrize("kind", ["bert", "roberta", "gpt2"])
@torch.no_grad()
def test_texts_that_are_cut_and_pairs(kind):
    """Only what the model reads is there, special tokens marked."""
    model, words = classifier(kind)
    fit_tokenizer(words, 7, False)
    text, second = " ".join(SENTENCES), SENTENCES[1]
    for pair in (None, second):
        ids = words(text, pair, truncation=True)["input_ids"]
        assert len(ids) == 7
        table = label_attention(model, words, [text], None if pair is None else [pair])
        body = extended(model)
        body.set_attn_implementation("eager")
        whole = with_labels(model, ids)
        weights = body(torch.tensor([whole]), output_attentions=True).attentions[-1][0].mean(0)
        of_text = [at for at, token in enumerate(whole) if token < len(VOCABULARY)]
        for code, label in enumerate(LABELS):
            own = table[table["label"] == label]
            framing = [VOCABULARY["[CLS]"], VOCABULARY["[SEP]"]]
            assert list(own["special"]) == [token in framing for token in ids]
            place = whole.index(len(VOCABULARY) + code)
            np.testing.assert_allclose(own["weight"], weights[place, of_text], atol=1e-5)


@torch.no_grad()
def test_only_labels_on_the_shortlist_are_there():
    """Isolated, a label looks at a text as it does among all."""
    model, words = classifier("bert", isolated=True)
    whole = label_attention(model, words, SENTENCES[:2])
    lists = np.array([[0, 2], [1, 2]])
    some = label_attention(model, words, SENTENCES[:2], candidates=lists)
    assert some.groupby("row")["label"].agg(lambda own: sorted(set(own))).tolist() == [
        sorted(LABELS[code] for code in own) for own in lists
    ]
    keys = ["row", "label", "position"]
    both = some.merge(whole, on=keys, suffixes=("", "_whole"))
    assert len(both) == len(some)
    np.testing.assert_allclose(both["weight"], both["weight_whole"], atol=1e-5)


def test_pairs_and_files(tmp_path):
    model, words = classifier("bert")
    table = label_attention(model, words, SENTENCES[:1], SENTENCES[1:2])
    assert len(table) == len(LABELS) * len(words(SENTENCES[0], SENTENCES[1])["input_ids"])
    write_attention(table, tmp_path / "attention.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "attention.parquet"), table)
    write_attention(table, tmp_path / "attention.csv")
    assert len(pd.read_csv(tmp_path / "attention.csv")) == len(table)


def page_of(table, folder, **more) -> str:
    attention_page(table, "tiny & toy", folder / "attention.html", **more)
    return (folder / "attention.html").read_text()


def test_a_page_shows_the_labels_that_look_most(tmp_path):
    model, words = classifier("bert")
    table = label_attention(model, words, SENTENCES[:1], SENTENCES[1:2])
    table["token"] = table["token"].where(table["position"] != 1, "<b>")
    page = page_of(table, tmp_path, labels=2)
    assert "tiny &amp; toy" in page and page.count("&lt;b&gt;") == 2 and page.count("<p><b>") == 2
    # Of each line one token that is no special one is the darkest.
    assert page.count("rgba(0,114,178,1.00)") == 2
    special = int(table["special"].sum()) // len(LABELS)
    assert special == 3 and page.count("<i>") == 2 * special


def test_a_page_shows_the_labels_it_is_told_and_notes(tmp_path):
    model, words = classifier("bert")
    table = label_attention(model, words, SENTENCES[:2], rows=[4, 9])
    ranked = {4: [LABELS[2], "not read", LABELS[0]], 9: [LABELS[1]]}
    page = page_of(table, tmp_path, notes={4: "true <x>", 9: "true y"}, ranked=ranked)
    assert "<h2>Text 4: true &lt;x&gt;</h2>" in page and "<h2>Text 9: true y</h2>" in page
    shown = re.findall(r"<p><b>(.*?)</b>", page)
    assert shown == [html.escape(label) for label in (LABELS[2], LABELS[0], LABELS[1])]


def test_layers_that_are_none():
    model, words = classifier("bert")
    with pytest.raises(ProbelineError, match="layers: 'first' is not one of last, all"):
        label_attention(model, words, SENTENCES, layers="first")
    with pytest.raises(ProbelineError, match="no text; give one or more"):
        label_attention(model, words, [])
