"""The summary, the table of layers and the sentence-embedding baseline, against fresh numbers."""

from __future__ import annotations

import io
import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from pipeline import Run, trained
from problems import by_sklearn, objective
from rich.console import Console
from safetensors.numpy import load_file
from sklearn.preprocessing import normalize
from small_project import make_project

from probeline.activations.shards import open_shard
from probeline.aggregate.stage import read_grid
from probeline.baselines.sentence_embedding import normalized, sentence_embedding
from probeline.errors import ProbelineError
from probeline.probe.losses import make_loss
from probeline.probe.store import read_probe
from probeline.probe.task import SPLITS
from probeline.results.intervals import bootstrap_interval
from probeline.results.layers import last_layer
from probeline.results.predictions import read_predictions
from probeline.results.summary import COLUMNS, metric_of, read_summary, write_summary
from probeline.results.table import show

KEYS = ["dataset", "task", "model", "method", "variant", "split"]


@pytest.fixture(scope="module", params=["binary", "multiclass", "multilabel"])
def run(request, tmp_path_factory) -> Run:
    return trained(request.param, tmp_path_factory)


def baseline(run: Run, method: str, files: dict[int | None, str]) -> dict:
    runs = [
        {
            "seed": seed,
            "scores": str(run.place("scores") / f"{name}.json"),
            "predictions": str(run.place("predictions") / f"{name}.h5"),
        }
        for seed, name in files.items()
    ]
    return {"method": method, "runs": runs}


def entry(run: Run, **more) -> dict:
    return {
        "dataset": "texts",
        "task": "label",
        "model": "tiny",
        "source": "./model",
        "layers": str(run.place("layers").with_suffix(".parquet")),
        "stc": str(run.place("scores") / "stc.json"),
        "grids": run.grids(),
        "predictions": str(run.place("predictions")),
        "baselines": [baseline(run, "sentence-embedding", {None: "sentence-embedding"})],
        **more,
    }


@pytest.fixture
def summary(run, tmp_path, monkeypatch) -> pd.DataFrame:
    monkeypatch.chdir(run.folder)
    paths = tmp_path / "summary.csv", tmp_path / "summary.parquet"
    write_summary([entry(run)], *paths, seed=42)
    frame = pd.read_parquet(paths[1])
    again = pd.read_csv(paths[0])
    assert list(frame.columns) == list(again.columns) == list(COLUMNS)
    pd.testing.assert_series_equal(frame["score"], again["score"], rtol=1e-5)
    pd.testing.assert_frame_equal(frame[KEYS], again[KEYS], check_dtype=False)
    return frame


def test_one_row_per_method_variant_and_split(run, summary):
    assert not summary.duplicated(KEYS).any()
    methods = summary[summary["ci_low"].notna()]
    assert set(methods["method"]) == {"last-layer", "probe", "sentence-embedding", "stc"}
    assert set(methods["split"]) == {"validation", "test"}
    assert len(methods) == 10  # stc twice: selected and smallest
    layers = summary[summary["variant"].str.startswith("layer: ")]
    assert len(layers) == 2 * len(run.probes)
    grids = summary[summary["variant"].str.startswith("best of ")]
    assert set(grids["variant"]) == {f"best of {slug}" for slug in run.grids()}
    assert len(methods) + len(layers) + len(grids) == len(summary)
    assert set(summary["metric"]) == {run.task.metric}
    assert set(summary["seed"]) == {42}
    assert set(summary["source"]) == {"./model"}


FILES = {
    ("last-layer", None): "last-layer",
    ("probe", None): "probe",
    ("sentence-embedding", "l2"): "sentence-embedding",
    ("stc", "selected"): "stc",
    ("stc", "smallest"): "stc-smallest",
}


def test_scores_are_those_of_the_predictions(run, summary):
    """Every method's score and interval follow from its per-text file alone."""
    task = run.task
    for (method, variant), name in FILES.items():
        stored = run.predictions(name)
        assert stored.meta["method"] == method
        for split in ("validation", "test"):
            rows = summary[(summary["method"] == method) & (summary["split"] == split)]
            rows = rows[rows["ci_low"].notna()]
            if variant:
                rows = rows[rows["variant"] == variant]
            (row,) = rows.to_dict("records")
            logits = stored.of(split)
            assert row["score"] == pytest.approx(task.score(split, logits))
            low, high = bootstrap_interval(task.metric, task.y[split], logits, task.classes, 42)
            assert (row["ci_low"], row["ci_high"]) == (low, high)
            assert low <= row["score"] <= high


def test_rows_of_stc(run, summary):
    scores = run.scores()
    for variant in ("selected", "smallest"):
        part = summary[(summary["method"] == "stc") & (summary["variant"] == variant)]
        for row in part.to_dict("records"):
            assert (row["neurons"], row["depth"]) == (
                scores[variant]["neurons"],
                scores[variant]["depth"],
            )
            assert row["eta"] == scores[variant]["eta"]
            assert row["penalty"] == scores[variant]["step"]["C"]
            assert row["seconds"] == row["train_seconds"] == scores[variant]["seconds"]
            name = ".".join(filter(None, (row["representation"], row["pooling"])))
            assert name == scores[variant]["slug"]
    for slug, path in run.grids().items():
        found, position, test, meta = read_grid(path)
        part = summary[summary["variant"] == f"best of {slug}"].set_index("split")
        assert part.loc["test", "score"] == test
        assert part.loc["validation", "score"] == meta["final"]["score"]
        assert set(part["depth"]) == {found[position].depth}


def test_parameters_are_counted_as_trained(run, summary):
    """The selected classifier's in its file, each probe's in its own."""
    (weights,) = run.classifier.glob("*.safetensors")
    stored = load_file(weights)
    stc = summary[(summary["method"] == "stc") & (summary["variant"] == "selected")]
    count = stored["coefficients"].size + stored["intercept"].size
    assert stc["parameters_trained"].tolist() == [count, count]
    for row in summary[summary["variant"].str.startswith("layer: ")].to_dict("records"):
        name = f"{row['representation']}.{row['pooling']}.{row['layer']:02d}.h5"
        probe, _ = read_probe(run.place("probes") / name)
        assert row["parameters_trained"] == probe.coefficients.size + probe.intercept.size


def test_the_table_of_layers(run):
    rows = pq.read_table(entry(run)["layers"]).to_pylist()
    assert len(rows) == len(run.probes)
    for row in rows:
        name = f"{row['representation']}.{row['pooling']}.{row['layer']:02d}.h5"
        probe, meta = read_probe(run.place("probes") / name)
        assert row["test_score"] == probe.test_score
        assert row["validation_score"] == probe.validation_score
        assert (row["C"], row["neurons"]) == (probe.step.C, probe.step.neurons)
        assert row["width"] == len(probe.coefficients)
        assert row["seconds"] == meta["seconds"]
    (best,) = (row for row in rows if row["best"])
    assert best["validation_score"] == max(row["validation_score"] for row in rows)
    ties = [r for r in rows if r["validation_score"] == best["validation_score"]]
    assert best["log_loss"] == min(row["log_loss"] for row in ties)
    (last,) = (row for row in rows if row["last"])
    assert (last["representation"], last["layer"]) == ("hidden", 3)
    at_the_top = [r for r in rows if (r["representation"], r["layer"]) == ("hidden", 3)]
    assert last["validation_score"] == max(r["validation_score"] for r in at_the_top)


def test_predictions_of_two_probes(run):
    rows = pq.read_table(entry(run)["layers"]).to_pylist()
    for name, flag in (("probe", "best"), ("last-layer", "last")):
        row = next(row for row in rows if row[flag])
        stored = run.predictions(name)
        variant = f"{row['representation']}.{row['pooling']}.{row['layer']}"
        assert stored.meta["variant"] == variant
        named = f"{row['representation']}.{row['pooling']}.{row['layer']:02}.h5"
        path = next(path for path in run.probes if path.endswith(f"/{named}"))
        at = read_probe(path)[0].step.threshold
        assert (stored.thresholds == np.float32(at)).all()
        assert run.task.score("test", stored.of("test")) == row["test_score"]


def test_last_layer_without_hidden_states():
    rows = [
        {"representation": "ffn", "layer": layer, "validation_score": score, "log_loss": 1.0}
        for layer, score in ((1, 0.9), (2, 0.5), (2, 0.6))
    ]
    assert last_layer(rows) is rows[2]


def test_sentence_embedding_equals_sklearn(run):
    """Mean-pooled last hidden state, rows of length one, L2 logistic regression, C on
    validation."""
    task, scores = run.task, run.scores("sentence-embedding")
    with open_shard(next(p for p in run.shards if p.endswith("hidden.mean.03.h5"))) as shard:
        X = normalize(shard.read().astype(np.float64))
    train = X[task.rows["train"]]
    found = []
    for C in (0.1, 10.0, 1000.0):
        y = task.y["train"]
        penalty = 1 / (C * len(train))
        columns = y.T if task.multilabel else [y]
        fits = [by_sklearn(train, column, penalty, 0.0) for column in columns]
        W = np.hstack([fit[0] for fit in fits])
        b = np.concatenate([fit[1] for fit in fits])
        loss = make_loss(y, task.classes, dtype=np.float64)
        found.append((C, objective(train, loss, W, b, penalty, 0.0), X @ W + b))
    C, best, logits = next(f for f in found if f[0] == pytest.approx(scores["step"]["C"]))
    assert scores["step"]["objective"] == pytest.approx(best, rel=1e-3)
    assert scores["step"]["converged"]
    stored = run.predictions("sentence-embedding")
    assert scores["test_score"] == task.score("test", stored.of("test"))
    assert (stored.thresholds == np.float32(scores["step"]["threshold"])).all()
    assert (scores["dimensions"], scores["layer"]) == (16, 3)
    assert scores["parameters_trained"] == W.size + b.size
    assert scores["seconds"] > scores["train_seconds"] > 0
    assert scores["texts_per_second"] is None
    for split in SPLITS:
        ours, theirs = stored.of(split), logits[task.rows[split]]
        if task.multilabel:
            ours = ours + np.float32(scores["step"]["threshold"])
        elif task.classes == 2:
            ours = ours[:, 1:] - ours[:, :1]
        else:
            ours, theirs = (Z - Z.mean(axis=1, keepdims=True) for Z in (ours, theirs))
        assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.999


def test_a_validation_split_of_one_row_is_scored_as_it_is(tmp_path):
    """What is scaled for the solver is not scaled once more for the predictions."""
    project = make_project(tmp_path, "binary")
    shard = next(path for path in project.shards if path.endswith("hidden.mean.03.h5"))
    path = project.data / "dataset.json"
    manifest = json.loads(path.read_text())
    logits = []
    for stop in (121, 125):
        splits = {"train": [0, 120], "validation": [120, stop], "test": [stop, manifest["rows"]]}
        path.write_text(json.dumps(manifest | {"offsets": splits}))
        out = tmp_path / f"{stop}.h5", tmp_path / f"{stop}.json"
        options = {"penalties": [1.0], "class_weight": None}
        sentence_embedding(shard, project.data, "label", "tiny", *out, options)
        logits.append(read_predictions(out[0]).logits[120])
    np.testing.assert_allclose(logits[0], logits[1], rtol=1e-5)


def test_normalized():
    X = np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)
    np.testing.assert_allclose(normalized(X), [[0.6, 0.8], [0, 0]])


def test_without_the_baseline(run, tmp_path, monkeypatch):
    monkeypatch.chdir(run.folder)
    paths = tmp_path / "s.csv", tmp_path / "s.parquet"
    write_summary([entry(run, baselines=[])], *paths, seed=1)
    assert "sentence-embedding" not in set(pd.read_parquet(paths[1])["method"])


def test_missing_values_read_as_none(run, tmp_path, monkeypatch):
    monkeypatch.chdir(run.folder)
    write_summary([entry(run)], tmp_path / "s.csv", tmp_path / "s.parquet", seed=1)
    rows = read_summary(tmp_path / "s.parquet").to_dict("records")
    stc = next(row for row in rows if row["variant"] == "selected")
    assert stc["layer"] is None
    probe = next(row for row in rows if row["variant"].startswith("layer: "))
    assert probe["eta"] is None
    assert probe["ci_low"] is None
    assert isinstance(probe["layer"], int)


def test_the_table_in_the_terminal(run, tmp_path, monkeypatch):
    monkeypatch.chdir(run.folder)
    (tmp_path / "results").mkdir()
    paths = tmp_path / "results/summary.csv", tmp_path / "results/summary.parquet"
    write_summary([entry(run)], *paths, seed=1)
    out = io.StringIO()
    show(tmp_path, Console(file=out, width=140))
    text = out.getvalue()
    scores = run.scores()
    for name in ("STC, selected", "STC, smallest", "best single layer", "sentence embedding"):
        assert name in text
    assert f"texts, tiny: {run.task.metric}" in text
    assert f"{scores['selected']['test_score']:.4f}" in text
    assert "probeline predict --classifier" in text
    with pytest.raises(ProbelineError, match="no results here"):
        show(tmp_path / "nowhere")


def test_metric_of(run):
    assert metric_of(run.place("scores") / "stc.json") == run.task.metric
