"""Standard errors against the binomial formula and leaving out one row after the other."""

from __future__ import annotations

import numpy as np
import pytest
from bootstraps import CASES, KINDS, sklearn_score

from probeline.probe.standard_error import standard_error

N = 250


def problem(kind: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of unequal frequency, and logits that are right more often than not."""
    rng = np.random.default_rng(seed)
    if kind == "multilabel":
        labels = (rng.random((N, 4)) < [0.5, 0.4, 0.3, 0.2]).astype(np.uint8)
        return labels, (2.0 * labels - 1 + rng.normal(0, 1.5, labels.shape)).astype(np.float32)
    classes = KINDS[kind]
    shares = np.arange(1, classes + 1) / np.arange(1, classes + 1).sum()
    labels = rng.choice(classes, size=N, p=shares)
    known = 2.0 * np.eye(classes)[labels]
    return labels, (known + rng.normal(0, 1.5, known.shape)).astype(np.float32)


@pytest.mark.parametrize("kind, metric", CASES)
def test_as_the_jackknife(kind, metric):
    """Efron and Stein: sqrt((n - 1) / n sum (s_i - mean)^2), s_i the score without row i."""
    labels, logits = problem(kind, 0)
    left = [
        sklearn_score(metric, np.delete(labels, i, 0), np.delete(logits, i, 0)) for i in range(N)
    ]
    expected = np.sqrt((N - 1) / N * np.square(np.array(left) - np.mean(left)).sum())
    assert standard_error(metric, labels, logits, KINDS[kind]) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("metric", ["accuracy", "micro-f1"])
def test_of_a_share_it_is_the_binomial_one(metric):
    labels, logits = problem("multiclass", 3)
    share = (logits.argmax(axis=1) == labels).mean()
    expected = np.sqrt(share * (1 - share) / N)
    assert standard_error(metric, labels, logits, 5) == pytest.approx(expected)


@pytest.mark.parametrize("kind, metric", CASES)
def test_nothing_varies_where_every_row_is_right(kind, metric):
    labels, _ = problem(kind, 0)
    known = labels if kind == "multilabel" else np.eye(KINDS[kind])[labels]
    logits = (20.0 * known - 10).astype(np.float32)
    assert standard_error(metric, labels, logits, KINDS[kind]) == pytest.approx(0, abs=1e-12)


def test_labels_that_never_occur():
    """Unseen classes do not count in macro-F1; unseen labels of a multi-label task count as 0."""
    labels, logits = problem("multiclass", 1)
    wide = np.hstack([logits, np.full((N, 3), -50, np.float32)])
    same = standard_error("macro-f1", labels, logits, 5)
    assert standard_error("macro-f1", labels, wide, 8) == pytest.approx(same)
    labels, logits = problem("multilabel", 1)
    none, never = np.zeros((N, 4), np.uint8), np.full((N, 4), -1, np.float32)
    doubled = standard_error("macro-f1", np.hstack([labels, none]), np.hstack([logits, never]), 8)
    assert doubled == pytest.approx(standard_error("macro-f1", labels, logits, 4) / 2)
    assert standard_error("macro-f1", none, never, 4) == 0
    assert standard_error("micro-f1", none, never, 4) == 0


def test_one_class_everywhere_has_no_correlation_to_vary():
    labels = np.array([0, 1, 0, 1])
    logits = np.tile(np.array([1.0, 0.0], np.float32), (4, 1))
    assert standard_error("matthews", labels, logits, 2) == 0
