"""More labels than the model has positions, through the whole training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from finetuning import FILLERS, run
from pyarrow import table
from tiny_models import WORDS, build

import probeline
from probeline.data.store import read_dataset
from probeline.data.writing import write_dataset
from probeline.errors import ProbelineError
from probeline.label_tokens.kind import read_kind
from probeline.label_tokens.shortlist import FirstStage
from probeline.probe.task import task_data
from probeline.results.predictions import read_predictions, write_predictions

LABELS, POSITIONS = 160, 64
SIZES = {"train": 320, "validation": 40, "test": 40}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> tuple[Path, Path]:
    """A pair of words in each text says which of 160 labels it has; and a model."""
    folder, rng = tmp_path_factory.mktemp("many"), np.random.default_rng(0)
    codes = rng.integers(LABELS, size=sum(SIZES.values()))
    codes[:LABELS] = np.arange(LABELS)
    texts = [f"{WORDS[code % 13]} {WORDS[13 + code // 13]} {rng.choice(FILLERS)}" for code in codes]
    names = [f"label {code}" for code in range(LABELS)]
    task = {"kind": "single", "labels": names, "counts": {}}
    description = {"name": "many", "tasks": {"label": task}}
    write_dataset(folder / "data", description, table({"text": texts}), SIZES, {"label": codes})
    return folder / "data", build("bert", folder / "bert")


@pytest.fixture(scope="module")
def first(inputs, tmp_path_factory) -> FirstStage:
    """Predictions that have the true label among ten in nine texts of ten."""
    data, _ = inputs
    folder = tmp_path_factory.mktemp("first")
    dataset, rng = read_dataset(data), np.random.default_rng(1)
    logits = rng.normal(size=(dataset.rows, LABELS)).astype(np.float32)
    found = rng.random(dataset.rows) < 0.9
    logits[found, dataset.labels("label")[found]] += 9
    task = task_data(dataset, "label")
    write_predictions(folder / "stc.h5", dataset, task, logits, {"method": "stc"})
    (folder / "classifier").mkdir()
    return FirstStage(folder / "stc.h5", folder / "classifier")


def test_one_pass_has_no_room_for_them(inputs, tmp_path):
    with pytest.raises(ProbelineError) as caught:
        run(*inputs, tmp_path, kind=read_kind({}), epochs=1)
    assert str(caught.value) == (
        "label tokens: 160 of them leave no room for text beside 3 special tokens in the model's "
        "64 positions; set chunk or shortlist to at most 60, or let them share a position"
    )


@pytest.mark.parametrize(
    "section",
    [
        {"chunk": 40},
        {"chunk": 40, "isolated": True},
        {"shortlist": 10},
        {"shortlist": 30, "chunk": 10, "isolated": True},
        {"shared_positions": True, "labels_attend": False},
    ],
    ids=str,
)
def test_they_train(inputs, first, tmp_path, section):
    data, _ = inputs
    given = first if "shortlist" in section else None
    model = run(*inputs, tmp_path, kind=read_kind(section, given), epochs=2, batch_size=32)
    history = json.loads((model / "training.json").read_text())["history"]
    losses = [row["loss"] for row in history if row["split"] == "train"]
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    stored = read_predictions(tmp_path / "predictions.h5").logits
    assert stored.shape == (sum(SIZES.values()), LABELS) and np.isfinite(stored).all()
    scores = json.loads((tmp_path / "scores.json").read_text())
    # One pass over all does not fit, so what chunks miss cannot be told; of a shortlist it can.
    fits = section.get("isolated") or section.get("shortlist", LABELS) < POSITIONS
    assert ("chunk_difference" in scores) == bool(section.get("chunk") and fits)
    if section.get("isolated"):
        assert scores["chunk_difference"] < 1e-4
    if "shortlist" in section:
        assert scores["shortlist"]["recall"]["test"] > 0.7
    else:
        texts = read_dataset(data).texts[:20]
        found = probeline.load(model, device="cpu").logits(texts)
        np.testing.assert_allclose(found, stored[:20], atol=1e-4)


def test_texts_are_cut_to_what_the_labels_leave(inputs, first, tmp_path):
    kinds = [read_kind({"chunk": 40}), read_kind({"shortlist": 20}, first)]
    for kind, room in zip(kinds, (24, 44), strict=True):
        folder = tmp_path / str(room)
        model = run(*inputs, folder, kind=kind, epochs=0.1)
        settings = json.loads((model / "training.json").read_text())["settings"]
        assert settings["max_length"] == room
