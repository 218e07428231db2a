"""Paired comparisons against a naive loop, a normal approximation and Holm's rule by hand."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from bootstraps import CASES, KINDS, made, naive_scores, sklearn_score
from rich.console import Console
from scipy.stats import norm

from probeline.data.store import Dataset, read_dataset
from probeline.data.writing import write_dataset
from probeline.errors import ProbelineError
from probeline.probe.task import TaskData, task_data
from probeline.results import comparisons as module
from probeline.results.comparisons import COLUMNS, comparisons, holm, verdict, write_comparisons
from probeline.results.hierarchy import path_task, paths_of
from probeline.results.intervals import bootstrap_p
from probeline.results.predictions import write_predictions
from probeline.results.summary import COLUMNS as SUMMARY_COLUMNS
from probeline.results.table import show

NAMES = [("stc", "selected"), ("stc", "smallest"), ("probe", None), ("icl", None)]
OTHERS = 6  # rows of train and of validation: predicted too, and not to be compared


def dataset_of(folder: Path, labels: dict[str, np.ndarray], **manifest) -> Dataset:
    """Write labels by task, of the test rows; those of the other splits repeat them."""
    rows = {task: np.resize(y, (2 * OTHERS, *y.shape[1:])) for task, y in labels.items()}
    columns = {task: np.concatenate([rows[task], y]) for task, y in labels.items()}
    n = len(next(iter(columns.values())))
    tasks = {}
    for task, y in columns.items():
        names = [f"{task} {k}" for k in range(y.shape[1] if y.ndim == 2 else y.max() + 1)]
        kind = "multi" if y.ndim == 2 else "single"
        tasks[task] = {"kind": kind, "labels": names, "counts": {}}
    write_dataset(
        folder,
        {"name": "made", "tasks": tasks, **manifest},
        pa.table({"text": [f"text {i}" for i in range(n)]}),
        {"train": OTHERS, "validation": OTHERS, "test": n - 2 * OTHERS},
        columns,
    )
    return read_dataset(folder, texts=False)


def cell_of(dataset: Dataset, task: TaskData, logits: list[np.ndarray], folder: Path) -> dict:
    """Write predictions and return the entry; `logits` are of the test rows."""
    methods = []
    for number, values in enumerate(logits):
        path = folder / task.name / f"{number}.h5"
        every = np.concatenate([np.zeros((2 * OTHERS, values.shape[1])), values])
        method, variant = NAMES[number]
        meta = {"model": "tiny", "method": method, "variant": f"{variant}: of file {number}"}
        write_predictions(path, dataset, task, every, meta)
        methods.append({"method": method, "variant": variant, "path": str(path)})
    names = {"dataset": "made", "task": task.name, "model": "tiny"}
    return names | {"folder": str(dataset.folder), "methods": methods}


def cell(folder: Path, metric: str, labels: np.ndarray, logits: list[np.ndarray]) -> dict:
    dataset = dataset_of(folder / "data", {"label": labels})
    return cell_of(dataset, task_data(dataset, "label", metric), logits, folder)


@pytest.mark.parametrize(("kind", "metric"), CASES)
def test_a_row_is_what_a_naive_loop_finds(tmp_path, monkeypatch, kind, metric):
    monkeypatch.setattr(module, "_LEAST", 80)
    monkeypatch.setattr(module, "_PER_COMPARISON", 0)
    labels, first = made(kind, 40)
    logits = [first, *(made(kind, 40, seed, noise=2.0)[1] for seed in (2, 4))]
    frame = comparisons([cell(tmp_path, metric, labels, logits)], seed=3)
    drawn = naive_scores(metric, labels, logits, 3, 80)
    assert list(frame.columns) == list(COLUMNS)
    assert len(frame) == 2
    for number, row in enumerate(frame.to_dict("records"), start=1):
        expected = [sklearn_score(metric, labels, values) for values in logits]
        assert row["difference"] == pytest.approx(expected[0] - expected[number], abs=1e-12)
        differences = (drawn[0] - drawn[number])[np.isfinite(drawn[0])]
        low, high = np.quantile(differences, [0.025, 0.975])
        assert (row["ci_low"], row["ci_high"]) == pytest.approx((low, high), abs=1e-12)
        at_most, at_least = (differences < 1e-12).sum(), (differences > -1e-12).sum()
        p = min(1, 2 * (min(at_most, at_least) + 1) / (len(differences) + 1))
        assert row["p"] == pytest.approx(p, abs=1e-12)
        assert (row["method"], row["variant"], row["metric"]) == ("stc", "selected", metric)
        assert (row["dataset"], row["task"], row["model"]) == ("made", "label", "tiny")
        assert row["split"] == "test"
    assert frame["against"].tolist() == ["stc", "probe"]
    # Where the plan says no variant, the predictions do.
    assert frame["against_variant"].tolist() == ["smallest", "None: of file 2"]


def right_on(right: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Binary logits that are right on the marked texts."""
    return np.eye(2)[np.where(right, labels, 1 - labels)].astype(np.float32)


@pytest.mark.parametrize("only_second", [40, 55, 80])
def test_a_difference_of_accuracies_is_about_normal(tmp_path, only_second):
    """Its variance is that of a mean of n values 1, 0 and -1; the shared errors cancel."""
    n, only_first = 2000, 80
    labels = np.random.default_rng(0).integers(0, 2, n)
    first, second = np.ones(n, bool), np.ones(n, bool)
    second[:only_first] = False
    first[only_first : only_first + only_second] = False
    first[-400:] = second[-400:] = False
    pair = [right_on(first, labels), right_on(second, labels)]
    (row,) = comparisons([cell(tmp_path, "accuracy", labels, pair)], seed=0).to_dict("records")
    difference = (only_first - only_second) / n
    spread = np.sqrt(((only_first + only_second) / n - difference**2) / n)
    assert row["difference"] == pytest.approx(difference)
    expected = norm.ppf([0.025, 0.975], difference, spread)
    # Of 10,000 resamples and of steps of 1/n.
    np.testing.assert_allclose([row["ci_low"], row["ci_high"]], expected, atol=0.0008)
    p = min(1, 2 * norm.sf(difference / spread))
    assert row["p"] == pytest.approx(p, abs=0.1 if only_second == 80 else 0.012)
    assert row["verdict"] == ("better" if p < 0.05 else "not separated")


def test_p_and_interval_agree_on_zero():
    rng = np.random.default_rng(0)
    for shift in np.linspace(1.7, 2.3, 50):
        found = rng.normal(shift, 1, 999)
        low = np.quantile(found, 0.025)
        p = bootstrap_p(found)
        assert p == pytest.approx(bootstrap_p(-found))
        # But for the weight of two resamples.
        assert low > 0 if p < 0.05 else low < 0 or p < 0.054


def test_p_leaves_out_what_has_no_score():
    values = np.array([np.nan, 1.0, 2.0, -1.0, np.nan])
    assert bootstrap_p(values) == 2 * (1 + 1) / (3 + 1)
    assert bootstrap_p(np.array([np.nan])) == 1


@pytest.mark.parametrize(("kind", "metric"), CASES)
def test_the_same_predictions_are_not_separated(tmp_path, monkeypatch, kind, metric):
    monkeypatch.setattr(module, "_LEAST", 100)
    labels, logits = made(kind, 30)
    (row,) = comparisons([cell(tmp_path, metric, labels, [logits, logits])], 0).to_dict("records")
    assert [row[name] for name in ("difference", "ci_low", "ci_high")] == [0, 0, 0]
    assert (row["p"], row["p_holm"], row["verdict"]) == (1, 1, "not separated")


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.02]) == pytest.approx([0.6, 0.04])
    assert holm([0.7, 0.6]) == [1, 1]
    assert holm([]) == []


def test_verdict():
    assert verdict(0.1, 0.049) == "better"
    assert verdict(-0.1, 0.049) == "worse"
    assert verdict(0.1, 0.05) == verdict(0.0, 0.01) == "not separated"


def test_the_family_is_the_whole_table(tmp_path):
    labels = np.random.default_rng(0).integers(0, 2, 200)
    every, most = np.ones(200, bool), np.arange(200) >= 8
    cells = []
    for number, rights in enumerate([(every, most), (most, every, most)]):
        values = [right_on(right, labels) for right in rights]
        cells.append(cell(tmp_path / str(number), "accuracy", labels, values))
    alone = comparisons(cells[:1], seed=0)
    frame = comparisons(cells, seed=0)
    assert frame["p"][0] == alone["p"][0] == alone["p_holm"][0]
    assert frame["p"][1] == frame["p"][0]  # the same texts are drawn in every cell
    assert frame["p_holm"].tolist() == pytest.approx([3 * frame["p"][0]] * 2 + [1])
    assert frame["verdict"].tolist() == ["better", "worse", "not separated"]


def test_more_comparisons_get_more_resamples(tmp_path, monkeypatch):
    """Else the smallest p-value, times the comparisons, could not fall below 0.05."""
    monkeypatch.setattr(module, "_LEAST", 10)
    labels = np.arange(50) % 2
    right, wrong = right_on(np.ones(50, bool), labels), right_on(np.zeros(50, bool), labels)
    frame = comparisons([cell(tmp_path, "accuracy", labels, [wrong, right, right, right])], 0)
    assert frame["p"].tolist() == pytest.approx([2 / 601] * 3)
    assert set(frame["verdict"]) == {"worse"}
    assert frame["against"].tolist() == ["stc", "probe", "icl"]


def test_levels_and_paths_of_a_hierarchy(tmp_path, monkeypatch):
    """A level is compared where it is defined, whole paths everywhere."""
    monkeypatch.setattr(module, "_LEAST", 400)
    coarse = np.arange(60) % 2
    fine = np.where(coarse == 0, -1, np.arange(60) // 2 % 2)
    labels = {"coarse": coarse, "fine": fine}
    dataset = dataset_of(tmp_path / "data", labels, hierarchy=["coarse", "fine"])
    task, paths = task_data(dataset, "fine"), path_task(dataset, paths_of(dataset))
    truth = np.eye(len(paths.labels))[paths.y["test"]]
    cells = [
        cell_of(dataset, task, [np.eye(2)[fine], np.eye(2)[[0] * 60]], tmp_path),
        cell_of(dataset, paths, [truth, np.roll(truth, 1, axis=1)], tmp_path),
    ]
    frame = comparisons(cells, seed=0)
    assert frame["difference"].tolist() == [0.5, 1]
    assert frame["task"].tolist() == ["fine", "path"]
    drawn = naive_scores("accuracy", fine[fine >= 0], [np.eye(2)[[0] * 30]], 0, 400)
    expected = 1 - np.quantile(drawn[0], [0.975, 0.025])
    assert frame.loc[0, ["ci_low", "ci_high"]].tolist() == pytest.approx(expected)


def test_predictions_of_other_texts_are_refused(tmp_path):
    labels, logits = made("multiclass", 30)
    entry = cell(tmp_path, "accuracy", labels, [logits, logits])
    path = entry["methods"][1]["path"]
    dataset = read_dataset(entry["folder"], texts=False)
    task = task_data(dataset, "label", "accuracy")
    every = np.zeros((dataset.rows, KINDS["multiclass"]))
    fewer = {"rows": task.rows | {"test": task.rows["test"][1:]}}
    wrong = {
        "not of all test texts": (dataset, replace(task, **fewer)),
        "as it is now": (replace(dataset, fingerprint="other"), task),
        "task 'label' of dataset made": (dataset, replace(task, labels=task.labels[::-1])),
        "not predictions of task": (dataset, replace(task, metric="macro-f1")),
    }
    for words, (other, changed) in wrong.items():
        write_predictions(path, other, changed, every, {"model": "", "method": "", "variant": ""})
        with pytest.raises(ProbelineError, match=words) as caught:
            comparisons([entry], seed=0)
        assert path in str(caught.value)
        assert "\n" not in str(caught.value)
    Path(path).unlink()
    with pytest.raises(ProbelineError, match="no such predictions"):
        comparisons([entry], seed=0)


def test_the_files(tmp_path):
    labels, logits = made("multiclass", 40)
    entry = cell(tmp_path, "macro-f1", labels, [logits, made("multiclass", 40, 2, noise=2)[1]])
    paths = tmp_path / "c.csv", tmp_path / "c.parquet"
    write_comparisons([entry], *paths, seed=1)
    csv, parquet = pd.read_csv(paths[0]), pd.read_parquet(paths[1])
    assert list(csv.columns) == list(parquet.columns) == list(COLUMNS)
    pd.testing.assert_frame_equal(csv, parquet, rtol=1e-5)
    pd.testing.assert_frame_equal(parquet, comparisons([entry], seed=1))
    assert parquet["ci_low"][0] != comparisons([entry], seed=2)["ci_low"][0]


def test_lines_under_the_table(tmp_path):
    labels = np.random.default_rng(0).integers(0, 2, 200)
    rights = [np.arange(200) >= 8, np.ones(200, bool), np.arange(200) >= 9]
    entry = cell(tmp_path, "accuracy", labels, [right_on(right, labels) for right in rights])
    entry["methods"][2]["method"] = "sentence-embedding"
    frame = pd.DataFrame(columns=list(SUMMARY_COLUMNS))
    for split in ("validation", "test"):
        row = {"dataset": "made", "task": "label", "model": "tiny", "metric": "accuracy"}
        row |= {"method": "stc", "variant": "selected", "representation": "ffn", "split": split}
        row |= {"score": 0.96, "ci_low": 0.9, "ci_high": 1.0, "neurons": 5, "depth": 2}
        frame.loc[len(frame)] = row
    (tmp_path / "results").mkdir()
    frame.to_parquet(tmp_path / "results/summary.parquet")

    def printed() -> list[str]:
        out = io.StringIO()
        show(tmp_path, Console(file=out, width=80))
        return [line for line in out.getvalue().splitlines() if line.startswith("STC, selected - ")]

    assert printed() == []
    files = tmp_path / "results/comparisons.csv", tmp_path / "results/comparisons.parquet"
    write_comparisons([entry], *files, seed=0)
    rows = pd.read_parquet(files[1])
    intervals = [f"[{low:+.4f}, {high:+.4f}]" for low, high in rows[["ci_low", "ci_high"]].values]
    first, second = (f"{p:.2g}" for p in rows["p_holm"])
    assert printed() == [
        f"STC, selected - STC, smallest: -0.0400 {intervals[0]}, p {first} (Holm): worse",
        "STC, selected - sentence embedding: +0.0050 "
        f"{intervals[1]}, p {second} (Holm): not separated",
    ]
