"""The stages of reranking one after another: what they read, and what they may not know."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from labelled_texts import LABELS, SIZES, labelled
from tiny_embedders import write_embedder

from probeline.baselines.tfidf import tfidf
from probeline.data.store import read_dataset
from probeline.data.writing import write_dataset
from probeline.files import read_json
from probeline.lrsl.crossfit import crossfit
from probeline.lrsl.folder import load_reranker
from probeline.lrsl.stage_ablations import run_ablations
from probeline.lrsl.stage_embed import embed
from probeline.lrsl.stage_rerank import rerank_predictions
from probeline.lrsl.stage_triplets import make_triplets
from probeline.lrsl.triplets import read_triplets
from probeline.probe.task import task_data
from probeline.results.predictions import read_predictions, write_predictions

LRSL = {
    "k": "auto",
    "hardness": "variance",
    "threshold": 0.9,
    "temperature": True,
    "rerank": "hard",
    "candidates": "top_k",
    "label_similarity": "mean",
    "forms": ["prob", "mix", "mlp"],
    "powers": [1.0, 2.0],
    "weights": [0.5],
    "fixed": False,
    "triplets": {"k": "auto", "per_text": None, "hard_only": False, "per_class": None},
}
TUNE = {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3}
TEXTS = {"label_texts": {"rain": ["falling water", "wet"]}, "template": "about {label}"}
FILES = ("predictions", "scores", "report", "examples")


@pytest.fixture(scope="module")
def embedder(tmp_path_factory) -> dict:
    return {"path": str(write_embedder(tmp_path_factory.mktemp("embedder")))}


def settings(**options) -> dict:
    return {"options": LRSL | options, **TEXTS, "seed": 3, "metric": None}


def relabelled(folder: Path, out: Path) -> Path:
    """The same dataset with other labels of test."""
    dataset = read_dataset(folder)
    codes = dataset.labels("label").copy()
    test = dataset.split("test")
    codes[test] = (codes[test] + 1) % len(LABELS)
    task = {"kind": "single", "labels": list(LABELS), "counts": {}}
    write_dataset(
        out,
        {"name": "labelled", "tasks": {"label": task}},
        pa.table({"text": dataset.texts}),
        SIZES,
        {"label": codes},
    )
    return out


def rerank(data: Path, place: Path, source: str, embedder: dict, tuned=None, **options) -> dict:
    names = {"task": "label", "model": "tfidf", "source": source, "seed": "3"}
    outputs = {name: str(place / f"{name}.out") for name in FILES}
    outputs["folder"] = str(place / "reranker")
    rerank_predictions(
        data, names, place / f"{source}.h5", embedder, tuned, outputs, settings(**options)
    )
    return outputs


def whole(data: Path, place: Path, embedder: dict, **options) -> dict:
    """Every stage from the classifier on."""
    tfidf(data, "label", place / "tfidf.h5", place / "tfidf.json", {"penalties": [1.0]})
    crossfit(
        "tfidf",
        data,
        "label",
        "tfidf",
        place / "crossfit.h5",
        3,
        3,
        {"scores": place / "tfidf.json"},
        {"tfidf": {"penalties": [1.0]}},
    )
    make_triplets(
        data,
        "label",
        "tfidf",
        place / "tfidf.h5",
        place / "crossfit.h5",
        place / "triplets.parquet",
        settings(**options),
    )
    embed(
        data,
        "label",
        place / "triplets.parquet",
        embedder,
        place / "embedding",
        place / "embedding.json",
        place / "state",
        settings() | {"options": TUNE},
        3,
    )
    return rerank(data, place, "tfidf", embedder, place / "embedding.json", **options)


@pytest.mark.parametrize("options", [{}, {"fixed": True}], ids=["chosen", "fixed"])
def test_labels_of_test_change_scores_and_nothing_else(tmp_path, embedder, options):
    first = labelled(tmp_path / "first")
    second = relabelled(first, tmp_path / "second")
    places, outputs = [], []
    for number, data in enumerate((first, second)):
        place = tmp_path / str(number)
        place.mkdir()
        places.append(place)
        outputs.append(whole(data, place, embedder, **options))
    for name in ("triplets.parquet", "embedding/model.safetensors", "embedding.json"):
        assert (places[0] / name).read_bytes() == (places[1] / name).read_bytes(), name
    folders = [Path(found["folder"]) for found in outputs]
    for name in ("reranker.json", "labels.safetensors"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name
    logits = [read_predictions(found["predictions"]).logits for found in outputs]
    assert np.array_equal(logits[0], logits[1])
    reports = [read_json(found["report"]) for found in outputs]
    for key in ("decision", "variant", "tried", "validation"):
        assert reports[0][key] == reports[1][key]
    scores = [read_json(found["scores"]) for found in outputs]
    assert scores[0]["validation_score"] == scores[1]["validation_score"]
    assert scores[0]["test_score"] != scores[1]["test_score"]


@pytest.fixture
def case(tmp_path):
    """A dataset and a classifier's logits, of which a third is wrong."""
    data = labelled(tmp_path / "data")
    dataset = read_dataset(data)
    task = task_data(dataset, "label")
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(48, 4)).astype(np.float32)
    logits[np.arange(48), dataset.labels("label")] += np.where(np.arange(48) % 3, 3.0, -1.0)
    write_predictions(
        tmp_path / "stc.h5", dataset, task, logits, {"model": "m", "method": "stc", "variant": "x"}
    )
    return data, tmp_path, dataset, task, logits


@pytest.mark.parametrize("which", ["hard", "all"])
def test_texts_that_are_not_hard_keep_their_logits_and_predict_says_the_same(case, embedder, which):
    data, place, dataset, task, logits = case
    found = rerank(data, place, "stc", embedder, fixed=True, rerank=which, threshold=0.5)
    after = read_predictions(found["predictions"])
    reranker = load_reranker(found["folder"], "cpu")
    flagged = reranker.decision.selects(logits)
    later = np.arange(48) >= SIZES["train"]
    assert np.array_equal(after.logits[~(flagged & later)], logits[~(flagged & later)])
    assert (after.logits[flagged & later] != logits[flagged & later]).any(axis=1).all()
    assert flagged[later].all() == (which == "all")
    texts = [dataset.texts[row] for row in np.flatnonzero(later)]
    assert np.allclose(reranker.rerank(texts, None, logits[later]), after.logits[later], atol=1e-5)
    assert (after.meta["method"], after.meta["source"], after.meta["seed"]) == ("lrsl", "stc", 3)
    report = read_json(found["report"])
    test = task.rows["test"]
    assert report["test"]["flagged"] == flagged[test].sum()
    assert report["test"]["all"]["before"] == pytest.approx(
        (logits[test].argmax(axis=1) == task.y["test"]).mean()
    )
    changed = (logits[test].argmax(axis=1) != after.logits[test].argmax(axis=1)).sum()
    assert len(pd.read_csv(found["examples"])) == changed
    if which == "all":
        assert report["curve"][-1]["share"] == 1.0
        reached = (after.logits[test].argmax(axis=1) == task.y["test"]).mean()
        assert report["curve"][-1]["score"] == pytest.approx(reached)


def test_a_classifier_that_is_never_wrong_is_left_as_it_is(case, embedder):
    data, place, dataset, task, _ = case
    right = 9 * np.eye(4, dtype=np.float32)[dataset.labels("label")]
    meta = {"model": "m", "method": "stc", "variant": "x"}
    write_predictions(place / "stc.h5", dataset, task, right, meta)
    found = rerank(data, place, "stc", embedder, threshold="misclassified")
    after = read_predictions(found["predictions"])
    assert np.array_equal(after.logits, right) and after.meta["variant"] == "nothing"
    assert read_json(found["report"])["test"]["flagged"] == 0


def test_texts_that_were_not_answered_are_left_out(case, embedder):
    """As in-context learning leaves them: no row of train, and not all of test."""
    data, place, dataset, task, logits = case
    some = {split: rows[: 0 if split == "train" else 8] for split, rows in task.rows.items()}
    y = {split: task.y[split][: len(rows)] for split, rows in some.items()}
    part = logits.copy()
    part[np.setdiff1d(np.arange(48), np.concatenate(list(some.values())))] = 0
    meta = {"model": "m", "method": "icl", "variant": "x"}
    write_predictions(place / "icl-1.h5", dataset, replace(task, rows=some, y=y), part, meta)
    found = rerank(data, place, "icl-1", embedder, fixed=True, rerank="all")
    after = read_predictions(found["predictions"])
    assert np.array_equal(after.rows_of("test"), some["test"])
    assert np.array_equal(after.logits[~after.defined], part[~after.defined])
    assert (after.logits[after.defined] != part[after.defined]).any(axis=1).all()
    assert read_json(found["report"])["test"]["texts"] == 8


def test_several_labels_per_text(tmp_path, embedder):
    data = labelled(tmp_path / "data", kind="multilabel")
    dataset = read_dataset(data)
    task = task_data(dataset, "label")
    logits = np.random.default_rng(1).normal(size=(48, 4)).astype(np.float32)
    meta = {"model": "m", "method": "stc", "variant": "x"}
    write_predictions(tmp_path / "stc.h5", dataset, task, logits, meta)
    found = rerank(data, tmp_path, "stc", embedder, hardness="margin")
    scores = read_json(found["scores"])
    after = read_predictions(found["predictions"])
    assert scores["test_score"] == pytest.approx(task.score("test", after.of("test")))
    assert scores["validation_score"] >= scores["validation_score_before"]


@pytest.mark.parametrize("hard_only", [False, True])
def test_triplets_of_hard_texts_only(case, hard_only):
    data, place, dataset, task, logits = case
    triplets = LRSL["triplets"] | {"hard_only": hard_only}
    out = place / "triplets.parquet"
    make_triplets(
        data,
        "label",
        "stc",
        place / "stc.h5",
        None,
        out,
        settings(triplets=triplets, threshold=0.3),
    )
    rows = set(read_triplets(out)[0]["row"].to_pylist())
    variance = np.sort(logits, axis=1)[:, -3:].var(axis=1)
    threshold = np.quantile(variance[task.rows["validation"]], 0.3)
    wrong = logits.argmax(axis=1) != dataset.labels("label")
    train = task.rows["train"]
    hard = train[(variance <= threshold)[train] | wrong[train]]
    assert rows == set((hard if hard_only else train).tolist())


def test_ablations_of_both_embeddings(case, embedder):
    data, place, *_ = case
    out = place / "ablations.parquet"
    run_ablations(data, "label", place / "stc.h5", embedder, None, True, out, settings(), 3)
    table = pq.read_table(out).to_pandas()
    assert set(table["embedding"].dropna()) == {"untuned"}
    assert set(table["k"].dropna()) == {2, 3} and set(table["form"]) == {"nothing", "prob", "mix"}
    assert table["chosen"].sum() == 1


def test_the_report_is_json_that_others_read(case, embedder):
    data, place, *_ = case
    found = rerank(data, place, "stc", embedder, threshold="validation")
    text = Path(found["report"]).read_text(encoding="utf-8")
    report = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert report["tried"][0]["name"] == "nothing" and len(report["tried"]) > 10
    assert set(report["chosen_share"]) == {"validation", "test"}
