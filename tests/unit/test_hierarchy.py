"""Whole paths through a hierarchy, against loops over rows and labels."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from small_project import PROBE

from probeline.activations.shards import write_shard
from probeline.baselines.sentence_embedding import sentence_embedding
from probeline.data.store import Dataset, build_dataset, read_dataset
from probeline.errors import ProbelineError
from probeline.probe.stage import probe_shards
from probeline.probe.store import read_probe
from probeline.probe.task import SPLITS, task_data
from probeline.results.hierarchy import combine_levels, path_logits, path_task, paths_of
from probeline.results.intervals import bootstrap_interval
from probeline.results.layers import compare_layers
from probeline.results.predictions import read_predictions, write_predictions
from probeline.results.summary import COLUMNS, write_summary
from probeline.results.table import show

LEVELS = ["top", "middle", "leaf"]
# Every row of a level has a label of the next one, or none has.
PURE = [
    ("no", "", ""),
    ("yes", "threat", "harm"),
    ("yes", "insult", "slur"),
    ("yes", "insult", "joke"),
    ("maybe", "doubt", ""),
]
# Rows that end where others go on, one of them before the first level.
MIXED = [*PURE, ("yes", "", ""), ("yes", "insult", ""), ("", "", "")]


def made(folder: Path, train: list, validation: list, test: list, label=LEVELS) -> Dataset:
    """A dataset of these rows, in the workflow's place under `folder`."""
    rows = {"train": train, "validation": validation, "test": test}
    for split in SPLITS:
        lines = [f"text {split} {i},{','.join(row)}" for i, row in enumerate(rows[split])]
        (folder / f"{split}.csv").write_text("\n".join([f"text,{','.join(LEVELS)}", *lines]) + "\n")
    spec = {
        "loader": "csv",
        "path": str(folder),
        "text": "text",
        "label": label,
        "undefined": "" if label == LEVELS else None,
        "splits": {split: f"{split}.csv" for split in SPLITS},
    }
    out = folder / "results/datasets/made"
    build_dataset("made", spec, out)
    return read_dataset(out, texts=False)


def drawn(kinds: list, count: int, seed: int, every: bool = True) -> list:
    rng = np.random.default_rng(seed)
    return [*(kinds if every else []), *(kinds[i] for i in rng.integers(0, len(kinds), count))]


def some_logits(dataset: Dataset, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    sizes = [len(dataset.tasks[level]["labels"]) for level in LEVELS]
    return [rng.normal(size=(dataset.rows, size)).astype(np.float32) * 2 for size in sizes]


def words(dataset: Dataset) -> list[tuple]:
    """The labels on the way of every row."""
    columns = [
        [dataset.tasks[level]["labels"][code] if code >= 0 else None for code in codes]
        for level in LEVELS
        for codes in [dataset.labels(level)]
    ]
    return [tuple(word for word in row if word) for row in zip(*columns, strict=True)]


def naive(dataset: Dataset, logits: list[np.ndarray], row: int) -> dict[tuple, float]:
    """Probabilities of the paths of one row, by the manifest's parents."""
    train = words(dataset)[dataset.split("train")]
    found = {}

    def walk(path: tuple, probability: float) -> None:
        level = len(path)
        through = [other for other in train if other[:level] == path]
        stop = Counter(len(other) == level for other in through)[True] / len(through)
        if stop:
            found[path] = probability * stop
        if level == len(LEVELS):
            return
        labels = dataset.tasks[LEVELS[level]]["labels"]
        parents = dataset.tasks[LEVELS[level]].get("parents")
        mine = [k for k, name in enumerate(labels) if not path or parents[name] == path[-1]]
        powers = {k: np.exp(float(logits[level][row, k])) for k in mine}
        for k in mine:
            share = powers[k] / sum(powers.values())
            walk((*path, labels[k]), probability * (1 - stop) * share)

    walk((), 1.0)
    return found


def named(path: tuple) -> str:
    return " > ".join(path) or "(none)"


@pytest.mark.parametrize("kinds", [PURE, MIXED])
@pytest.mark.parametrize("seed", [0, 1])
def test_probabilities_equal_a_walk_down_the_tree(tmp_path, kinds, seed):
    rows = [drawn(kinds, count, seed + i) for i, count in enumerate((40, 10, 10))]
    dataset = made(tmp_path, *rows)
    paths, logits = paths_of(dataset), some_logits(dataset, seed)
    found = np.exp(path_logits(paths, logits).astype(np.float64))
    assert len(paths.labels) == len(set(paths.labels)) == len(kinds)
    for row in range(dataset.rows):
        expected = {named(path): p for path, p in naive(dataset, logits, row).items()}
        assert dict(zip(paths.labels, found[row], strict=True)) == pytest.approx(expected)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    truth = [paths.labels[code] for code in paths.truth]
    assert truth == [named(path) for path in words(dataset)]


def test_probabilities_by_hand(tmp_path):
    """0.75 yes; of these 0.8 insult; and of insults 0.75 joke, though the leaf level by itself,
    where harm has the most, would say harm."""
    dataset = made(tmp_path, *(3 * [[*PURE[:4], PURE[0]]]))
    assert [dataset.tasks[level]["labels"] for level in LEVELS] == [
        ["no", "yes"],
        ["insult", "threat"],
        ["harm", "joke", "slur"],
    ]
    levels = [np.log([shares]) for shares in ([0.25, 0.75], [0.8, 0.2], [0.6, 0.3, 0.1])]
    paths = paths_of(dataset)
    found = np.exp(path_logits(paths, levels)[0])
    assert dict(zip(paths.labels, found, strict=True)) == pytest.approx(
        {
            "no": 0.25,
            "yes > insult > joke": 0.75 * 0.8 * 0.75,
            "yes > insult > slur": 0.75 * 0.8 * 0.25,
            "yes > threat > harm": 0.75 * 0.2,
        }
    )
    assert paths.labels[found.argmax()] == "yes > insult > joke"


def test_a_label_where_texts_end_or_go_on(tmp_path):
    """One training text in four that says yes ends there: a quarter of the probability stays."""
    yes = [("yes", "", ""), *(3 * [("yes", "insult", "slur")])]
    train = [("no", "", ""), ("no", "threat", "harm"), ("no", "threat", "kill"), *yes]
    dataset = made(tmp_path, train, train, train)
    levels = [np.log([[0.2, 0.8]]), np.zeros((1, 2)), np.zeros((1, 3))]
    paths = paths_of(dataset)
    found = dict(zip(paths.labels, np.exp(path_logits(paths, levels)[0]), strict=True))
    assert found == pytest.approx(
        {
            "no": 0.2 / 3,
            "no > threat > harm": 0.2 / 3,
            "no > threat > kill": 0.2 / 3,
            "yes": 0.2,
            "yes > insult > slur": 0.6,
        }
    )


def test_sure_logits_neither_overflow_nor_underflow(tmp_path):
    dataset = made(tmp_path, *(3 * [PURE]))
    logits = [400 * values for values in some_logits(dataset)]
    found = path_logits(paths_of(dataset), logits)
    assert np.isfinite(found).all()
    assert (found <= 0).all()
    assert found.min() < -200


UNSEEN = [("yes", "insult", ""), ("yes", "", ""), ("", "", "")]


def test_a_path_that_train_does_not_have_is_never_predicted_and_wrong(tmp_path):
    dataset = made(tmp_path, 4 * PURE, [*PURE, UNSEEN[0]], [*PURE, *UNSEEN])
    paths = paths_of(dataset)
    logits = path_logits(paths, some_logits(dataset))
    unseen = [i for i, label in enumerate(paths.labels) if label in map(named, UNSEEN_NAMES)]
    assert len(unseen) == 3
    assert (logits[:, unseen] == -np.inf).all()
    assert not np.isnan(logits).any()
    assert not np.isin(logits.argmax(axis=1), unseen).any()
    # Right on every text whose path train has.
    sure = np.where(np.arange(len(paths.labels)) == paths.truth[:, None], 0.0, -20.0)
    sure[:, unseen] = -np.inf
    test = dataset.split("test")
    for metric, expected in (("accuracy", 5 / 8), ("macro-f1", None)):
        task = path_task(dataset, paths, metric)
        if expected is None:
            predicted = sure[test].argmax(axis=1)
            expected = f1_score(paths.truth[test], predicted, average="macro")
        assert task.score("test", sure[test]) == pytest.approx(expected)


UNSEEN_NAMES = [tuple(word for word in row if word) for row in UNSEEN]


@pytest.mark.parametrize("kinds", [PURE, MIXED])
def test_scores_equal_those_of_sklearn_on_the_names_of_paths(tmp_path, kinds):
    rows = [drawn(PURE, 60, 0), drawn(kinds, 30, 1), drawn(kinds, 30, 2)]
    dataset = made(tmp_path, *rows)
    paths = paths_of(dataset)
    logits = path_logits(paths, some_logits(dataset))
    for split in ("validation", "test"):
        part = dataset.split(split)
        truth = [named(path) for path in words(dataset)[part]]
        predicted = []
        for row in range(part.start, part.stop):
            chances = naive(dataset, some_logits(dataset), row)
            predicted.append(named(max(chances, key=chances.get)))
        expected = {
            "accuracy": accuracy_score(truth, predicted),
            "macro-f1": f1_score(truth, predicted, average="macro"),
            "micro-f1": accuracy_score(truth, predicted),
            "matthews": matthews_corrcoef(truth, predicted),
        }
        for metric, value in expected.items():
            task = path_task(dataset, paths, metric)
            assert task.score(split, logits[part]) == pytest.approx(value)
            low, high = bootstrap_interval(
                metric, task.y[split], logits[part], task.classes, seed=3
            )
            assert low < value < high
        assert 0.4 < path_task(dataset, paths, "roc-auc").score(split, logits[part]) < 0.7


def level_files(
    folder: Path, dataset: Dataset, method: str = "stc", seed: int | None = None
) -> list[str]:
    """Predictions of all levels, written as the stages do."""
    found = []
    for level, logits in zip(LEVELS, some_logits(dataset, seed or 0), strict=True):
        name = method if seed is None else f"{method}-{seed}"
        path = folder / f"results/predictions/made/{level}/tiny/{name}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        meta = {"model": "tiny", "method": method, "variant": f"{level}.mean.1"}
        if seed is not None:
            meta |= {"variant": "full", "seed": seed}
        task = task_data(dataset, level)
        # A binary level as its classifier gives it: one logit.
        logits = logits[:, 1:] - logits[:, :1] if task.classes == 2 else logits
        write_predictions(path, dataset, task, logits, meta)
        found.append(str(path))
    return found


def test_combined_predictions_are_of_every_row(tmp_path):
    dataset = made(tmp_path, 3 * PURE, PURE, [*PURE, *UNSEEN])
    files = level_files(tmp_path, dataset)
    for level, file in zip(LEVELS, files, strict=True):
        stored = read_predictions(file)
        np.testing.assert_array_equal(stored.defined, dataset.labels(level) >= 0)
        assert not stored.defined.all()
    out = tmp_path / "path.h5"
    combine_levels(files, dataset.folder, "tiny", out, "macro-f1")
    found, paths = read_predictions(out), paths_of(dataset)
    assert found.rows.tolist() == list(range(dataset.rows))
    assert found.defined.all()
    assert found.labels == list(paths.labels)
    assert found.meta["task"] == "path"
    assert found.meta["metric"] == "macro-f1"
    assert found.meta["variant"] == "top.mean.1 > middle.mean.1 > leaf.mean.1"
    for row in range(dataset.rows):
        expected = {named(path): p for path, p in naive(dataset, some_logits(dataset), row).items()}
        expected = [expected.get(label, 0.0) for label in found.labels]
        np.testing.assert_allclose(np.exp(found.logits[row]), expected, rtol=1e-5)


def test_seeds_of_a_method_have_paths_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset = made(tmp_path, 3 * PURE, 8 * PURE, drawn(MIXED, 30, 2))
    paths, levels = [], {}
    for seed in (42, 7):
        levels[seed] = level_files(tmp_path, dataset, "finetune", seed)
        paths.append(f"results/predictions/made/path/tiny/finetune-{seed}.h5")
        combine_levels(levels[seed], dataset.folder, "tiny", paths[-1])
        meta = read_predictions(paths[-1]).meta
        assert (meta["method"], meta["variant"], meta["seed"]) == ("finetune", "full", seed)
    methods = [{"method": "finetune", "variant": None, "paths": paths}]
    entry = {"dataset": "made", "task": "path", "model": "tiny", "source": "x", "methods": methods}
    write_summary([entry], "results/summary.csv", "results/summary.parquet", seed=5)
    frame = pd.read_parquet("results/summary.parquet")
    assert frame["seed"].fillna(-1).tolist() == [42, 42, 7, 7, -1, -1]
    assert frame["seeds"].tolist() == [1, 1, 1, 1, 2, 2]
    test = frame[frame["split"] == "test"]
    truth, part = paths_of(dataset).truth, dataset.split("test")
    expected = []
    for seed in (42, 7):
        logits = path_logits(paths_of(dataset), some_logits(dataset, seed))
        expected.append((logits[part].argmax(axis=1) == truth[part]).mean())
    assert test["score"].tolist() == pytest.approx([*expected, np.mean(expected)])
    assert test["std"].iloc[2] == pytest.approx(abs(expected[0] - expected[1]) / np.sqrt(2))
    assert test["variant"].tolist() == ["full", "full", "mean of 2 seeds"]
    mixed = [levels[42][0], levels[7][1], levels[42][2]]
    with pytest.raises(ProbelineError, match="levels of different seeds"):
        combine_levels(mixed, dataset.folder, "tiny", tmp_path / "path.h5")


def test_a_split_that_no_level_answers_is_not_of_the_paths(tmp_path):
    """In-context learning does not score training texts."""
    dataset = made(tmp_path, 3 * PURE, PURE, 2 * PURE)
    files = level_files(tmp_path, dataset, "icl", 1)

    def rewrite(number: int, **rows) -> None:
        level = LEVELS[number]
        task = task_data(dataset, level)
        kept = {split: task.rows[split][:most] for split, most in rows.items()}
        task = replace(task, rows=task.rows | kept)
        meta = {"model": "tiny", "method": "icl", "variant": "4 per class", "seed": 1}
        logits = some_logits(dataset)[number]
        logits = logits[:, 1:] - logits[:, :1] if task.classes == 2 else logits
        write_predictions(files[number], dataset, task, logits, meta)

    for number in range(3):
        rewrite(number, train=0)
    out = tmp_path / "path.h5"
    combine_levels(files, dataset.folder, "tiny", out)
    found = read_predictions(out)
    np.testing.assert_array_equal(found.defined, found.split != "train")
    rewrite(1, train=0, test=3)
    with pytest.raises(
        ProbelineError, match=r"middle.*icl-1\.h5: predictions of 3 of 8 test texts"
    ):
        combine_levels(files, dataset.folder, "tiny", out)


def test_what_cannot_be_combined(tmp_path):
    dataset = made(tmp_path, *(3 * [PURE]))
    files = level_files(tmp_path, dataset)
    with pytest.raises(ProbelineError, match=r"stc\.h5: not predictions of level 'top'"):
        combine_levels(files[::-1], dataset.folder, "tiny", tmp_path / "path.h5")
    (tmp_path / "other").mkdir()
    other = made(tmp_path / "other", *(3 * [2 * PURE]))
    with pytest.raises(ProbelineError, match="of dataset made as it is now"):
        combine_levels(files, other.folder, "tiny", tmp_path / "path.h5")
    (tmp_path / "flat").mkdir()
    flat = made(tmp_path / "flat", *(3 * [PURE]), label="top")
    with pytest.raises(ProbelineError, match="one label column, so there are no paths"):
        combine_levels(files[:1], flat.folder, "tiny", tmp_path / "path.h5")
    assert not (tmp_path / "path.h5").exists()


def test_stages_store_the_rows_where_a_level_is_undefined(tmp_path):
    """Logits are one affine function of a text's activations, whether the level applies or not."""
    dataset = made(tmp_path, 12 * PURE, 6 * PURE, 6 * PURE)
    X = np.random.default_rng(0).normal(size=(dataset.rows, 5)).astype(np.float32)
    X += np.eye(5)[dataset.labels("leaf")]
    shard, probe = tmp_path / "hidden.mean.01.h5", tmp_path / "probes/hidden.mean.01.h5"
    meta = dict.fromkeys(("model", "revision", "tokenizer_hash", "dataset", "dtype"), "x")
    meta |= {"max_length": 4, "representation": "hidden", "pooling": "mean", "layer": 1}
    write_shard(shard, X, meta | {"dataset_fingerprint": dataset.fingerprint})
    probe_shards([shard], [probe], dataset.folder, "leaf", PROBE)
    files = {name: tmp_path / f"{name}.h5" for name in ("probe", "last-layer", "embedding")}
    cell = (dataset.folder, "leaf", "tiny")
    compare_layers([probe], [shard], *cell, tmp_path / "layers.parquet", files)
    options = {"penalties": [1.0, 100.0], "class_weight": None}
    sentence_embedding(shard, *cell, files["embedding"], tmp_path / "scores.json", options)
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    task, trained = task_data(dataset, "leaf"), read_probe(probe)[0]
    for name, values in (("probe", X), ("last-layer", X), ("embedding", unit)):
        stored = read_predictions(files[name])
        np.testing.assert_array_equal(stored.defined, dataset.labels("leaf") >= 0)
        features = np.c_[values, np.ones(dataset.rows)].astype(np.float64)
        found = np.linalg.lstsq(
            features[stored.defined], stored.logits[stored.defined], rcond=None
        )[0]
        np.testing.assert_allclose(features @ found, stored.logits, atol=1e-4)
        for split in SPLITS:
            assert stored.rows_of(split).tolist() == task.rows[split].tolist()
    stored = read_predictions(files["probe"])
    assert task.score("test", stored.of("test")) == trained.test_score
    assert task.score("validation", stored.of("validation")) == trained.validation_score


def test_rows_of_the_summary(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset = made(tmp_path, drawn(PURE, 30, 0), drawn(PURE, 20, 1), drawn(MIXED, 20, 2))
    variants = {"stc": "selected", "stc-smallest": "smallest", "sentence-embedding": "l2"}
    methods = []
    for name in ("last-layer", "probe", *variants):
        levels = level_files(tmp_path, dataset, name.removesuffix("-smallest"))
        path = f"results/predictions/made/path/tiny/{name}.h5"
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        combine_levels(levels, dataset.folder, "tiny", path, "macro-f1")
        method = name.removesuffix("-smallest")
        methods.append({"method": method, "variant": variants.get(name), "paths": [path]})
    entry = {"dataset": "made", "task": "path", "model": "tiny", "source": "x", "methods": methods}
    write_summary([entry], "results/summary.csv", "results/summary.parquet", seed=5)
    frame = pd.read_parquet("results/summary.parquet")
    assert list(frame.columns) == list(COLUMNS)
    assert len(frame) == 10
    assert set(zip(frame["method"], frame["variant"], strict=True)) == {
        ("last-layer", "top.mean.1 > middle.mean.1 > leaf.mean.1"),
        ("probe", "top.mean.1 > middle.mean.1 > leaf.mean.1"),
        ("stc", "selected"),
        ("stc", "smallest"),
        ("sentence-embedding", "l2"),
    }
    assert set(frame["metric"]) == {"macro-f1"}
    for column in ("representation", "pooling", "layer", "depth", "eta", "penalty", "neurons"):
        assert frame[column].isna().all()
    paths, logits = paths_of(dataset), path_logits(paths_of(dataset), some_logits(dataset))
    for row in frame.to_dict("records"):
        part = dataset.split(row["split"])
        expected = f1_score(paths.truth[part], logits[part].argmax(axis=1), average="macro")
        assert row["score"] == pytest.approx(expected)
        assert row["ci_low"] <= row["score"] <= row["ci_high"]
    out = io.StringIO()
    show(tmp_path, Console(file=out, width=140))
    assert "made / path (all levels, all rows), tiny: macro-f1" in out.getvalue()
    for text in ("STC, selected", "STC, smallest", "best single layer", f"{expected:.4f}"):
        assert text in out.getvalue()
    assert "NA" not in out.getvalue() and "nan" not in out.getvalue()
