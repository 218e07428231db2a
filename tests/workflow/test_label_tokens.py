"""Labels as tokens in one run, beside the regular classifier, and what an edit runs again."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import snake
import tiny_project
from filelock import FileLock
from rerun_table import TABLES
from rich.console import Console
from tiny_project import DATASET, MODEL, TASK, edited

import probeline
from probeline.results.predictions import read_predictions
from probeline.results.table import show

CONFIG = edited(
    ("extract.poolings", ["mean"]),
    ("baselines", ["finetune", "label-tokens"]),
    ("finetune", {"epochs": 1, "learning_rate": 1e-3}),
    (
        "label_tokens",
        {
            "initializations": ["random", "label_text"],
            "seeds": [1, 2],
            "chunk": 2,
            "finetune": {"epochs": 2},
        },
    ),
    ("lrsl", {"sources": ["label-tokens"], "embedder": "./model", "tune": None}),
)
SERIES = ("random", "label_text")
# Of two kinds of first embeddings and two seeds.
TRAINED = {"label_tokens": 4, "label_tokens_figure": 4}
RERANKED = {"rerank": 4, "lrsl_figure": 4, "lrsl_tables": 4}
# Of one more series, or one more seed of both.
ADDED = {"label_tokens": 2, "label_tokens_figure": 2} | dict.fromkeys(RERANKED, 2)
PLACE = f"{DATASET}/{TASK}/{MODEL}"


@pytest.fixture(scope="module")
def labelled(shared, tiny_model):
    """A project that has run whole; for dry runs, not to be changed."""
    folder = shared / "label_tokens"
    with FileLock(shared / "label_tokens.lock"):
        if not (shared / "label_tokens.done").exists():
            tiny_project.build_project(folder, tiny_model, CONFIG)
            snake.run(folder)
            (shared / "label_tokens.done").touch()
    return folder


def counts(*stages: str, **more: int) -> dict[str, int]:
    return dict(sorted((dict.fromkeys(stages, 1) | more).items()))


EDITS = {
    "nothing": ([], counts()),
    "what decides": ([("label_tokens.dropout", 0.2)], counts(*TABLES, **TRAINED, **RERANKED)),
    "a setting of the training": (
        [("label_tokens.finetune.epochs", 1)],
        counts(*TABLES, **TRAINED, **RERANKED),
    ),
    "a setting that it takes over": (
        [("finetune.batch_size", 8)],
        counts("finetune", "training_figure", *TABLES, **TRAINED, **RERANKED),
    ),
    "a setting that it does not take over": (
        [("finetune.epochs", 3)],
        counts("finetune", "training_figure", *TABLES),
    ),
    "report_to": ([("finetune.report_to", ["tensorboard"])], counts()),
    "a seed more": (
        [("label_tokens.seeds", [1, 2, 3])],
        counts(*TABLES, **ADDED),
    ),
    "first embeddings more": (
        [("label_tokens.initializations", ["random", "mean", "label_text"])],
        counts(*TABLES, **ADDED),
    ),
    "first embeddings less": ([("label_tokens.initializations", ["label_text"])], counts(*TABLES)),
    # Random embeddings read no text; what is reranked reads it anyway.
    "label_texts": (
        [(f"datasets.{DATASET}.label_texts", {"food": ["a meal", "a dish"]})],
        counts(*TABLES, label_tokens=2, label_tokens_figure=2, **RERANKED),
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_runs_exactly_what_depends_on_it(labelled, tmp_path, name):
    changes, expected = EDITS[name]
    path = tiny_project.write_config(tmp_path / "edited.yaml", edited(*changes, base=CONFIG))
    found = snake.stages(snake.planned(labelled, "--configfile", path))
    assert found == dict(sorted(expected.items()))


def test_the_summary_has_each_seed_and_the_mean_of_each_kind_of_embeddings(labelled):
    rows = pd.read_csv(labelled / "results/summary.csv")
    rows = rows[(rows["split"] == "test") & (rows["method"] == "label-tokens")]
    assert len(rows) == 6
    for series in SERIES:
        single = rows[rows["variant"] == series]
        assert sorted(single["seed"]) == [1, 2]
        mean = rows[rows["variant"] == f"{series}: mean of 2 seeds"].iloc[0]
        assert mean["score"] == pytest.approx(single["score"].mean(), rel=1e-4)
        assert mean["std"] == pytest.approx(single["score"].std(ddof=1), rel=1e-4, abs=1e-9)
        for seed, score in zip(single["seed"], single["score"], strict=True):
            path = labelled / f"results/scores/{PLACE}/label-tokens-{series}-{int(seed)}.json"
            assert json.loads(path.read_text())["test_score"] == pytest.approx(score, rel=1e-4)


def test_each_kind_is_compared_and_reranked(labelled):
    rows = pd.read_csv(labelled / "results/comparisons.csv")
    against = rows[rows["against"] == "label-tokens"]["against_variant"]
    assert set(against) == {f"{series}: mean of 2 seeds" for series in SERIES}
    summary = pd.read_csv(labelled / "results/summary.csv")
    sources = summary[(summary["method"] == "lrsl") & (summary["seeds"] > 1)]["source"]
    assert set(sources) == {f"label-tokens-{series}" for series in SERIES}


def test_the_table_names_them(labelled):
    console = Console(width=200, record=True)
    show(labelled, console)
    text = console.export_text()
    for series in SERIES:
        assert f"labels as tokens ({series}), 2 seeds" in text


def test_the_folder_is_served(labelled):
    folder = labelled / f"results/label_tokens/{PLACE}/label_text/1"
    stored = read_predictions(
        labelled / f"results/predictions/{PLACE}/label-tokens-label_text-1.h5"
    )
    texts = pd.read_parquet(labelled / f"results/datasets/{DATASET}/texts.parquet")["text"]
    loaded = probeline.load(folder, device="cpu")
    assert loaded.labels == stored.labels
    assert np.allclose(loaded.logits(texts[:20].tolist()), stored.logits[:20], atol=1e-5)
    scores = json.loads(
        (labelled / f"results/scores/{PLACE}/label-tokens-label_text-1.json").read_text()
    )
    assert scores["chunk_difference"] > 0


def test_figures_are_drawn(labelled):
    for series in SERIES:
        for seed in (1, 2):
            path = labelled / f"results/figures/{PLACE}/label-tokens-{series}-{seed}.svg"
            assert "<svg" in path.read_text()
