"""Classifiers with a reranker: on the command line, and carried in the folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pipeline import Run, trained
from rerankers import POWER, TEMPLATE, decide, naive_answers, naive_similarities, texts_of, write
from scipy.special import expit, logit, softmax
from test_cli import answers, call
from test_lrsl_stages import LRSL
from tiny_embedders import write_embedder

import probeline
from probeline.errors import ProbelineError
from probeline.lrsl.folder import attach_reranker, load_reranker
from probeline.lrsl.stage_rerank import rerank_predictions
from probeline.results.predictions import read_predictions


@pytest.fixture(scope="module")
def embedder(tmp_path_factory) -> str:
    return str(write_embedder(tmp_path_factory.mktemp("embedder")))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return trained("multiclass", tmp_path_factory)


@pytest.fixture(scope="module")
def threshold(run) -> float:
    """Half of the texts are hard."""
    logits = np.sort(run.predictions().logits.astype(float), axis=1)
    return float(np.median(logits[:, -2:].var(axis=1)))


@pytest.fixture(scope="module")
def reranker(run, embedder, threshold, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "reranker"
    return write(folder, embedder, decide(threshold), run.dataset, run.task)


def test_predict_with_a_reranker(run, reranker, embedder, threshold):
    texts, logits = run.dataset.texts[:80], run.predictions().logits[:80]
    codes, hard = naive_answers(embedder, run.task, texts, logits, threshold)
    found = answers(call("predict", "--classifier", run.classifier, "--rerank", reranker, *texts))
    assert [answer["reranked"] for answer in found] == hard
    assert [answer["label"] for answer in found] == [run.task.labels[code] for code in codes]
    assert codes != logits.argmax(1).tolist()
    plain = probeline.load(run.classifier)
    for text, answer, is_hard in zip(texts, found, hard, strict=True):
        assert sum(answer["scores"].values()) == pytest.approx(1, abs=1e-4)
        if not is_hard:
            (own,) = plain.predict(text)
            assert answer["scores"] == pytest.approx(own["scores"], abs=2e-4)


def test_a_classifier_carries_it(run, reranker, tmp_path):
    carrying = Path(shutil.copytree(run.classifier, tmp_path / "mine"))
    attach_reranker(carrying, reranker)
    texts = run.dataset.texts[:40]
    given = answers(call("predict", "--classifier", run.classifier, "--rerank", reranker, *texts))
    assert answers(call("predict", "--classifier", carrying, *texts)) == given
    plain = answers(call("predict", "--classifier", run.classifier, *texts))
    assert "reranked" not in plain[0]
    assert answers(call("predict", "--classifier", carrying, "--no-rerank", *texts)) == plain
    assert probeline.load(carrying).reranker is not None
    assert probeline.load(carrying, rerank=False).reranker is None
    with pytest.raises(ProbelineError, match="exclude each other"):
        call("predict", "--classifier", carrying, "--no-rerank", "--rerank", reranker, "a")


def test_logits_are_those_of_the_reranker(run, reranker):
    loaded = probeline.load(run.classifier, rerank=reranker)
    texts = run.dataset.texts
    own = probeline.load(run.classifier).logits(texts)
    expected = load_reranker(reranker, "cpu").rerank(texts, None, own)
    np.testing.assert_allclose(loaded.logits(texts), expected, atol=1e-6)
    np.testing.assert_allclose(loaded.scores(texts), softmax(expected, axis=1), atol=1e-6)


def test_temperature(run, embedder, tmp_path):
    """Probabilities are those of logits divided by it."""
    folder = write(tmp_path / "r", embedder, decide(-1.0, temperature=4.0), run.dataset, run.task)
    loaded, texts = probeline.load(run.classifier, rerank=folder), run.dataset.texts[:9]
    own = probeline.load(run.classifier).logits(texts)
    np.testing.assert_allclose(loaded.scores(texts), softmax(own / 4, axis=1), atol=1e-6)


def test_multi_label(tmp_path_factory, embedder, tmp_path):
    run = trained("multilabel", tmp_path_factory)
    decision = decide(0.05, offset=-1.5, multilabel=True)
    folder = write(tmp_path / "r", embedder, decision, run.dataset, run.task)
    texts = run.dataset.texts
    loaded = probeline.load(run.classifier, rerank=folder)
    plain = probeline.load(run.classifier)
    found = loaded.predict(texts)
    hard = decision.selects(plain.logits(texts))
    assert 0 < hard.sum() < len(hard)
    at = plain.manifest["step"]["threshold"]
    cosines = naive_similarities(embedder, run.task, texts).clip(0)
    for z, s, answer, is_hard in zip(plain.logits(texts), cosines, found, hard, strict=True):
        assert answer["reranked"] == is_hard
        z = z.astype(float)
        if is_hard and s[np.argsort(-z)[:2]].max() > 0:
            for label in np.argsort(-z)[:2]:
                z[label] = logit(expit(z[label]) * s[label] ** POWER) + 1.5
        # Hard or not, a label is predicted whose probability is above the threshold's.
        scores = np.array(list(answer["scores"].values()))
        np.testing.assert_allclose(scores, expit(z + at), atol=1e-4)
        clear = np.abs(scores - expit(at)) > 1e-5
        said = np.isin(run.task.labels, answer["labels"])
        assert np.array_equal(said[clear], (scores > expit(at))[clear])


@pytest.mark.parametrize("temperature", [False, True])
def test_new_texts_get_what_is_stored(tmp_path_factory, embedder, tmp_path, temperature):
    """Of several labels with a threshold: the probability times the similarity squared."""
    run = trained("multilabel", tmp_path_factory)
    before, dataset, task = run.predictions(), run.dataset, run.task
    at = run.scores()["selected"]["step"]["threshold"]
    assert at != 0
    assert np.array_equal(before.thresholds, np.full(4, at, dtype=np.float32))
    outputs = {name: tmp_path / name for name in ("predictions", "scores", "report", "examples")}
    outputs["folder"] = tmp_path / "reranker"
    options = {"fixed": True, "forms": ["prob"], "powers": [2.0], "threshold": 0.5}
    options |= {"candidates": "all", "temperature": temperature, "hardness": "margin"}
    given = dict(zip(task.labels, map(list, texts_of(task)), strict=True))
    rerank_predictions(
        run.data,
        {"task": "label", "model": "tiny", "source": "stc", "seed": "3"},
        run.place("predictions") / "stc.h5",
        {"path": embedder, "max_length": 16},
        None,
        outputs,
        {"options": LRSL | options, "label_texts": given, "template": TEMPLATE, "metric": None},
    )
    after = read_predictions(outputs["predictions"])
    loaded = probeline.load(run.classifier, rerank=outputs["folder"])
    own = loaded.reranker.decision.reranking
    rows = task.rows["test"]
    texts, z = [dataset.texts[row] for row in rows], before.logits[rows].astype(float)
    np.testing.assert_allclose(loaded.logits(texts), after.logits[rows], atol=1e-3)
    validation = before.logits[task.rows["validation"]].astype(float)
    if temperature:
        tried = np.geomspace(0.1, 10, 2001)
        p = expit((validation + at) / tried[:, None, None])
        true = task.y["validation"].astype(bool)
        losses = -np.log(np.where(true, p, 1 - p)).mean(axis=(1, 2))
        assert own.temperature == pytest.approx(tried[losses.argmin()], rel=0.01)
    closest = np.quantile(np.abs(validation).min(axis=1), 0.5)
    hard = np.abs(z).min(axis=1) <= closest
    assert 0 < hard.sum() < len(hard)
    s = naive_similarities(embedder, task, texts).clip(0)
    usable = hard & (s.max(axis=1) > 0)
    p = expit((z + at) / own.temperature) * s**2
    with np.errstate(divide="ignore"):
        expected = np.where(usable[:, None], own.temperature * logit(p) - at - own.offset, z)
    certain = p > 1e-6
    np.testing.assert_allclose(after.logits[rows][certain], expected[certain], rtol=1e-3, atol=2e-3)
    predicted = np.where(usable[:, None], own.temperature * logit(p) > at + own.offset, z > 0)
    clear = np.abs(expected) > 1e-2
    assert np.array_equal((after.logits[rows] > 0)[clear], predicted[clear])
    np.testing.assert_allclose(
        loaded.scores(texts), expit((after.logits[rows] + at) / own.temperature), atol=1e-3
    )


def test_a_reranker_of_another_classifier(run, reranker, tmp_path):
    other = Path(shutil.copytree(reranker, tmp_path / "other"))
    manifest = json.loads((other / "reranker.json").read_text())
    manifest["labels"] = manifest["labels"][::-1]
    (other / "reranker.json").write_text(json.dumps(manifest))
    with pytest.raises(ProbelineError, match="made for another classifier: its labels"):
        call("predict", "--classifier", run.classifier, "--rerank", other, "a")
    with pytest.raises(ProbelineError, match="not a reranker folder"):
        call("predict", "--classifier", run.classifier, "--rerank", tmp_path, "a")
    carrying = Path(shutil.copytree(run.classifier, tmp_path / "mine"))
    with pytest.raises(ProbelineError, match="made for another classifier"):
        attach_reranker(carrying, other)
    assert not (carrying / "reranker").exists()
