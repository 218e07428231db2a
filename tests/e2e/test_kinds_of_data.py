"""A hierarchy, several labels per text, and pairs of texts, through the workflow to predictions."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pandas as pd
import predicting
import pytest
import snake
import tiny_project
from tiny_project import CLASSES, COMMON, MODEL, write_csv

from probeline.results.predictions import read_predictions

# The words of the leaves of a hierarchy, and the labels on the way to each.
FOOD, SPORT, WEATHER = CLASSES.values()
LEAVES = {
    ("inside", "none", "none"): FOOD,
    ("outside", "weather", "none"): WEATHER,
    ("outside", "sport", "team"): SPORT[:4],
    ("outside", "sport", "track"): SPORT[4:],
}
LEVELS = ["place", "topic", "kind"]
SPLITS = {"validation": 0.25, "test": 0.25}


def sentence(rng: random.Random, *words: str) -> str:
    """Return `words` among three common ones, in any order."""
    mixed = [*words, *rng.choices(COMMON, k=3)]
    rng.shuffle(mixed)
    return " ".join(mixed)


def hierarchy(rng: random.Random) -> list[tuple]:
    return [
        (sentence(rng, *rng.choices(words, k=4)), *path)
        for _ in range(40)
        for path, words in LEAVES.items()
    ]


def several_labels(rng: random.Random) -> list[dict]:
    rows = []
    for number in range(160):
        labels = [label for bit, label in enumerate(CLASSES) if number >> bit & 1]
        words = [rng.choice(CLASSES[label]) for label in labels for _ in range(2)]
        rows.append({"text": sentence(rng, *words), "label": labels})
    return rows


def pairs(rng: random.Random) -> list[tuple]:
    """The label is the class of the second text; the first is of any class."""
    return [
        (
            sentence(rng, *rng.choices(rng.choice([FOOD, SPORT]), k=2)),
            sentence(rng, *rng.choices(words, k=4)),
            label,
        )
        for _ in range(60)
        for label, words in (("yes", FOOD), ("no", WEATHER))
    ]


CONFIG = tiny_project.edited(
    (
        "datasets",
        {
            "levels": {
                "loader": "csv",
                "path": "levels.csv",
                "label": LEVELS,
                "undefined": "none",
                "splits": SPLITS,
                "metric": {"place": "accuracy", "topic": "macro-f1", "kind": "macro-f1"},
            },
            "tags": {"loader": "json", "path": "tags.jsonl", "splits": SPLITS},
            "pairs": {
                "loader": "tsv",
                "path": "pairs.tsv",
                "text": ["premise", "hypothesis"],
                "splits": SPLITS,
            },
        },
    ),
    ("extract.representations", ["hidden"]),
    ("extract.poolings", ["mean"]),
    ("combinations", None),
)
CELLS = [*(("levels", level) for level in LEVELS), ("tags", "label"), ("pairs", "label")]


@pytest.fixture(scope="module")
def done(tmp_path_factory, tiny_model) -> Path:
    """The folder of a run over the three datasets, its figures left out."""
    rng = random.Random(3)
    folder = tiny_project.build_project(
        tmp_path_factory.mktemp("kinds") / "project", tiny_model, CONFIG
    )
    write_csv(folder / "levels.csv", hierarchy(rng), ("text", *LEVELS))
    lines = [json.dumps(row) + "\n" for row in several_labels(rng)]
    (folder / "tags.jsonl").write_text("".join(lines), encoding="utf-8")
    rows = [("premise", "hypothesis", "label"), *pairs(rng)]
    (folder / "pairs.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    cards = [f"results/cards/{name}.md" for name in ("levels", "tags", "pairs")]
    snake.run(folder, "results/summary.csv", *cards)
    return folder


@pytest.fixture(scope="module")
def test_scores(done) -> pd.Series:
    """Test scores of the selected classifiers by (dataset, task)."""
    frame = pd.read_csv(done / "results" / "summary.csv")
    frame = frame[(frame["method"] == "stc") & (frame["variant"] == "selected")]
    return frame[frame["split"] == "test"].set_index(["dataset", "task"])["score"]


def test_each_level_is_a_task_over_the_same_shards(done, test_scores):
    assert sorted(test_scores.index) == sorted(CELLS)
    folder = done / "results" / "activations"
    assert sorted(path.name for path in folder.iterdir()) == ["levels", "pairs", "tags"]
    assert [path.name for path in (folder / "levels").iterdir()] == [MODEL]
    # The labels of a text go by its words, so even a random model's embeddings tell them apart.
    assert test_scores["levels", "place"] > 0.8
    assert test_scores["levels", "topic"] > 0.7
    assert test_scores["tags", "label"] > 0.7


def test_metrics_are_those_of_the_configuration_or_the_kind_of_task(done):
    frame = pd.read_csv(done / "results" / "summary.csv")
    found = frame.groupby(["dataset", "task"])["metric"].unique().map(list).to_dict()
    assert found == {
        ("levels", "place"): ["accuracy"],
        ("levels", "topic"): ["macro-f1"],
        ("levels", "kind"): ["macro-f1"],
        ("tags", "label"): ["micro-f1"],
        ("pairs", "label"): ["accuracy"],
    }


def test_a_level_is_trained_and_scored_where_it_is_defined(done):
    labels = pd.read_parquet(done / "results/datasets/levels/labels.parquet")
    for level, classes, rows in (
        ("place", ["inside", "outside"], 160),
        ("topic", ["sport", "weather"], 120),
        ("kind", ["team", "track"], 80),
    ):
        kept = predicting.stored(done, "levels", level, MODEL)
        assert kept.labels == classes
        assert sorted(kept.rows) == list(np.flatnonzero(labels[level] >= 0))
        assert len(kept.rows) == rows
        for method in ("probe", "last-layer", "sentence-embedding", "stc-smallest"):
            path = done / f"results/predictions/levels/{level}/{MODEL}/{method}.h5"
            other = read_predictions(path)
            assert other.labels == classes
            assert sorted(other.rows) == sorted(kept.rows)


@pytest.mark.parametrize("dataset, task", [("levels", "kind"), ("pairs", "label")])
def test_predict_equals_the_stored_predictions(done, dataset, task):
    answers, logits = predicting.predicted(done, dataset, task, MODEL)
    labels = predicting.stored(done, dataset, task, MODEL).labels
    assert [answer["label"] for answer in answers] == [labels[i] for i in logits.argmax(axis=1)]
    found = predicting.scores(answers, labels)
    assert np.abs(found - predicting.softmax(logits)).max() < 0.01


def test_predict_names_every_label_of_a_text(done):
    answers, logits = predicting.predicted(done, "tags", "label", MODEL)
    labels = predicting.stored(done, "tags", "label", MODEL).labels
    assert labels == sorted(CLASSES)
    clear = np.abs(logits) > 0.02
    for answer, row, sure in zip(answers, logits, clear, strict=True):
        for label, value, certain in zip(labels, row, sure, strict=True):
            assert (label in answer["labels"]) == (value > 0) or not certain
    assert clear.mean() > 0.9


def test_every_dataset_has_a_card_with_token_lengths(done):
    for name in ("levels", "tags", "pairs"):
        card = json.loads((done / f"results/cards/{name}.json").read_text(encoding="utf-8"))
        assert MODEL in json.dumps(card)
        assert (done / f"results/cards/{name}.md").stat().st_size > 0
