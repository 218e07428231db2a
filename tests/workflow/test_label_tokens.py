"""Labels as tokens in one run, beside the regular classifier, and what an edit runs again."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import snake
import tiny_project
from fixtures import assert_kept, run_once
from rerun_table import TABLES
from rich.console import Console
from tiny_project import DATASET, MODEL, TASK, edited

import probeline
from probeline.results.predictions import read_predictions
from probeline.results.table import show

CONFIG = edited(
    ("extract.poolings", ["mean"]),
    ("baselines", ["finetune", "label-tokens", "regular"]),
    ("finetune", {"epochs": 1, "learning_rate": 1e-3}),
    (
        "label_tokens",
        {
            "initializations": ["random", "label_text"],
            "seeds": [1, 2],
            "chunk": 2,
            "attention": 0,
            "finetune": {"epochs": 2},
        },
    ),
)
LRSL = {"sources": ["label-tokens"], "embedder": "./model", "tune": None}
SERIES = ("random", "label_text")
# Of two kinds of first embeddings and two seeds.
STAGES = ("label_tokens", "label_tokens_figure")
TRAINED = dict.fromkeys(STAGES, 4)
REGULAR = {"regular": 2, "regular_figure": 2}
TABLES = (*TABLES, "label_tokens_table")
# Of one more series, or one more seed of both.
ADDED = dict.fromkeys(STAGES, 2)
PLACE = f"{DATASET}/{TASK}/{MODEL}"


@pytest.fixture(scope="module")
def labelled(shared, tiny_model, server):
    """A project that has run whole; for dry runs, not to be changed."""

    def build(folder):
        tiny_project.build_project(folder, tiny_model, CONFIG)

    return run_once(shared, "label_tokens", build, server)


def counts(*stages: str, **more: int) -> dict[str, int]:
    return dict(sorted((dict.fromkeys(stages, 1) | more).items()))


EDITS = {
    "nothing": ([], counts()),
    "what decides": ([("label_tokens.dropout", 0.2)], counts(*TABLES, **TRAINED)),
    "a setting of the training": (
        [("label_tokens.finetune.epochs", 1)],
        counts(*TABLES, **TRAINED, **REGULAR),
    ),
    "a setting that it takes over": (
        [("finetune.batch_size", 8)],
        counts("finetune", "training_figure", *TABLES, **TRAINED, **REGULAR),
    ),
    "a setting that it does not take over": (
        [("finetune.epochs", 3)],
        counts("finetune", "training_figure", *TABLES),
    ),
    "report_to": ([("finetune.report_to", ["tensorboard"])], counts()),
    "texts that are looked at": ([("label_tokens.attention", 4)], counts(label_attention=4)),
    "reranked": (
        [("lrsl", LRSL)],
        counts(*TABLES, **dict.fromkeys(("rerank", "lrsl_figure", "lrsl_tables"), 4)),
    ),
    # Three classes; the sparse classifier is there, its logits of training texts are not.
    "a shortlist": (
        [("label_tokens.shortlist", 2)],
        counts("crossfit", *TABLES, **TRAINED),
    ),
    "a shortlist without cross-fitting": (
        [("label_tokens.shortlist", 2), ("lrsl.crossfit", 0)],
        counts(*TABLES, **TRAINED),
    ),
    "thresholds": (
        [("label_tokens.thresholds", "fixed")],
        counts(*TABLES, **TRAINED, **REGULAR),
    ),
    "another way to read": (
        [("label_tokens.readings", ["joint", "isolated"])],
        counts(*TABLES, **TRAINED),
    ),
    "no regular classifier": ([("baselines", ["finetune", "label-tokens"])], counts(*TABLES)),
    "a seed more": (
        [("label_tokens.seeds", [1, 2, 3])],
        counts(*TABLES, **ADDED, regular=1, regular_figure=1),
    ),
    "first embeddings more": (
        [("label_tokens.initializations", ["random", "mean", "label_text"])],
        counts(*TABLES, **ADDED),
    ),
    "first embeddings less": ([("label_tokens.initializations", ["label_text"])], counts(*TABLES)),
    # Random embeddings read no text; what is reranked reads it anyway.
    "label_texts": (
        [(f"datasets.{DATASET}.label_texts", {"food": ["a meal", "a dish"]})],
        counts(*TABLES, **dict.fromkeys(STAGES, 2)),
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_runs_exactly_what_depends_on_it(labelled, tmp_path, name):
    changes, expected = EDITS[name]
    path = tiny_project.write_config(tmp_path / "edited.yaml", edited(*changes, base=CONFIG))
    found = snake.stages(snake.planned(labelled, "--configfile", path))
    assert found == dict(sorted(expected.items()))


def test_no_secret_is_written_or_printed(labelled):
    assert_kept(labelled)


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


def test_each_kind_is_compared(labelled):
    rows = pd.read_csv(labelled / "results/comparisons.csv")
    against = rows[rows["against"] == "label-tokens"]["against_variant"]
    assert set(against) == {f"{series}: mean of 2 seeds" for series in SERIES}


def test_the_regular_classifier_is_compared_with_each(labelled):
    """In a table of their own, with the same differences."""
    rows = pd.read_csv(labelled / "results/comparisons.csv")
    rows = rows[rows["method"] == "regular"].set_index("against_variant")
    summary = pd.read_csv(labelled / "results/summary.csv")
    table = pd.read_csv(labelled / "results/label_tokens.csv")
    assert list(table["method"]) == ["regular", "label-tokens", "label-tokens"]
    assert list(table["variant"].fillna("")) == ["", *SERIES]
    assert (table["seeds"] == 2).all() and (table["seconds_per_epoch"] > 0).all()
    for row in table[1:].to_dict("records"):
        other = rows.loc[f"{row['variant']}: mean of 2 seeds"]
        assert row["minus_regular"] == pytest.approx(-other["difference"], rel=1e-4, abs=1e-9)
        assert row["difference_low"] == pytest.approx(-other["ci_high"], rel=1e-4, abs=1e-9)
        assert row["test"] - table["test"][0] == pytest.approx(row["minus_regular"], abs=1e-5)
        mean = summary[summary["variant"] == f"{row['variant']}: mean of 2 seeds"]
        mean = mean[(mean["split"] == "test") & (mean["method"] == "label-tokens")]
        assert row["test"] == pytest.approx(mean["score"].iloc[0], rel=1e-4)
        assert row["chunk_difference"] > 0 and row["order_difference"] > 0


def test_the_regular_classifier_has_the_settings_of_label_tokens(labelled):
    found = [
        json.loads((labelled / f"results/{place}/training.json").read_text())
        for place in (f"regular/{PLACE}/1", f"label_tokens/{PLACE}/random/1")
    ]
    assert found[0]["options"] == found[1]["options"] and found[0]["options"]["epochs"] == 2
    stored = read_predictions(labelled / f"results/predictions/{PLACE}/regular-1.h5")
    assert (stored.meta["method"], stored.meta["variant"]) == ("regular", "full")


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


def test_the_order_of_labels_is_reported(labelled):
    for series in SERIES:
        path = labelled / f"results/scores/{PLACE}/label-tokens-{series}-1.json"
        found = json.loads(path.read_text())["order"]
        assert found["difference"] > 0 and 0 <= found["changed"] <= 1


@pytest.fixture(scope="module")
def listed(labelled, tmp_path_factory, server):
    """The same project, run again with shortlists; its one classifier is looked at and reranked."""
    config = edited(
        ("label_tokens.shortlist", 2),
        ("label_tokens.chunk", None),
        ("label_tokens.attention", 5),
        ("label_tokens.initializations", ["mean"]),
        ("label_tokens.readings", ["isolated"]),
        ("label_tokens.seeds", [1]),
        ("label_tokens.finetune.epochs", 1),
        ("baselines", ["label-tokens"]),
        ("lrsl", LRSL),
        base=CONFIG,
    )
    folder = tmp_path_factory.mktemp("listed") / "project"
    shutil.copytree(labelled, folder, symlinks=True)
    tiny_project.write_config(folder / "config.yaml", config)
    snake.run(folder, server=server)
    return folder


LISTED = f"{PLACE}/label-tokens-mean-isolated-1"


def test_a_run_with_shortlists(listed):
    """From the sparse classifier of the same run, which the folder then carries with it."""
    scores = json.loads((listed / f"results/scores/{LISTED}.json").read_text())
    assert scores["shortlist"]["labels"] == 2
    # Isolated, their order is nothing but rounding.
    assert scores["order"]["changed"] == 0 and scores["order"]["difference"] < 1e-4
    stored = read_predictions(listed / f"results/predictions/{LISTED}.h5")
    ranked = read_predictions(listed / f"results/predictions/{PLACE}/stc.h5")
    for split in ("validation", "test"):
        logits, first = stored.of(split), ranked.of(split)
        lists = np.sort(np.argsort(-first, axis=1, kind="stable")[:, :2], axis=1)
        assert (np.sort(np.argsort(-logits, axis=1)[:, :2], axis=1) == lists).all()
    texts = pd.read_parquet(listed / f"results/datasets/{DATASET}/texts.parquet")["text"]
    rows = stored.rows_of("test")
    loaded = probeline.load(listed / f"results/label_tokens/{PLACE}/mean-isolated/1", device="cpu")
    assert np.allclose(loaded.logits(texts[rows].tolist()), stored.of("test"), atol=1e-4)
    table = pd.read_csv(listed / "results/label_tokens.csv")
    assert list(table["variant"]) == ["mean-isolated"]
    assert table["recall_test"][0] == pytest.approx(scores["shortlist"]["recall"]["test"], rel=1e-4)
    assert snake.planned(listed) == []


def test_attention_is_shown(listed):
    path = listed / f"results/attention/{LISTED}.parquet"
    table = pd.read_parquet(path)
    assert table["row"].nunique() == 5 and set(table["label"]) <= set(tiny_project.CLASSES)
    assert (table.groupby("row")["label"].nunique() == 2).all()
    page = path.with_suffix(".html").read_text()
    assert page.count("<h2>") == 5
    assert f"{DATASET} / {TASK} / {MODEL} / mean-isolated / seed 1" in page


def test_it_is_reranked(listed):
    summary = pd.read_csv(listed / "results/summary.csv")
    rows = summary[(summary["method"] == "lrsl") & (summary["split"] == "test")]
    assert set(rows["source"]) == {"label-tokens-mean-isolated-1"}
