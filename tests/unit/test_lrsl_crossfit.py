"""Out-of-fold logits against heads fitted by hand, with scikit-learn, on the other folds."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from labelled_texts import labelled
from problems import by_sklearn, task_of
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler, normalize
from small_project import AGGREGATE, ETAS, PROBE, make_project

from probeline.activations.names import parse_name
from probeline.aggregate.stage import aggregate, read_grid
from probeline.baselines.sentence_embedding import sentence_embedding
from probeline.baselines.tfidf import tfidf
from probeline.data.store import read_dataset
from probeline.errors import ProbelineError
from probeline.files import read_json
from probeline.lrsl.crossfit import copies, crossfit, out_of_fold, read_crossfit
from probeline.lrsl.folds import folds_of, held_out
from probeline.probe.store import read_probe
from probeline.probe.task import task_data
from probeline.probe.train import train_probe
from probeline.results.layers import compare_layers

KINDS = ["binary", "multiclass", "multilabel"]
OPTIONS = {"probe": PROBE, "aggregate": AGGREGATE, "tfidf": {"penalties": [1.0]}}
SLUGS = {"hidden.mean": [("hidden", "mean")], "both": [("hidden", "mean"), ("ffn", "mean")]}
_projects: dict = {}


@pytest.fixture
def project(request, tmp_path_factory):
    """A project and the inputs of every source; made once, read only."""
    kind = request.param
    if kind not in _projects:
        _projects[kind] = _made(tmp_path_factory.mktemp(kind), kind)
    return _projects[kind]


def _made(folder: Path, kind: str):
    made = make_project(folder, kind)
    tables = {slug: [made.tables[s] for s in sources] for slug, sources in SLUGS.items()}
    grids = {slug: str(folder / "grids" / f"{slug}.parquet") for slug in SLUGS}
    for slug, path in grids.items():
        aggregate(tables[slug], made.shards, made.data, "label", slug, path, ETAS, AGGREGATE)
    predictions = {name: folder / f"{name}.h5" for name in ("probe", "last-layer")}
    layers = folder / "layers.parquet"
    compare_layers(made.probes, made.shards, made.data, "label", "tiny", layers, predictions)
    shard = next(path for path in made.shards if path.endswith("hidden.mean.03.h5"))
    files = folder / "se.h5", folder / "se.json"
    options = {"penalties": [1.0, 30.0], "class_weight": None}
    sentence_embedding(shard, made.data, "label", "tiny", *files, options)
    scores = folder / "tfidf.json"
    tfidf(made.data, "label", folder / "tfidf.h5", scores, OPTIONS["tfidf"])
    both = {"probes": made.probes, "shards": made.shards}
    inputs = {
        "stc": both | {"grids": grids, "tables": tables},
        "probe": both | {"predictions": predictions["probe"]},
        "last-layer": both | {"predictions": predictions["last-layer"]},
        "sentence-embedding": {"shard": shard, "scores": files[1]},
        "tfidf": {"scores": scores},
    }
    return made, inputs


def fitted(project, source, fold, task=None):
    made, inputs = project
    dataset = read_dataset(made.data)
    task = task or made.task
    return out_of_fold(source, dataset, task, fold, inputs[source], OPTIONS)


def some_folds(made, folds=3) -> np.ndarray:
    task = made.task
    return folds_of(task.y["train"], folds, 0, task.multilabel)


def as_two(z: np.ndarray) -> np.ndarray:
    return np.stack([-z, z], axis=1) / 2 if z.ndim == 1 else z


def up_to_a_shift(found, truth, multilabel: bool, atol: float) -> None:
    """Equal logits: softmax forgets a shift of a row, a chosen threshold shifts all of them."""
    axis = None if multilabel else 1
    centred = [z - z.mean(axis=axis, keepdims=True) for z in (found, truth)]
    np.testing.assert_allclose(*centred, atol=atol)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_folds_are_disjoint_and_alike(kind, seed):
    rng = np.random.default_rng(seed)
    y = rng.random((300, 4)) < 0.3 if kind == "multilabel" else rng.integers(0, 3, 300)
    # Every tenth text is a copy of the one before.
    groups = np.cumsum(np.arange(300) % 10 != 9) - 1
    fold = folds_of(y, 5, seed, kind == "multilabel", groups)
    assert fold.dtype == np.int8 and fold.shape == (300,)
    np.testing.assert_array_equal(fold, folds_of(y, 5, seed, kind == "multilabel", groups))
    assert (fold != folds_of(y, 5, seed + 1, kind == "multilabel", groups)).any()
    assert np.ptp(np.bincount(fold, minlength=5)) <= 25
    assert all(len(set(fold[groups == group])) == 1 for group in range(groups.max() + 1))
    has = y if y.ndim == 2 else np.eye(3)[y]
    shares = np.array([has[fold == f].mean(axis=0) for f in range(5)])
    assert np.abs(shares - has.mean(axis=0)).max() < 0.1
    parts = held_out(task_of(dict.fromkeys(("train", "validation", "test"), y)), fold)
    held = [part.held for part in parts]
    np.testing.assert_array_equal(np.sort(np.concatenate(held)), np.arange(300))
    for part in parts:
        together = np.concatenate([part.held, part.task.rows["train"]])
        np.testing.assert_array_equal(np.sort(together), np.arange(300))
        np.testing.assert_array_equal(part.task.y["train"], y[part.task.rows["train"]])


def test_copies_are_of_one_fold(tmp_path):
    data = labelled(tmp_path / "d", pairs=True)
    dataset = read_dataset(data)
    dataset.texts[3:6] = ["a", "a", "a"]
    dataset.pairs[3:6] = ["b", "c", "b"]
    groups = copies(dataset, task_data(dataset, "label"))
    assert groups[3] == groups[5] != groups[4]
    assert len(groups) == 24 and groups.max() == 22


@pytest.mark.parametrize("folds", [0, 1, 25, 200])
def test_folds_that_cannot_be(folds):
    with pytest.raises(ProbelineError, match=rf"^lrsl\.crossfit: {folds} folds of 24 distinct"):
        folds_of(np.arange(24) % 2, folds, 0)


@pytest.mark.parametrize("texts", [0, 1, 9])
def test_copies_of_one_text_are_no_folds(texts):
    """What is expected is said only where something would do."""
    with pytest.raises(
        ProbelineError, match="distinct training texts, which are too few"
    ) as caught:
        folds_of(np.zeros(texts, int), 5, 0, groups=np.zeros(texts, int))
    assert "expected" not in str(caught.value)


@pytest.mark.parametrize("project", KINDS, indirect=True)
def test_the_sentence_embedding_refitted_by_hand(project):
    made, inputs = project
    fold, task = some_folds(made), made.task
    found = fitted(project, "sentence-embedding", fold)
    X, y = normalize(made.values["hidden", "mean", 3])[:120].astype(float), task.y["train"]
    model = LogisticRegression(
        C=read_json(inputs["sentence-embedding"]["scores"])["step"]["C"], tol=1e-8, max_iter=5000
    )
    for f in range(3):
        by_hand = OneVsRestClassifier(model) if task.multilabel else model
        by_hand.fit(X[fold != f], y[fold != f])
        truth = as_two(by_hand.decision_function(X[fold == f]))
        up_to_a_shift(found[fold == f], truth, task.multilabel, 0.05)


@pytest.mark.parametrize("project", ["binary", "multiclass"], indirect=True)
@pytest.mark.parametrize("source", ["probe", "last-layer"])
def test_the_probe_refitted_by_hand(project, source):
    made, inputs = project
    fold, task = some_folds(made), made.task
    found = fitted(project, source, fold)
    with h5py.File(inputs[source]["predictions"]) as file:
        representation, pooling, layer = file.attrs["variant"].split(".")
    key = (representation, pooling, int(layer))
    path = next(p for p in made.probes if parse_name(Path(p).name) == key)
    C = read_probe(path)[0].step.C
    X, y = made.values[key][:120].astype(float), task.y["train"]
    for f in range(3):
        other = fold != f
        scaler = StandardScaler().fit(X[other])
        W, b = by_sklearn(scaler.transform(X[other]), y[other], 1 / (C * other.sum()), 1.0)
        truth = scaler.transform(X[~other]) @ W + b
        truth = as_two(truth[:, 0]) if truth.shape[1] == 1 else truth
        up_to_a_shift(found[~other], truth, False, 0.1)


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_tfidf_refitted_by_hand(tmp_path, kind, pairs):
    data = labelled(tmp_path / "d", kind, pairs)
    scores = tmp_path / "s.json"
    tfidf(data, "label", tmp_path / "p.h5", scores, OPTIONS["tfidf"])
    dataset = read_dataset(data)
    task = task_data(dataset, "label")
    fold = np.arange(24) // 8
    found = out_of_fold("tfidf", dataset, task, fold, {"scores": scores}, OPTIONS)
    y = task.y["train"]
    for f in range(3):
        held, other = np.flatnonzero(fold == f), np.flatnonzero(fold != f)
        X, Z = [], []
        for texts in [dataset.texts] + ([dataset.pairs] if pairs else []):
            vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
            X.append(vectorizer.fit_transform([texts[i] for i in other]).toarray())
            Z.append(vectorizer.transform([texts[i] for i in held]).toarray())
        model = LogisticRegression(C=1.0, max_iter=1000)
        by_hand = OneVsRestClassifier(model) if kind == "multilabel" else model
        by_hand.fit(np.hstack(X), y[other])
        truth = as_two(by_hand.decision_function(np.hstack(Z)))
        up_to_a_shift(found[held], truth, kind == "multilabel", 2e-3)


def chosen_grid(inputs) -> tuple[str, object]:
    """The best point of all grids, by the rule that the classifier stage states."""
    points = [(slug, c) for slug, path in inputs["grids"].items() for c in read_grid(path)[0]]
    top = max((c for _, c in points), key=lambda c: c.step.score).step
    near = [(s, c) for s, c in points if c.step.score >= top.score - 0.5 * top.error - 1e-9]
    return min(
        near,
        key=lambda p: (
            p[1].step.log_loss,
            -p[1].step.score,
            p[1].step.neurons,
            p[1].depth,
            p[1].eta,
        ),
    )


@pytest.mark.parametrize("project", ["binary", "multiclass"], indirect=True)
def test_the_stc_classifier_refitted_by_hand(project):
    """Probes of the library on the other folds; selection in numpy, the head by scikit-learn."""
    made, inputs = project
    fold, task = some_folds(made), made.task
    found = fitted(project, "stc", fold)
    slug, chosen = chosen_grid(inputs["stc"])
    y = task.y["train"]
    for f in range(3):
        other = np.flatnonzero(fold != f)
        parts = []
        for path in made.probes:
            key = parse_name(Path(path).name)
            if key[:2] not in SLUGS[slug] or key[2] > chosen.depth:
                continue
            values = made.values[key][:170]
            step = read_probe(path)[0].step
            part = replace(
                task,
                rows=task.rows | {"train": other},
                y=task.y | {"train": y[other]},
            )
            X = {
                "train": values[other],
                "validation": values[120:],
                "test": np.zeros((50, values.shape[1]), np.float32),
            }
            probe = train_probe(X, part, PROBE | {"penalties": [step.C]})
            weight = (probe.coefficients.astype(float) ** 2).sum(axis=1)
            order = np.argsort(-weight, kind="stable")
            reached = np.cumsum(weight[order]) / max(weight.sum(), 1e-30)
            kept = order[: 1 + np.argmax(reached >= chosen.eta * (1 - 1e-12))]
            parts.append(values[:120, np.sort(kept[weight[kept] > 0])].astype(float))
        X = np.hstack(parts)
        scaler = StandardScaler().fit(X[other])
        penalty = 1 / (chosen.step.C * len(other))
        W, b = by_sklearn(scaler.transform(X[other]), y[other], penalty, chosen.step.l1_ratio)
        truth = scaler.transform(X[fold == f]) @ W + b
        truth = as_two(truth[:, 0]) if truth.shape[1] == 1 else truth
        up_to_a_shift(found[fold == f], truth, False, 0.02)


@pytest.mark.parametrize("project", KINDS, indirect=True)
@pytest.mark.parametrize("source", ["stc", "probe", "sentence-embedding", "tfidf"])
def test_labels_of_the_fold_do_not_tell_on_its_logits(project, source):
    made, _ = project
    fold, task = some_folds(made), made.task
    before = fitted(project, source, fold)
    rng = np.random.default_rng(0)
    y = task.y["train"].copy()
    held = np.flatnonzero(fold == 1)
    y[held] = y[rng.permutation(held)]
    test = task.y["test"][rng.permutation(50)]
    other = replace(task, y=task.y | {"train": y, "test": test})
    after = fitted(project, source, fold, other)
    np.testing.assert_array_equal(after[held], before[held])
    if source != "tfidf":  # whose texts, "text 7", tell nothing
        assert (after[fold != 1] != before[fold != 1]).any()


@pytest.mark.parametrize("source", ["sentence-embedding", "tfidf", "stc"])
@pytest.mark.parametrize("project", ["multiclass", "multilabel"], indirect=True)
def test_a_label_of_one_fold_only(project, source):
    made, _ = project
    fold, task = some_folds(made), made.task
    y = task.y["train"].copy()
    first = fold == 0
    if task.multilabel:
        y[:, 2] = first
    else:
        y[:] = np.where(first & (np.arange(120) % 2 == 0), 3, np.arange(120) % 3)
    found = fitted(project, source, fold, replace(task, y=task.y | {"train": y}))
    assert np.isfinite(found).all()
    rare = 2 if task.multilabel else 3
    if task.multilabel:
        np.testing.assert_array_equal(found[first, rare], -10)
    else:
        np.testing.assert_allclose(found[first, rare], found[first, :3].min(1) - 10, atol=1e-5)


def test_too_little_to_learn_from():
    y = {split: np.array([0, 0, 1, 1]) for split in ("train", "validation", "test")}
    with pytest.raises(ProbelineError, match="no two classes are left to tell apart"):
        held_out(task_of(y), np.array([0, 0, 1, 1]))


@pytest.mark.parametrize("project", ["multiclass"], indirect=True)
def test_the_stage(project, tmp_path):
    made, inputs = project
    out = tmp_path / "crossfit.h5"
    source = "sentence-embedding"
    args = source, made.data, "label", "tiny", out, 4, 7, inputs[source], OPTIONS
    crossfit(*args)
    found = read_crossfit(out, made.dataset, made.task)
    assert found.rows.tolist() == list(range(120)) and set(found.fold) == {0, 1, 2, 3}
    assert found.logits.dtype == np.float32
    np.testing.assert_array_equal(found.logits, fitted(project, source, found.fold))
    y = made.task.y["train"]
    assert found.meta["score"] == np.mean(found.logits.argmax(axis=1) == y)
    assert found.meta.items() >= {"source": source, "folds": 4, "seed": 7, "task": "label"}.items()
    with pytest.raises(ProbelineError, match="source 'st' is not one of"):
        crossfit("st", *args[1:])
    task = made.task
    with pytest.raises(ProbelineError, match="logits of another dataset or task: task is 'label'"):
        read_crossfit(out, made.dataset, replace(task, name="level"))
    with pytest.raises(ProbelineError, match="another dataset or task: dataset_fingerprint"):
        read_crossfit(out, replace(made.dataset, fingerprint="x"), task)
    with pytest.raises(ProbelineError, match="logits of other labels or rows"):
        read_crossfit(out, made.dataset, replace(task, labels=task.labels[::-1]))
    with pytest.raises(ProbelineError, match="no such cross-fitted logits"):
        read_crossfit(tmp_path / "no.h5", made.dataset, task)
    with pytest.raises(ProbelineError, match="not complete cross-fitted logits"):
        read_crossfit(made.folder / "probe.h5", made.dataset, task)
    out.write_bytes(out.read_bytes()[:600])
    with pytest.raises(ProbelineError, match="not readable cross-fitted logits"):
        read_crossfit(out, made.dataset, task)


def test_importing_needs_no_torch():
    code = (
        "import sys, probeline.lrsl.crossfit, probeline.lrsl.triplets, probeline.lrsl.outside; "
        "assert not {'torch', 'sentence_transformers', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
