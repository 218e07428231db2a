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
from sklearn.metrics import f1_score
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
PATHS = ["inside", "outside > sport > team", "outside > sport > track", "outside > weather"]
# Where the predictions of each lie; that of no model has a folder of its own.
METHODS = dict.fromkeys(
    ["last-layer", "probe", "stc", "stc-smallest", "sentence-embedding"], MODEL
) | {"tfidf": "tfidf"}
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
    ("extract.layers", [1, 2]),
    ("combinations", None),
)
CELLS = [*(("levels", level) for level in LEVELS), ("tags", "label"), ("pairs", "label")]


@pytest.fixture(scope="module")
def done(tmp_path_factory, tiny_model, server) -> Path:
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
    snake.run(folder, "results/summary.csv", "results/comparisons.csv", *cards, server=server)
    return folder


@pytest.fixture(scope="module")
def test_scores(done) -> pd.Series:
    """Test scores of the selected classifiers by (dataset, task)."""
    frame = pd.read_csv(done / "results" / "summary.csv")
    frame = frame[(frame["method"] == "stc") & (frame["variant"] == "selected")]
    return frame[frame["split"] == "test"].set_index(["dataset", "task"])["score"]


def test_layers_that_are_not_asked_for_are_not_stored(done):
    names = {path.name for path in done.glob("results/activations/*/*/*.h5")}
    assert names == {"hidden.mean.01.h5", "hidden.mean.02.h5"}


def test_each_level_is_a_task_over_the_same_shards(done, test_scores):
    folder = done / "results" / "activations"
    assert sorted(path.name for path in folder.iterdir()) == ["levels", "pairs", "tags"]
    assert [path.name for path in (folder / "levels").iterdir()] == [MODEL]
    assert sorted(test_scores.index) == sorted([*CELLS, ("levels", "path")])
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
        ("levels", "path"): ["macro-f1"],  # that of the finest level
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
        defined = labels[level].to_numpy() >= 0
        assert defined.sum() == rows
        for method, home in METHODS.items():
            kept = read_predictions(done / f"results/predictions/levels/{level}/{home}/{method}.h5")
            assert kept.labels == classes
            # Rows where the level is undefined are there, for the paths, and marked.
            assert list(kept.rows) == list(range(160))
            np.testing.assert_array_equal(kept.defined, defined)
            assert np.isfinite(kept.logits).all()


def test_paths_are_consistent_and_scored_on_every_row(done):
    """The chosen path goes down from each label to the likeliest of its own children only."""
    frame = pd.read_csv(done / "results" / "summary.csv")
    frame = frame[(frame["task"] == "path") & (frame["split"] == "test")]
    assert len(frame) == len(METHODS)
    labels = pd.read_parquet(done / "results/datasets/levels/labels.parquet")
    tasks = json.loads((done / "results/datasets/levels/dataset.json").read_text())["tasks"]
    truth = [
        " > ".join(tasks[level]["labels"][row[level]] for level in LEVELS if row[level] >= 0)
        for row in labels.to_dict("records")
    ]
    for method, home in METHODS.items():
        folder = done / "results/predictions/levels"
        kept = read_predictions(folder / f"path/{home}/{method}.h5")
        assert kept.labels == PATHS
        assert len(kept.rows_of("test")) == 40
        right = [truth[row] for row in kept.rows]
        chosen = [PATHS[code] for code in kept.logits.argmax(axis=1)]
        place, topic, kind = (
            predicting.softmax(read_predictions(folder / f"{level}/{home}/{method}.h5").logits)
            for level in LEVELS
        )
        expected = [
            place[:, 0],
            place[:, 1] * topic[:, 0] * kind[:, 0],
            place[:, 1] * topic[:, 0] * kind[:, 1],
            place[:, 1] * topic[:, 1],
        ]
        np.testing.assert_allclose(np.exp(kept.logits), np.stack(expected, axis=1), atol=1e-5)
        test = kept.split == "test"
        score = f1_score(np.array(right)[test], np.array(chosen)[test], average="macro")
        variant = {"stc": "selected", "stc-smallest": "smallest"}.get(method)
        rows = frame[frame["method"] == kept.meta["method"]]
        rows = rows[rows["variant"] == variant] if variant else rows
        assert rows["score"].item() == pytest.approx(score, abs=1e-5)
        assert rows["ci_low"].item() <= score <= rows["ci_high"].item()


def test_every_cell_and_the_paths_are_compared(done):
    """The differences are those of the summary's scores, row by row of the same names."""
    frame = pd.read_csv(done / "results" / "comparisons.csv")
    summary = pd.read_csv(done / "results" / "summary.csv")
    names = ["dataset", "task", "method", "variant"]
    scores = summary[summary["split"] == "test"].set_index(names)["score"]
    cells = frame.groupby(["dataset", "task"], sort=False).size()
    assert cells.to_dict() == dict.fromkeys([*CELLS, ("levels", "path")], len(METHODS) - 1)
    for row in frame.to_dict("records"):
        cell = row["dataset"], row["task"]
        first = scores[(*cell, row["method"], row["variant"])]
        second = scores[(*cell, row["against"], row["against_variant"])]
        assert row["difference"] == pytest.approx(first - second, abs=2e-6)
        assert row["ci_low"] <= row["difference"] <= row["ci_high"]
        assert row["p"] <= row["p_holm"] <= 1


def test_an_edit_of_one_method_runs_its_paths_only(done):
    config = tiny_project.edited(("sentence_embedding.penalties", [1, 10]), base=CONFIG)
    path = tiny_project.write_config(done / "edited.yaml", config)
    found = snake.planned(done, "results/summary.csv", "--configfile", path)
    assert snake.stages(found) == {"path_predictions": 1, "sentence_embedding": 5, "summary": 1}
    (job,) = (job for job in found if job.stage == "path_predictions")
    assert job.wildcards == {"dataset": "levels", "model": MODEL, "method": "sentence-embedding"}
    planned = [job for job in snake.planned(done) if job.wildcards.get("task") == "path"]
    assert planned == []  # figures and classifiers are of single levels


@pytest.mark.parametrize("dataset, task", [("levels", "kind"), ("pairs", "label")])
def test_predict_equals_the_stored_predictions(done, dataset, task, server):
    answers, logits = predicting.predicted(done, dataset, task, MODEL, server=server)
    labels = predicting.stored(done, dataset, task, MODEL).labels
    assert [answer["label"] for answer in answers] == [labels[i] for i in logits.argmax(axis=1)]
    found = predicting.scores(answers, labels)
    assert np.abs(found - predicting.softmax(logits)).max() < 0.01


def test_predict_names_every_label_of_a_text(done, server):
    answers, logits = predicting.predicted(done, "tags", "label", MODEL, server=server)
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
