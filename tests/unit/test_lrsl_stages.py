"""The stages of reranking one after another: what they read, and what they may not know."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from labelled_texts import LABELS, SIZES, labelled
from scipy.special import expit, log_softmax, softmax
from scipy.stats import entropy
from sklearn.metrics import f1_score
from small_project import AGGREGATE, ETAS, PROBE, make_project
from small_project import SIZES as MADE
from tiny_embedders import write_embedder

from probeline.aggregate.stage import aggregate
from probeline.baselines.tfidf import tfidf
from probeline.data.store import read_dataset
from probeline.data.writing import write_dataset
from probeline.errors import ProbelineError
from probeline.files import read_json
from probeline.lrsl.crossfit import crossfit, read_crossfit
from probeline.lrsl.embedding import label_vectors, load_embedder
from probeline.lrsl.folder import load_reranker
from probeline.lrsl.stage_ablations import run_ablations
from probeline.lrsl.stage_data import Similarities, narrowing
from probeline.lrsl.stage_embed import embed
from probeline.lrsl.stage_rerank import rerank_predictions
from probeline.lrsl.stage_triplets import make_triplets
from probeline.lrsl.triplets import read_triplets
from probeline.probe.stage import probe_shards
from probeline.probe.task import task_data
from probeline.results.predictions import read_predictions, write_predictions
from probeline.sparsify import sparsify

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
    identity = tuned(data, place, place / "crossfit.h5", embedder, **options)
    return rerank(data, place, "tfidf", embedder, identity, **options)


def tuned(data: Path, place: Path, crossfitted: Path | None, embedder: dict, **options) -> Path:
    """Tune on what the classifier in `place`, or its cross-fitted logits, say."""
    out = place if crossfitted else place / "own"
    triplets = out / "triplets.parquet"
    made = settings(**options)
    make_triplets(data, "label", "tfidf", place / "tfidf.h5", crossfitted, triplets, made)
    embed(
        data,
        "label",
        triplets,
        embedder,
        out / "embedding",
        out / "embedding.json",
        out / "state",
        settings() | {"options": TUNE},
        3,
    )
    return out / "embedding.json"


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
    report = read_json(found["report"])
    assert report["test"]["flagged"] == 0
    # No text is hard, as none of validation is wrong.
    assert report["hard_texts"] == {"validation": 0, "test": 0}
    assert report["test"]["hard"]["accuracy_before"] is None
    assert read_json(found["scores"])["texts_per_second"] is None


def test_texts_are_hard_though_nothing_can_be_tried(case, embedder):
    """Three of twelve are too few for the folds of the one form there is."""
    data, place, _, task, logits = case
    found = rerank(data, place, "stc", embedder, threshold=0.2, forms=["mlp"])
    report = read_json(found["report"])
    assert len(report["tried"]) == 1 and report["variant"] == "nothing"
    variance = np.sort(logits.astype(float), axis=1)[:, -3:].var(axis=1)
    threshold = np.quantile(variance[task.rows["validation"]], 0.2)
    for split in ("validation", "test"):
        rows = task.rows[split][variance[task.rows[split]] <= threshold]
        right = logits[rows].argmax(axis=1) == task.y[split][rows - task.rows[split][0]]
        assert report["hard_texts"][split] == len(rows) > 0
        assert report[split]["hard"]["accuracy_before"] == pytest.approx(right.mean())


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
    """Probability times cosine; hard texts have the threshold that is best on validation."""
    data = labelled(tmp_path / "data", kind="multilabel")
    dataset = read_dataset(data)
    task = task_data(dataset, "label")
    logits = np.random.default_rng(1).normal(size=(48, 4)).astype(np.float32)
    meta = {"model": "m", "method": "stc", "variant": "x"}
    write_predictions(tmp_path / "stc.h5", dataset, task, logits, meta)
    options = {"fixed": True, "candidates": "all", "threshold": 0.6, "temperature": False}
    found = rerank(data, tmp_path, "stc", embedder, hardness="margin", **options)
    after = read_predictions(found["predictions"])
    p = expit(logits.astype(float))
    sure = np.abs(2 * p - 1).min(axis=1)
    validation, test = task.rows["validation"], task.rows["test"]
    later = np.arange(48) >= SIZES["train"]
    hard = (sure <= np.quantile(sure[validation], 0.6)) & later
    assert 0 < hard[test].sum() < len(test)
    assert np.array_equal(after.logits[~hard], logits[~hard])

    reranker = load_reranker(found["folder"], "cpu")
    s = reranker.similarities(dataset.texts, None, np.ones(48, dtype=bool)).clip(0)
    product = p * s
    every = np.unique(product[validation][hard[validation]])
    scores = []
    for at in (every[:-1] + every[1:]) / 2:
        guessed = np.where(hard[:, None], product > at, logits > 0)
        scores.append(
            f1_score(task.y["validation"], guessed[validation], average="micro", zero_division=0)
        )
    kept = read_json(found["scores"])
    assert kept["validation_score"] == pytest.approx(max(scores))
    at = expit(reranker.decision.reranking.offset)
    assert at != 0.5
    guessed = np.where(hard[:, None], product > at, logits > 0)
    assert np.array_equal(after.logits[later] > 0, guessed[later])
    f1 = f1_score(task.y["test"], guessed[test], average="micro", zero_division=0)
    assert kept["test_score"] == pytest.approx(f1)


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


def test_ablations_of_every_embedding(tmp_path, embedder):
    """As it comes, tuned on cross-fitted logits, and on the classifier's own."""
    data, options = labelled(tmp_path / "data"), {"fixed": True, "threshold": 0.5}
    found = whole(data, tmp_path, embedder, **options)
    inputs = {
        "predictions": tmp_path / "tfidf.h5",
        "report": found["report"],
        "tuned": tmp_path / "embedding.json",
        "own": tuned(data, tmp_path, None, embedder, **options),
    }
    outputs = {name: tmp_path / f"ablations.{name}" for name in ("table", "csv", "curve")}
    run_ablations(data, "label", inputs, embedder, outputs, settings(**options), 3)
    table = pq.read_table(outputs["table"]).to_pandas()
    of = table[["embedding", "crossfit"]].dropna(how="all").drop_duplicates().values.tolist()
    assert of == [["untuned", None], ["tuned", True], ["tuned", False]]
    assert set(table["k"].dropna()) == {2, 3}
    assert set(table["form"]) == {"nothing", "prob", "mix", "mlp"}
    assert table["best_on_validation"].sum() == 1
    assert len(pd.read_csv(outputs["csv"])) == len(table)

    (row,) = table[table["chosen"]].to_dict("records")
    kept, scores = read_json(found["report"]), read_json(found["scores"])
    assert (row["embedding"], row["crossfit"], row["rerank"]) == ("tuned", True, "hard")
    assert (row["form"], row["power"], row["k"]) == ("prob", 1, 3)
    assert row["threshold"] == kept["decision"]["threshold"]
    assert row["test_score"] == scores["test_score"] == kept["test"]["all"]["after"]
    assert row["validation_score"] == scores["validation_score"]
    for name in ("flagged", "changed", "fixed", "broken"):
        assert row[f"test_{name}"] == kept["test"][name]
    curve = [row for row in read_json(outputs["curve"])["curve"] if row["split"] == "test"]
    assert curve[0]["score"] == scores["test_score_before"] and curve[-1]["share"] == 1
    part = [row for row in kept["curve"] if row["split"] == "test"]
    assert 1 < len(part) < len(curve) and part == curve[: len(part)]


def test_what_is_shown_where_nothing_is_chosen(case, embedder):
    """A classifier that is never wrong cannot be better, and half of its texts are hard."""
    data, place, dataset, task, _ = case
    rng = np.random.default_rng(0)
    right = (9 * np.eye(4)[dataset.labels("label")] + rng.normal(size=(48, 4))).astype(np.float32)
    meta = {"model": "m", "method": "stc", "variant": "x"}
    write_predictions(place / "stc.h5", dataset, task, right, meta)
    found = rerank(data, place, "stc", embedder, threshold=0.5)
    assert np.array_equal(read_predictions(found["predictions"]).logits, right)
    report = read_json(found["report"])
    assert report["variant"] == "nothing" and not report["shown"]["chosen"]
    best = max(report["tried"][1:], key=lambda trial: (trial["score"], -trial["log_loss"]))
    assert report["shown"]["variant"].startswith(best["name"])
    variance = np.sort(right.astype(float), axis=1)[:, -3:].var(axis=1)
    threshold = np.quantile(variance[task.rows["validation"]], 0.5)
    for split in ("validation", "test"):
        hard = (variance[task.rows[split]] <= threshold).sum()
        assert report["chosen_share"][split] == report[split]["flagged"] == 0
        assert report["hard_texts"][split] == hard
        part = report[split]["hard"]
        assert part["accuracy_before"] == part["accuracy_after"] == 1 and part["difference"] == 0
        texts = [row["texts"] for row in report["curve"] if row["split"] == split]
        assert texts[0] == 0 and hard in texts
    outputs = {name: place / f"ablations.{name}" for name in ("table", "csv", "curve")}
    inputs = {"predictions": place / "stc.h5", "report": found["report"]}
    run_ablations(data, "label", inputs, embedder, outputs, settings(threshold=0.5), 3)
    table = pq.read_table(outputs["table"]).to_pandas()
    assert table["form"][table["chosen"]].tolist() == ["nothing"]
    curve = read_json(outputs["curve"])["curve"]
    assert [row["share"] for row in curve if row["split"] == "test"][-1] == 1


def test_labels_of_test_do_not_tell_on_cross_fitted_neurons(tmp_path):
    """Probes, neurons, grid and cross-fitted logits, made twice with other labels of test."""
    made = make_project(tmp_path)
    shards = [path for path in made.shards if ".mean." in path and "hidden" in path]
    logits = []
    for number in range(2):
        place = tmp_path / str(number)
        codes = made.dataset.labels("label").copy()
        test = made.task.rows["test"]
        codes[test] = (codes[test] + number) % 4
        task = {"kind": "single", "labels": list(made.task.labels), "counts": {}}
        texts = pa.table({"text": read_dataset(made.data).texts})
        write_dataset(
            place / "data",
            {"name": "made", "tasks": {"label": task}},
            texts,
            MADE,
            {"label": codes},
        )
        probes = [str(place / "probes" / Path(path).name) for path in shards]
        probe_shards(shards, probes, place / "data", "label", PROBE, None)
        table, grid = str(place / "neurons.parquet"), str(place / "grid.parquet")
        sparsify(probes, table)
        given = place / "data", "label", "hidden.mean"
        aggregate([table], shards, *given, grid, ETAS, AGGREGATE)
        inputs = {"probes": probes, "shards": shards}
        inputs |= {"grids": {"hidden.mean": grid}, "tables": {"hidden.mean": [table]}}
        options = {"probe": PROBE, "aggregate": AGGREGATE}
        out = place / "crossfit.h5"
        crossfit("stc", place / "data", "label", "tiny", out, 2, 3, inputs, options)
        dataset = read_dataset(place / "data")
        logits.append(read_crossfit(out, dataset, task_data(dataset, "label")).logits)
    assert np.array_equal(*logits)


@pytest.mark.parametrize("hardness", ["margin", "entropy"])
def test_triplets_of_hard_texts_are_found_at_the_temperature(case, hardness):
    data, place, dataset, task, logits = case
    logits = 4 * logits  # too sure of itself
    meta = {"model": "m", "method": "stc", "variant": "x"}
    write_predictions(place / "stc.h5", dataset, task, logits, meta)
    triplets = LRSL["triplets"] | {"hard_only": True}
    options = {"triplets": triplets, "hardness": hardness, "threshold": "misclassified"}
    found = []
    for temperature in (False, True):
        given = settings(**options, temperature=temperature)
        out = place / "triplets.parquet"
        make_triplets(data, "label", "stc", place / "stc.h5", None, out, given)
        found.append(set(read_triplets(out)[0]["row"].to_pylist()))
    rows, y = task.rows, dataset.labels("label")
    on = rows["validation"]
    tried = np.geomspace(0.1, 100, 2001)
    losses = -log_softmax(logits[on] / tried[:, None, None], axis=2)[:, np.arange(len(on)), y[on]]
    best = tried[losses.mean(axis=1).argmin()]
    wrong = logits.argmax(axis=1) != y
    for T, own in zip((1.0, best), found, strict=True):
        p = softmax(logits.astype(float) / T, axis=1)
        ranked = np.sort(p, axis=1)
        sure = ranked[:, -1] - ranked[:, -2] if hardness == "margin" else -entropy(p, axis=1)
        hard = (sure <= sure[on][wrong[on]].mean()) | wrong
        assert own == set(np.flatnonzero(hard & np.isin(np.arange(48), rows["train"])).tolist())
    assert found[0] != found[1], "a case that tests nothing"


def test_similarities_among_very_many_labels(case, embedder, monkeypatch):
    _, _, dataset, task, logits = case
    loaded = load_embedder(embedder)
    vectors = label_vectors(loaded, [(label,) for label in task.labels])
    rows = [5, 40, 5, 0]
    whole = Similarities(loaded, vectors, dataset).of(rows)
    monkeypatch.setattr("probeline.lrsl.neighbours.EXACT_BELOW", 4)
    monkeypatch.setattr("probeline.lrsl.neighbours.CANDIDATES", 1)
    np.testing.assert_array_equal(Similarities(loaded, vectors, dataset).of(rows), whole)
    found = Similarities(loaded, vectors, dataset, logits).of(rows)
    for row, own, known in zip(rows, found, whole, strict=True):
        expected = np.zeros(4)
        for label in (logits[row].argmax(), known.argmax()):
            expected[label] = known[label]
        np.testing.assert_allclose(own, expected, atol=1e-6)
    all_labels = LRSL | {"candidates": "all", "forms": ["prob", "mix", "paper-banking77"]}
    assert narrowing(logits, all_labels) is logits
    for other in ({"forms": ["prob", "mlp"]}, {"forms": ["paper-logits"]}, {"candidates": "top_k"}):
        assert narrowing(logits, all_labels | other) is None


@pytest.mark.parametrize("lost", ["folder", "weights", "settings"])
def test_a_tuned_embedding_that_was_deleted_is_named(case, embedder, lost):
    data, place, *_ = case
    tuned = place / "embedding" / "7"
    shutil.copytree(embedder["path"], tuned)
    tuned.with_name("7.json").write_text("{}")
    if lost == "folder":
        shutil.rmtree(tuned)
    else:
        (tuned / {"weights": "model.safetensors", "settings": "config.json"}[lost]).unlink()
    with pytest.raises(ProbelineError) as caught:
        rerank(data, place, "stc", embedder, tuned.with_name("7.json"))
    message = str(caught.value)
    assert message.startswith(str(tuned)) and "\n" not in message
    assert f"{tuned}.json says that an embedding was tuned there: delete that file" in message


def test_the_report_is_json_that_others_read(case, embedder):
    data, place, *_ = case
    found = rerank(data, place, "stc", embedder, threshold="validation")
    text = Path(found["report"]).read_text(encoding="utf-8")
    report = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert report["tried"][0]["name"] == "nothing" and len(report["tried"]) > 10
    assert set(report["chosen_share"]) == {"validation", "test"}
