"""The regular classifier that labels as tokens are compared with: its thresholds of labels."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from finetuning import run, write_multilabel
from sklearn.metrics import f1_score
from tiny_models import build

import probeline
from probeline.data.store import read_dataset
from probeline.finetune.kind import Counterpart
from probeline.results.predictions import read_predictions

# Too few steps to learn it all, so that thresholds matter.
TRAINING = {"epochs": 4, "learning_rate": 2e-3, "evaluations": 2}
GRID = [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8, 0.9]


@dataclass
class Trained:
    """One training, and its logits by plain transformers, one text at a time."""

    model: Path
    texts: list[str]
    logits: np.ndarray
    truth: np.ndarray
    rows: dict[str, slice]

    @property
    def scores(self) -> dict:
        return json.loads((self.model.parent / "scores.json").read_text())

    @property
    def validation_scores(self) -> list[float]:
        """That of each evaluation."""
        history = json.loads((self.model / "training.json").read_text())["history"]
        return [one["score"] for one in history if one["split"] == "validation"]

    def f1(self, split: str, thresholds, average: str = "micro") -> float:
        """scikit-learn's, of labels that are predicted above logits."""
        rows = self.rows[split]
        decided = self.logits[rows] > np.asarray(thresholds)
        return f1_score(self.truth[rows], decided, average=average, zero_division=0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train by thresholds and metric."""
    data = write_multilabel(tmp_path_factory.mktemp("data"))
    bert = build("bert", tmp_path_factory.mktemp("bert"))
    dataset = read_dataset(data)

    def make(thresholds: str, metric: str | None = None) -> Trained:
        folder = tmp_path_factory.mktemp(thresholds)
        model = run(data, bert, folder, metric=metric, kind=Counterpart(thresholds), **TRAINING)
        rows = {split: slice(*dataset.offsets[split]) for split in ("validation", "test")}
        logits = plain_logits(model, dataset.texts)
        return Trained(model, dataset.texts, logits, dataset.labels("label"), rows)

    return make


def plain_logits(model: Path, texts) -> np.ndarray:
    auto = transformers.AutoModelForSequenceClassification
    body, found = auto.from_pretrained(model).eval(), []
    words = transformers.AutoTokenizer.from_pretrained(model)
    for text in texts:
        with torch.no_grad():
            found.append(body(**words(text, return_tensors="pt")).logits[0].numpy())
    return np.array(found)


def logit(p: float) -> float:
    return float(np.log(p / (1 - p)))


def nearest_first() -> list[float]:
    """Logits of the grid, those near 0 first, so that the first of equal ones is the nearest."""
    return sorted((logit(p) for p in GRID), key=abs)


def check_stored(trained: Trained, thresholds: list[float]) -> None:
    """A label is predicted above 0 of what is stored; file, config and answers say the same."""
    stored = read_predictions(trained.model.parent / "predictions.h5")
    assert (stored.meta["method"], stored.meta["variant"]) == ("regular", "full")
    assert np.ravel(stored.meta["threshold"]) == pytest.approx(
        np.ravel(trained.scores["threshold"])
    )
    np.testing.assert_allclose(stored.logits, trained.logits - np.array(thresholds), atol=2e-5)
    config = transformers.AutoConfig.from_pretrained(trained.model)
    assert config.problem_type == "multi_label_classification"
    metric = trained.scores["metric"].removesuffix("-f1")
    above = trained.logits > np.array(thresholds)
    answers = probeline.load(trained.model, device="cpu").predict(trained.texts)
    assert [answer["labels"] for answer in answers] == [
        [label for label, holds in zip("abc", row, strict=True) if holds] for row in above
    ]
    for split in ("validation", "test"):
        own = trained.scores[f"{split}_score"]
        assert own == pytest.approx(trained.f1(split, thresholds, metric))
        for name in ("micro", "macro"):
            told = trained.scores["multilabel"][split][f"{name}-f1"]
            assert told == pytest.approx(trained.f1(split, thresholds, name))


def test_fixed_thresholds_are_a_probability_of_a_half(trained):
    found = trained("fixed")
    assert found.scores["threshold"] == 0.0
    check_stored(found, [0.0] * 3)
    # Validation would say otherwise, but is not asked: neither here nor for the step that is kept.
    best = max(found.f1("validation", one) for one in nearest_first())
    assert best > found.f1("validation", 0.0) == pytest.approx(max(found.validation_scores))


def test_thresholds_per_label_are_the_best_that_one_label_can_change(trained):
    """Label by label from the best common one, by a loop over scikit-learn's micro-F1."""
    found = trained("per-label")
    chosen = max(nearest_first(), key=lambda one: found.f1("validation", one))
    thresholds, before = [chosen] * 3, None
    while thresholds != before:
        before = list(thresholds)
        for label in range(3):
            tried = [[*thresholds], *([*thresholds] for _ in GRID)]
            for other, value in zip(tried[1:], nearest_first(), strict=True):
                other[label] = value
            thresholds = max(tried, key=lambda one: found.f1("validation", one))
    assert len({round(one, 3) for one in thresholds}) > 1
    assert found.scores["threshold"] == pytest.approx(thresholds, rel=1e-5)
    check_stored(found, thresholds)
    assert found.f1("validation", thresholds) > found.f1("validation", chosen)


def test_thresholds_per_label_of_macro_f1_are_the_best_of_all(trained):
    """Tried together: 15 for each of three labels."""
    found = trained("per-label", "macro-f1")
    thresholds = found.scores["threshold"]
    probabilities = [1 / (1 + np.exp(-one)) for one in thresholds]
    assert all(min(abs(p - tried) for tried in GRID) < 1e-6 for p in probabilities)
    check_stored(found, thresholds)
    rows = found.rows["validation"]
    each = [
        [
            f1_score(found.truth[rows, label], found.logits[rows, label] > one, zero_division=0)
            for one in nearest_first()
        ]
        for label in range(3)
    ]
    best = max(np.mean(together) for together in itertools.product(*each))
    assert found.f1("validation", thresholds, "macro") == pytest.approx(best)
    # One for all is not as good.
    assert best > max(found.f1("validation", one, "macro") for one in nearest_first())
