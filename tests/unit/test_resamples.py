"""Scores of many resamples at once against a loop over the drawn rows."""

from __future__ import annotations

import numpy as np
import pytest
from bootstraps import CASES, KINDS, made, naive_scores, sklearn_score

from probeline.errors import ProbelineError
from probeline.probe.metrics import score
from probeline.results import resamples
from probeline.results.resamples import draw, resampled_scores


@pytest.mark.parametrize(("kind", "metric"), CASES)
def test_every_score_is_sklearns_of_the_drawn_rows(kind, metric):
    labels, first = made(kind, 40)
    second = made(kind, 40, noise=2.0)[1]
    found = resampled_scores(metric, labels, [first, second], KINDS[kind], 5, 60)
    expected = naive_scores(metric, labels, [first, second], 5, 60)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert np.ptp(expected, axis=1).min() > 0


@pytest.mark.parametrize(("kind", "metric"), CASES)
def test_every_score_is_that_of_the_drawn_rows(kind, metric):
    """Also with one column for a binary task, and with answers that are all the same."""
    labels, logits = made(kind, 30, noise=3.0)
    cases = [logits, np.zeros_like(logits), -logits]
    if kind == "binary":
        cases.append(logits[:, 1:] - logits[:, :1])
    found = resampled_scores(metric, labels, cases, KINDS[kind], 1, 25)
    rng = np.random.default_rng(1)
    for column in found.T:
        rows = rng.integers(0, 30, 30)
        expected = [score(metric, labels[rows], case[rows], KINDS[kind]) for case in cases]
        np.testing.assert_allclose(column, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("metric", ["macro-f1", "roc-auc"])
def test_scores_do_not_depend_on_how_many_are_made_at_a_time(monkeypatch, metric):
    labels, logits = made("multiclass", 50)
    whole = resampled_scores(metric, labels, [logits], 5, 3, 41)
    for chunk in (1, 50 * 7):
        monkeypatch.setattr(resamples, "_CHUNK", chunk)
        np.testing.assert_array_equal(resampled_scores(metric, labels, [logits], 5, 3, 41), whole)
        np.testing.assert_array_equal(
            resampled_scores(metric, labels, [logits], 5, 3, 10), whole[:, :10]
        )


@pytest.mark.parametrize(("kind", "metric"), CASES)
def test_a_method_of_some_texts_is_scored_on_those_that_are_drawn(kind, metric):
    labels, first = made(kind, 40)
    second = made(kind, 40, noise=2.0)[1]
    some = np.arange(40) % 3 > 0
    every = np.ones(40, bool)
    found = resampled_scores(metric, labels, [first, second], KINDS[kind], 5, 60, [every, some])
    whole = resampled_scores(metric, labels, [first], KINDS[kind], 5, 60)
    np.testing.assert_array_equal(found[0], whole[0])
    rng = np.random.default_rng(5)
    for value in found[1]:
        rows = rng.integers(0, 40, 40)
        rows = rows[some[rows]]
        assert value == pytest.approx(sklearn_score(metric, labels[rows], second[rows]), abs=1e-12)


@pytest.mark.parametrize("metric", ["accuracy", "macro-f1", "matthews"])
def test_none_of_a_methods_texts_may_be_drawn(metric):
    labels = np.array([0, 1, 0, 1])
    logits, some = np.eye(2)[labels], np.array([True, False, False, False])
    (found,) = resampled_scores(metric, labels, [logits], 2, 0, 200, [some])
    drawn = np.random.default_rng(0).integers(0, 4, (200, 4))
    np.testing.assert_array_equal(np.isnan(found), (drawn > 0).all(axis=1))


def test_draws():
    found = np.hstack(list(draw(7, 2000, seed=0, step=300)))
    assert found.shape == (7, 2000)
    assert (found.sum(axis=0) == 7).all()
    rows = np.random.default_rng(0).integers(0, 7, (2000, 7))
    np.testing.assert_array_equal(found.T, [np.bincount(row, minlength=7) for row in rows])


def test_an_area_needs_both_kinds():
    labels, logits = np.array([0, 0, 0, 1]), np.array([[1.0], [4.0], [2.0], [3.0]])
    (found,) = resampled_scores("roc-auc", labels, [logits], 2, 0, 200)
    drawn = np.random.default_rng(0).integers(0, 4, (200, 4))
    one_kind = [len(set(labels[rows])) == 1 for rows in drawn]
    assert 0 < sum(one_kind) < 200
    np.testing.assert_array_equal(np.isnan(found), one_kind)


def test_impossible_paths_have_an_area():
    """Logits of minus infinity, as of paths that no training text takes."""
    labels, logits = made("multiclass", 40)
    logits[:, 2] = -np.inf
    found = resampled_scores("roc-auc", labels, [logits], 5, 0, 20)
    np.testing.assert_allclose(found, naive_scores("roc-auc", labels, [logits], 0, 20), atol=1e-12)


@pytest.mark.parametrize(
    ("metric", "shape", "words"),
    [
        ("acuracy", (5,), "did you mean 'accuracy'"),
        ("matthews", (5, 2), "not defined for a multi-label task"),
        ("accuracy", (0,), "no rows"),
        ("roc-auc", (0,), "no rows"),
    ],
)
def test_what_cannot_be_scored_is_refused(metric, shape, words):
    labels = np.zeros(shape, np.int64)
    with pytest.raises(ProbelineError, match=words):
        resampled_scores(metric, labels, [np.zeros((shape[0], 2))], 2, 0, 10)
