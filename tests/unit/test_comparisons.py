"""Paired comparisons against a naive loop, a normal approximation and Holm's rule by hand."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bootstraps import (
    CASES,
    KINDS,
    OTHERS,
    dataset_of,
    drawn_seeds,
    made,
    naive_scores,
    sklearn_score,
)
from rich.console import Console
from scipy.stats import binom, chi2, norm

from probeline.data.store import Dataset, read_dataset
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


def cell_of(
    dataset: Dataset, task: TaskData, logits: list, folder: Path, answered: dict | None = None
) -> dict:
    """Write predictions and return the entry.

    `logits` are of the test rows, several of them for a method with several seeds; `answered` are
    those test rows that a (method, seed) by number answers, where it does not answer all.
    """
    methods = []
    for number, seeds in enumerate(logits):
        method, variant = NAMES[number]
        meta = {"model": "tiny", "method": method, "variant": f"{variant}: of file {number}"}
        paths = []
        for seed, values in enumerate(seeds if isinstance(seeds, list) else [seeds]):
            paths.append(str(folder / task.name / f"{number}-{seed}.h5"))
            every = np.concatenate([np.zeros((2 * OTHERS, values.shape[1])), values])
            kept = (answered or {}).get((number, seed), slice(None))
            part = {"test": task.rows["test"][kept]}
            write_predictions(paths[-1], dataset, replace(task, rows=task.rows | part), every, meta)
        methods.append({"method": method, "variant": variant, "paths": paths})
    names = {"dataset": "made", "task": task.name, "model": "tiny"}
    return names | {"folder": str(dataset.folder), "methods": methods}


def cell(
    folder: Path, metric: str, labels: np.ndarray, logits: list, answered: dict | None = None
) -> dict:
    dataset = dataset_of(folder / "data", {"label": labels})
    return cell_of(dataset, task_data(dataset, "label", metric), logits, folder, answered)


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
    assert frame["texts"].tolist() == [30, 60]
    # One label per text in both; 15 and 60 texts that the first alone has right.
    expected = [2 * 0.5**15, chi2.sf(59**2 / 60, 1)]
    assert frame["mcnemar_p"].tolist() == pytest.approx(expected)
    assert frame["task"].tolist() == ["fine", "path"]
    drawn = naive_scores("accuracy", fine[fine >= 0], [np.eye(2)[[0] * 30]], 0, 400)
    expected = 1 - np.quantile(drawn[0], [0.975, 0.025])
    assert frame.loc[0, ["ci_low", "ci_high"]].tolist() == pytest.approx(expected)


def test_predictions_of_other_texts_are_refused(tmp_path):
    labels, logits = made("multiclass", 30)
    entry = cell(tmp_path, "accuracy", labels, [logits, logits])
    path = entry["methods"][1]["paths"][0]
    dataset = read_dataset(entry["folder"], texts=False)
    task = task_data(dataset, "label", "accuracy")
    every = np.zeros((dataset.rows, KINDS["multiclass"]))
    none = {"rows": task.rows | {"test": task.rows["test"][:0]}}
    wrong = {
        "expected predictions of test texts of task 'label', found none": (
            dataset,
            replace(task, **none),
        ),
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


def test_texts_that_the_task_does_not_apply_to_are_refused(tmp_path):
    fine = np.array([0, 1, -1, 1, 0, 1])
    dataset = dataset_of(tmp_path / "data", {"fine": fine}, hierarchy=["fine"])
    task = task_data(dataset, "fine")
    entry = cell_of(dataset, task, [np.eye(2)[fine]] * 2, tmp_path)
    assert comparisons([entry], seed=0)["texts"].tolist() == [5]
    path = entry["methods"][1]["paths"][0]
    every = replace(task, rows=task.rows | {"test": np.arange(2 * OTHERS, dataset.rows)})
    meta = {"model": "", "method": "", "variant": ""}
    write_predictions(path, dataset, every, np.zeros((dataset.rows, 2)), meta)
    with pytest.raises(ProbelineError, match="some that the task does not apply to") as caught:
        comparisons([entry], seed=0)
    assert path in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("kind", "metric"), CASES)
def test_seeds_are_drawn_with_the_texts(tmp_path, monkeypatch, kind, metric):
    """Every resample by itself: texts drawn, each method's seeds drawn, scores averaged."""
    monkeypatch.setattr(module, "_LEAST", 60)
    monkeypatch.setattr(module, "_PER_COMPARISON", 0)
    labels, single = made(kind, 40)
    sets = [[made(kind, 40, 2 * i, noise=n)[1] for i, n in part] for part in SEEDS]
    logits = [sets[0], single, sets[1]]
    frame = comparisons([cell(tmp_path, metric, labels, logits)], seed=3)
    assert frame["seeds"].tolist() == [3, 3]
    assert frame["against_seeds"].tolist() == [1, 2]
    assert frame["variant"].tolist() == ["mean of 3 seeds"] * 2
    assert frame["against_variant"].tolist() == ["smallest", "mean of 2 seeds"]
    assert frame["texts"].tolist() == [40, 40]
    assert frame["mcnemar_p"].isna().all()
    every = [sets[0], [single], sets[1]]
    plain = [np.mean([sklearn_score(metric, labels, v) for v in own]) for own in every]
    moved = [
        np.array([np.mean(scores[seeds]) for scores, seeds in zip(found.T, drawn, strict=True)])
        for place, own in enumerate(every)
        for found in [naive_scores(metric, labels, own, 3, 60)]
        for drawn in [drawn_seeds(len(own), 3, place, 60)]
    ]
    for place, row in enumerate(frame.to_dict("records"), start=1):
        assert row["difference"] == pytest.approx(plain[0] - plain[place], abs=1e-12)
        differences = (moved[0] - moved[place])[np.isfinite(moved[0])]
        expected = np.quantile(differences, [0.025, 0.975])
        np.testing.assert_allclose([row["ci_low"], row["ci_high"]], expected, atol=1e-12)
        side = min((differences < 1e-12).sum(), (differences > -1e-12).sum())
        assert row["p"] == pytest.approx(min(1, 2 * (side + 1) / (len(differences) + 1)))


SEEDS = [[(1, 1.0), (2, 2.0), (3, 3.0)], [(4, 1.0), (5, 4.0)]]


def test_the_variance_between_seeds_is_in_the_interval(tmp_path):
    """Seeds that are right everywhere or nowhere: only which of them are drawn can move a score."""
    labels = np.arange(50) % 2
    right, wrong = right_on(np.ones(50, bool), labels), right_on(np.zeros(50, bool), labels)
    seeds = [right] * 6 + [wrong] * 2
    (row,) = comparisons([cell(tmp_path, "accuracy", labels, [right, seeds])], 0).to_dict("records")
    assert row["difference"] == 0.25
    expected = binom.ppf([0.025, 0.975], 8, 0.25) / 8
    assert [row["ci_low"], row["ci_high"]] == expected.tolist()
    # All eight drawn are right.
    assert row["p"] == pytest.approx(2 * 0.75**8, abs=0.02)


def test_a_method_of_some_texts_is_compared_on_those(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_LEAST", 70)
    monkeypatch.setattr(module, "_PER_COMPARISON", 0)
    labels, first = made("multiclass", 40)
    logits = [first, *(made("multiclass", 40, seed, noise=2.0)[1] for seed in (2, 4, 6))]
    alone = comparisons([cell(tmp_path / "whole", "macro-f1", labels, logits)], seed=3)
    rows = np.sort(np.random.default_rng(0).permutation(40)[:25])
    some = cell(tmp_path / "some", "macro-f1", labels, logits, {(2, 0): rows})
    frame = comparisons([some], seed=3)
    assert frame["texts"].tolist() == [40, 25, 40]
    assert frame["against"].tolist() == alone["against"].tolist()
    unchanged = ["difference", "ci_low", "ci_high", "p"]
    pd.testing.assert_frame_equal(frame.loc[[0, 2], unchanged], alone.loc[[0, 2], unchanged])
    pair = [values[rows] for values in (logits[0], logits[2])]
    scores = [sklearn_score("macro-f1", labels[rows], values) for values in pair]
    assert frame.loc[1, "difference"] == pytest.approx(scores[0] - scores[1])
    drawn = naive_scores("macro-f1", labels[rows], pair, 3, 70)
    expected = np.quantile(drawn[0] - drawn[1], [0.025, 0.975])
    assert frame.loc[1, ["ci_low", "ci_high"]].tolist() == pytest.approx(expected.tolist())


def test_seeds_of_other_texts_are_compared_on_those_of_all(tmp_path):
    labels = np.arange(12) % 2
    right = np.arange(12) != 6
    values = [right_on(np.ones(12, bool), labels), [right_on(right, labels)] * 3]
    answered = {(1, 0): np.arange(8), (1, 1): np.arange(4, 12), (1, 2): np.arange(5, 11)}
    entry = cell(tmp_path / "a", "accuracy", labels, values, answered)
    (row,) = comparisons([entry], seed=0).to_dict("records")
    assert (row["texts"], row["against_seeds"]) == (3, 3)  # the texts 5, 6 and 7
    assert row["difference"] == pytest.approx(1 / 3)
    apart = {(1, 0): np.arange(4), (1, 1): np.arange(4, 12)}
    entry = cell(tmp_path / "b", "accuracy", labels, values, apart)
    with pytest.raises(ProbelineError, match="no test text is in all of them") as caught:
        comparisons([entry], seed=0)
    assert "1-1.h5" in str(caught.value) and "\n" not in str(caught.value)


def test_mcnemar_stands_where_both_have_one_seed_and_one_label(tmp_path):
    labels = np.random.default_rng(0).integers(0, 2, 200)
    rights = [np.arange(200) >= 8, np.arange(200) < 197]
    values = [right_on(right, labels) for right in rights]
    single = comparisons([cell(tmp_path / "1", "roc-auc", labels, values)], seed=0)
    # 8 texts that the second alone has right, 3 that the first has.
    assert single["mcnemar_p"][0] == pytest.approx(2 * binom.cdf(3, 11, 0.5))
    labels, logits = made("multilabel", 40)
    several = cell(tmp_path / "2", "accuracy", labels, [logits, -logits])
    assert comparisons([several], seed=0)["mcnemar_p"].isna().all()


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
    most = right_on(np.arange(200) >= 20, labels)
    part = {(1, seed): np.arange(50) for seed in range(2)}
    seeded = cell(tmp_path / "icl", "accuracy", labels, [most, [most, most]], part)["methods"][1]
    seeded["method"] = "icl"
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
    entry["methods"].append(seeded)
    files = tmp_path / "results/comparisons.csv", tmp_path / "results/comparisons.parquet"
    write_comparisons([entry], *files, seed=0)
    rows = pd.read_parquet(files[1])
    intervals = [f"[{low:+.4f}, {high:+.4f}]" for low, high in rows[["ci_low", "ci_high"]].values]
    first, second, third = (f"{p:.2g}" for p in rows["p_holm"])
    assert printed() == [
        f"STC, selected - STC, smallest: -0.0400 {intervals[0]}, p {first} (Holm): worse",
        "STC, selected - sentence embedding: +0.0050 "
        f"{intervals[1]}, p {second} (Holm): not separated",
        f"STC, selected - in-context, 2 seeds: +0.2400 {intervals[2]}, p {third} (Holm): "
        "better, on 50 texts",
    ]
