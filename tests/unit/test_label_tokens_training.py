"""Labels as tokens through the training of `finetune`: what is written, and what it answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from finetuning import run, write_multilabel, write_toy
from sklearn import metrics
from tiny_models import build

import probeline
from probeline.data.store import read_dataset
from probeline.errors import ProbelineError
from probeline.label_tokens.kind import read_kind
from probeline.results.predictions import read_predictions

TRAINING = {"epochs": 8}


def train(data: Path, model: Path, folder: Path, section=None, **options) -> Path:
    return run(data, model, folder, kind=read_kind(section or {}), **{**TRAINING, **options})


def scores_of(model: Path) -> dict:
    return json.loads((model.parent / "scores.json").read_text())


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return build("bert", tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def single(bert, tmp_path_factory):
    data = write_toy(tmp_path_factory.mktemp("data"), classes=3)
    return data, train(data, bert, tmp_path_factory.mktemp("single"))


@pytest.fixture(scope="module")
def several(bert, tmp_path_factory):
    data = write_multilabel(tmp_path_factory.mktemp("data"))
    section = {"thresholds": "per-label", "chunk": 2}
    return data, train(data, bert, tmp_path_factory.mktemp("several"), section)


def test_it_learns(single):
    _, model = single
    # Three classes of equal size.
    assert scores_of(model)["test_score"] > 0.8


def test_what_is_written_names_method_and_variant(single):
    _, model = single
    stored = read_predictions(model.parent / "predictions.h5")
    assert (stored.meta["method"], stored.meta["variant"]) == ("label-tokens", "mix")
    assert stored.labels == ["label 0", "label 1", "label 2"]


def test_the_folder_answers_as_the_stored_logits_say(single):
    data, model = single
    texts = read_dataset(data).texts
    stored = read_predictions(model.parent / "predictions.h5").logits
    loaded = probeline.load(model, device="cpu")
    assert np.allclose(loaded.logits(texts), stored, atol=1e-5)
    labels = [answer["label"] for answer in loaded.predict(texts[:9])]
    assert labels == [loaded.labels[code] for code in stored[:9].argmax(1)]


def test_a_pipeline_answers_the_same(single):
    data, model = single
    texts = read_dataset(data).texts[:6]
    loaded = probeline.load(model, device="cpu")
    pipe = transformers.pipeline("text-classification", str(model), device="cpu", top_k=None)
    for text, found in zip(texts, pipe(texts), strict=True):
        expected = loaded.predict(text)[0]["scores"]
        assert {one["label"]: one["score"] for one in found} == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("kind", ["regular", "tokens"])
def test_a_regular_model_s_folder_answers_too(bert, tmp_path, kind):
    data = write_toy(tmp_path / "data", pairs=True)
    make = run if kind == "regular" else train
    model = make(data, bert, tmp_path, epochs=2)
    dataset = read_dataset(data)
    loaded = probeline.load(model, device="cpu")
    stored = read_predictions(tmp_path / "predictions.h5").logits
    assert np.allclose(loaded.logits(dataset.texts, dataset.pairs), stored, atol=1e-5)
    with pytest.raises(ProbelineError, match="trained on pairs of texts"):
        loaded.logits(dataset.texts)
    with pytest.raises(ProbelineError, match="not a reranker folder"):
        probeline.load(model, device="cpu", rerank=tmp_path)


def test_thresholds_of_several_labels(several):
    data, model = several
    stored = read_predictions(model.parent / "predictions.h5")
    truth = read_dataset(data).labels("label")
    found = scores_of(model)
    probabilities = 1 / (1 + np.exp(-(stored.logits + np.array(found["threshold"]))))
    config = transformers.AutoConfig.from_pretrained(model)
    assert config.thresholds == pytest.approx(1 / (1 + np.exp(-np.array(found["threshold"]))))
    for split in ("validation", "test"):
        rows = stored.rows_of(split)
        y, p = truth[rows], probabilities[rows]
        decided = p > np.array(config.thresholds)
        expected = {
            "micro-f1": metrics.f1_score(y, decided, average="micro"),
            "macro-f1": metrics.f1_score(y, decided, average="macro"),
            "subset-accuracy": metrics.accuracy_score(y, decided),
            "roc-auc-micro": metrics.roc_auc_score(y, p, average="micro"),
        }
        assert found["multilabel"][split] == pytest.approx(expected, abs=1e-6)
        assert found[f"{split}_score"] == pytest.approx(expected["micro-f1"])
    loaded = probeline.load(model, device="cpu")
    dataset = read_dataset(data)
    for answer, row in zip(loaded.predict(dataset.texts), stored.logits, strict=True):
        assert answer["labels"] == [k for k, z in zip(loaded.labels, row, strict=True) if z > 0]
    assert np.allclose(loaded.scores(dataset.texts), probabilities, atol=1e-5)


def test_what_stands_for_a_label_is_written_down():
    settings = read_kind({"label_texts": {"a": "some words", "b": ["one", "two"]}}).settings()
    assert settings["label_tokens"]["texts"] == {"a": ["some words"], "b": ["one", "two"]}


def test_fixed_thresholds_are_a_half(bert, several, tmp_path):
    data, _ = several
    model = train(data, bert, tmp_path, {"thresholds": "fixed"}, epochs=2)
    assert scores_of(model)["threshold"] == 0
    assert transformers.AutoConfig.from_pretrained(model).thresholds == [0.5] * 3


def test_what_chunks_change_is_reported(several, tmp_path):
    data, model = several
    texts = [
        read_dataset(data).texts[row] for row in range(*read_dataset(data).offsets["validation"])
    ]
    body = transformers.AutoModelForSequenceClassification.from_pretrained(model).eval()
    words = transformers.AutoTokenizer.from_pretrained(model)
    assert body.config.chunk == 2
    largest = 0.0
    with torch.inference_mode():
        for text in texts:
            inputs = words(text, return_tensors="pt")
            body.config.chunk = 2
            parts = body(**inputs).logits
            body.config.chunk = None
            largest = max(largest, float((parts - body(**inputs).logits).abs().max()))
    assert scores_of(model)["chunk_difference"] == pytest.approx(largest, abs=1e-5)
    assert largest > 1e-3


def test_no_difference_of_chunks_where_one_pass_does_not_fit(bert, several, tmp_path):
    data, _ = several
    longest = transformers.AutoConfig.from_pretrained(bert).max_position_embeddings
    section = {"chunk": 1}
    # Texts of the whole window, but for one label's place.
    long = _lengthened(data, tmp_path / "data", longest)
    model = train(long, bert, tmp_path, section, epochs=0.1)
    assert "chunk_difference" not in scores_of(model)


def _lengthened(data: Path, folder: Path, words: int) -> Path:
    import shutil

    import pyarrow as pa
    import pyarrow.parquet as pq

    shutil.copytree(data, folder)
    table = pq.read_table(folder / "texts.parquet")
    texts = [" ".join([text] * words) for text in table["text"].to_pylist()]
    place = table.column_names.index("text")
    changed = table.set_column(place, "text", pa.array(texts, table.schema.field("text").type))
    pq.write_table(changed, folder / "texts.parquet")
    return folder


@pytest.mark.parametrize(
    ("kind", "section", "options"),
    [
        ("gpt2", {}, {}),
        ("t5", {"labels_attend": False}, {}),
        ("llama", {"isolated": True, "chunk": 1}, {"gradient_checkpointing": True}),
        ("modernbert", {"isolated": True}, {"mixed_precision": "bf16"}),
        ("roberta", {"shared_positions": True}, {"gradient_accumulation": 2}),
    ],
)
def test_other_families_train_and_come_back(kind, section, options, tmp_path):
    data, body = write_toy(tmp_path / "data", train=24), build(kind, tmp_path / "body")
    model = train(data, body, tmp_path, section, epochs=1, **options)
    stored = read_predictions(tmp_path / "predictions.h5").logits
    found = probeline.load(model, device="cpu").logits(read_dataset(data).texts)
    # Half precision is that of the training job alone.
    assert np.allclose(found, stored, atol=0.05 if options.get("mixed_precision") else 1e-4)


def test_both_kinds_train_alike(bert, single, tmp_path):
    """One training: the same rows in the same order, whatever is trained."""
    data, model = single
    other = run(data, bert, tmp_path, **TRAINING)
    mine, theirs = (json.loads((path / "training.json").read_text()) for path in (model, other))
    assert mine["options"] == theirs["options"]
    # What the labels take, texts cannot have.
    assert theirs["settings"].pop("max_length") == mine["settings"]["max_length"] + 3
    shared = theirs["settings"].keys()
    assert {key: mine["settings"][key] for key in shared} == theirs["settings"]
    steps = [[(one["step"], one["split"]) for one in found["history"]] for found in (mine, theirs)]
    assert steps[0] == steps[1]


@pytest.mark.parametrize(
    ("section", "options", "expected"),
    [
        ({"initialisation": "mix"}, {}, "label_tokens: 'initialisation' is not one of"),
        ({"initialization": "maen"}, {}, "label_tokens.initialization: expected one of random"),
        (
            {"chunk": 0},
            {},
            "label_tokens.chunk: expected an integer of 1 or more, or null, found 0",
        ),
        ({"position": "suffix"}, {"lora": {}}, "label_tokens.finetune.lora: label tokens are"),
        ({"thresholds": "best"}, {}, "label_tokens.thresholds: expected one of fixed, chosen"),
        ({"label_texts": {"labl 0": "x"}}, {}, "label_texts: 'labl 0' is not one of"),
    ],
)
def test_mistakes_are_one_line(bert, single, tmp_path, section, options, expected):
    data, _ = single
    with pytest.raises(ProbelineError) as caught:
        train(data, bert, tmp_path, section, **options)
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)
