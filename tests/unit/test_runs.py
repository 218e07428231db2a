"""Rows of baselines in the summary: each seed's, and their mean over texts and seeds."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bootstraps import drawn_seeds, sklearn_score
from labelled_texts import labelled
from rich.console import Console

from probeline.baselines.icl.rows import scored_rows
from probeline.baselines.report import Cost, write_baseline
from probeline.baselines.tfidf import tfidf
from probeline.data.store import Dataset, read_dataset
from probeline.errors import ProbelineError
from probeline.files import read_json
from probeline.probe.task import TaskData, task_data
from probeline.results import intervals
from probeline.results.predictions import read_predictions
from probeline.results.summary import COLUMNS, write_summary
from probeline.results.table import show

SIZES = {"train": 24, "validation": 20, "test": 40}
RESAMPLES = 50
METRICS = [("multiclass", "macro-f1"), ("multilabel", "micro-f1"), ("binary", "roc-auc")]


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(intervals, "RESAMPLES", RESAMPLES)


def dataset_of(kind: str = "multiclass") -> Dataset:
    return read_dataset(labelled(Path("results/datasets/labelled"), kind, sizes=SIZES))


def write_run(
    dataset: Dataset, task: TaskData, method: str, seed: int | None, noise: float, **more
) -> dict:
    """One run's files as a stage writes them; it is mostly right."""
    codes = dataset.labels("label")
    known = 2.0 * codes - 1 if task.multilabel else 2.0 * np.eye(task.classes)[codes]
    logits = known + np.random.default_rng(seed).normal(0, noise, known.shape)
    name = method if seed is None else f"{method}-{seed}"
    files = {key: f"{name}.{suffix}" for key, suffix in (("predictions", "h5"), ("scores", "json"))}
    meta = {"model": "tiny", "method": method, "variant": "full"}
    meta |= {} if seed is None else {"seed": seed}
    cost = Cost(3.0 + noise, 1.0 + noise, 2.0, 40, 1234)
    if not task.multilabel and task.classes == 2:
        logits = logits[:, 1:] - logits[:, :1]
    write_baseline(files["predictions"], files["scores"], dataset, task, logits, meta, cost, more)
    return {"seed": seed, **files}


def entry(*baselines: dict, model: str = "tiny") -> dict:
    source = None if model == "tfidf" else "./tiny"
    names = {"dataset": "labelled", "task": "label", "model": model, "source": source}
    return names | {"baselines": list(baselines)}


def summary(*entries: dict, seed: int = 7) -> pd.DataFrame:
    write_summary(entries, "results/summary.csv", "results/summary.parquet", seed)
    frame = pd.read_parquet("results/summary.parquet")
    assert list(frame.columns) == list(COLUMNS)
    return frame


def naive_interval(metric, labels, logits, answered, seed) -> tuple[float, float]:
    """Each resample by itself: draw texts, draw seeds, score each on those it answers."""
    rng, n = np.random.default_rng(seed), len(labels)
    seeds = drawn_seeds(len(logits), seed, 0, RESAMPLES)
    means = []
    for number in range(RESAMPLES):
        rows = rng.integers(0, n, n)
        scores = [
            sklearn_score(metric, labels[own], values[own])
            for values, there in zip(logits, answered, strict=True)
            for own in [rows[there[rows]]]
        ]
        means.append(np.mean([scores[k] for k in seeds[number]]))
    return tuple(np.quantile(means, [0.025, 0.975]))


@pytest.mark.parametrize(("kind", "metric"), METRICS)
def test_three_seeds_and_their_mean(project, kind, metric):
    dataset = dataset_of(kind)
    task = task_data(dataset, "label", metric)
    noises = {1: 1.0, 5: 2.0, 6: 4.0}
    runs = [write_run(dataset, task, "finetune", seed, noise) for seed, noise in noises.items()]
    frame = summary(entry({"method": "finetune", "runs": runs}))
    assert len(frame) == 2 * (3 + 1)
    assert set(frame["metric"]) == {metric}
    single, mean = frame[frame["seed"].notna()], frame[frame["seed"].isna()]
    assert set(single["variant"]) == {"full"} and set(mean["variant"]) == {"mean of 3 seeds"}
    assert single["seeds"].tolist() == [1] * 6 and mean["seeds"].tolist() == [3, 3]
    assert single["std"].isna().all()
    for split in ("validation", "test"):
        labels = task.y[split]
        logits = [read_predictions(run["predictions"]).of(split) for run in runs]
        expected = [sklearn_score(metric, labels, values) for values in logits]
        rows = single[single["split"] == split]
        assert rows["seed"].tolist() == list(noises)
        np.testing.assert_allclose(rows["score"], expected)
        every = np.ones(len(labels), bool)
        for row, values in zip(rows.to_dict("records"), logits, strict=True):
            found = naive_interval(metric, labels, [values], [every], 7)
            assert (row["ci_low"], row["ci_high"]) == pytest.approx(found)
        (row,) = mean[mean["split"] == split].to_dict("records")
        assert row["score"] == pytest.approx(np.mean(expected))
        assert row["std"] == pytest.approx(np.std(expected, ddof=1))
        found = naive_interval(metric, labels, logits, [every] * 3, 7)
        assert (row["ci_low"], row["ci_high"]) == pytest.approx(found)
    assert single["train_seconds"].tolist() == [2.0, 2.0, 3.0, 3.0, 5.0, 5.0]
    assert mean["train_seconds"].tolist() == pytest.approx([10 / 3] * 2)
    assert mean["seconds"].tolist() == pytest.approx([16 / 3] * 2)
    assert set(frame["texts_per_second"]) == {20.0}
    assert set(frame["parameters_trained"]) == {1234}


@pytest.mark.parametrize(("kind", "metric"), METRICS)
def test_seeds_that_answer_other_texts(project, kind, metric):
    """Each is scored on its own; the mean's resamples are of the texts of all."""
    dataset = dataset_of(kind)
    whole = task_data(dataset, "label", metric)
    most = {"train": 0, "validation": 9, "test": 25}
    tasks = {seed: scored_rows(dataset, whole, most, seed)[1] for seed in (1, 2)}
    runs = [write_run(dataset, task, "icl", seed, 2.0 * seed) for seed, task in tasks.items()]
    frame = summary(entry({"method": "icl", "runs": runs}))
    test = frame[frame["split"] == "test"].to_dict("records")
    scores = []
    for row, run, task in zip(test, runs, tasks.values(), strict=False):
        values = read_predictions(run["predictions"]).of("test")
        labels = task.y["test"]
        assert len(labels) == len(values) == 25
        scores.append(sklearn_score(metric, labels, values))
        assert row["score"] == pytest.approx(scores[-1])
        found = naive_interval(metric, labels, [values], [np.ones(25, bool)], 7)
        assert (row["ci_low"], row["ci_high"]) == pytest.approx(found)
    union = np.union1d(*(task.rows["test"] for task in tasks.values()))
    assert 25 < len(union) < 40
    found = naive_interval(
        metric,
        dataset.labels("label")[union],
        [read_predictions(run["predictions"]).logits[union] for run in runs],
        [np.isin(union, task.rows["test"]) for task in tasks.values()],
        7,
    )
    assert (test[2]["ci_low"], test[2]["ci_high"]) == pytest.approx(found)
    assert test[2]["score"] == pytest.approx(np.mean(scores))


def test_one_seed_has_no_mean(project):
    dataset = dataset_of()
    runs = [write_run(dataset, task_data(dataset, "label"), "finetune", 3, 1.0)]
    frame = summary(entry({"method": "finetune", "runs": runs}))
    assert frame["variant"].tolist() == ["full", "full"]
    assert frame["seed"].tolist() == [3, 3]


def test_rows_of_a_method_without_a_model(project):
    dataset = dataset_of()
    files = {"predictions": "tfidf.h5", "scores": "tfidf.json"}
    tfidf(dataset.folder, "label", **files, options={"penalties": [1.0, 10.0]})
    runs = [{"seed": None, **files}]
    frame = summary(entry({"method": "tfidf", "runs": runs}, model="tfidf"))
    scores, found = read_json("tfidf.json"), read_predictions("tfidf.h5")
    assert frame["split"].tolist() == ["validation", "test"]
    for row in frame.to_dict("records"):
        assert (row["model"], row["method"], row["variant"]) == ("tfidf", "tfidf", "word")
        assert (row["source"], row["seed"]) == (None, 7)
        assert row["penalty"] == scores["C"]
        labels = dataset.labels("label")[found.rows_of(row["split"])]
        assert row["score"] == (found.of(row["split"]).argmax(axis=1) == labels).mean()
        for key in ("seconds", "train_seconds", "texts_per_second", "parameters_trained"):
            assert row[key] == scores[key] > 0


def test_the_layer_of_zero_shot(project):
    dataset = dataset_of()
    task = task_data(dataset, "label")
    runs = [write_run(dataset, task, "zero-shot", None, 1.0, layer=6)]
    frame = summary(entry({"method": "zero-shot", "runs": runs}))
    for row in frame.to_dict("records"):
        assert (row["representation"], row["pooling"]) == ("hidden", "mean")
        assert (row["layer"], row["depth"], row["seed"]) == (6, 6, 7)
        assert pd.isna(row["penalty"])


def test_predictions_of_another_dataset_are_refused(project):
    dataset = dataset_of()
    runs = [write_run(dataset, task_data(dataset, "label"), "finetune", 3, 1.0)]
    labelled(dataset.folder, codes=np.arange(84) % 3, sizes=SIZES)
    with pytest.raises(ProbelineError, match=r"finetune-3\.h5: not predictions of task 'label'"):
        summary(entry({"method": "finetune", "runs": runs}))


def test_the_table_shows_means_and_what_has_no_model(project):
    dataset = dataset_of()
    task = task_data(dataset, "label")
    tuned = [write_run(dataset, task, "finetune", seed, 3.0) for seed in (1, 2)]
    asked = [write_run(dataset, task, "icl", seed, 4.0) for seed in (1, 2)]
    shot = [write_run(dataset, task, "zero-shot", None, 5.0, layer=6)]
    floor = [write_run(dataset, task, "tfidf", None, 8.0, C=1.0)]
    every = {"finetune": tuned, "icl": asked, "zero-shot": shot}
    methods = [{"method": method, "runs": runs} for method, runs in every.items()]
    without = entry({"method": "tfidf", "runs": floor}, model="tfidf")
    frame = summary(entry(*methods), without)

    def printed() -> list[str]:
        out = io.StringIO()
        show(".", Console(file=out, width=140))
        lines = out.getvalue().partition("\nevery score")[0].strip().splitlines()
        return [line.rstrip() for line in lines]

    lines = printed()
    test = frame[frame["split"] == "test"]
    assert lines[0] == "labelled, tiny: accuracy"
    names = {"fine-tuned": "finetune", "in-context": "icl", "TF-IDF": "tfidf"}
    for name, variant, features in (
        ("fine-tuned, 2 seeds", "mean of 2 seeds", "full"),
        ("in-context, 2 seeds", "mean of 2 seeds", "full"),
        ("zero-shot", "full", "hidden.mean.6"),
        ("TF-IDF", "full", "full"),
    ):
        method = names.get(name.partition(",")[0], name)
        (row,) = test[(test["method"] == method) & (test["variant"] == variant)].to_dict("records")
        (line,) = (line for line in lines if line.startswith(name))
        assert line.removeprefix(name).split()[0] == features
        assert f"{row['score']:.4f}  {row['ci_low']:.3f}-{row['ci_high']:.3f}" in line
    assert len(lines) == 2 + 4
    out = io.StringIO()
    show(".", Console(file=out, width=80))
    narrow = [line.rstrip() for line in out.getvalue().splitlines()]
    assert set(lines) <= set(narrow)  # nothing is cut off at 80
    frame.drop(columns="seeds").to_parquet("results/summary.parquet")
    with pytest.raises(ProbelineError, match="an earlier version did not write"):
        printed()
    summary(without)
    assert printed()[0] == "labelled, tfidf: accuracy"
