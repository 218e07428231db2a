"""Bootstrap intervals against scipy's, and where they cannot be computed."""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import binom, bootstrap, norm

from probeline.results.intervals import bootstrap_interval, bootstrap_p, interval_over_seeds


def some(n=300, right=0.8, seed=0):
    """Labels and logits of a binary task with about that share of right predictions."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    correct = rng.random(n) < right
    logits = np.where(correct, 2 * labels - 1, 1 - 2 * labels)[:, None].astype(np.float32)
    return labels, logits


def test_accuracy_has_the_binomials_interval():
    labels, logits = some()
    low, high = bootstrap_interval("accuracy", labels, logits, 2, seed=1)
    share = ((logits[:, 0] > 0) == labels).mean()
    expected = binom.ppf([0.025, 0.975], 300, share) / 300
    np.testing.assert_allclose([low, high], expected, atol=0.01)


def test_macro_f1_equals_scipys():
    from sklearn.metrics import f1_score

    labels, logits = some(right=0.7)
    low, high = bootstrap_interval("macro-f1", labels, logits, 2, seed=1)
    theirs = bootstrap(
        (labels, (logits[:, 0] > 0).astype(int)),
        lambda y, p: f1_score(y, p, average="macro"),
        paired=True,
        vectorized=False,
        n_resamples=400,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    np.testing.assert_allclose([low, high], theirs, atol=0.015)


def test_level_and_seed():
    labels, logits = some()
    wide = bootstrap_interval("accuracy", labels, logits, 2, seed=3)
    narrow = bootstrap_interval("accuracy", labels, logits, 2, seed=3, level=0.5)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    assert wide == bootstrap_interval("accuracy", labels, logits, 2, seed=3)
    first = bootstrap_interval("macro-f1", labels, logits, 2, seed=3)
    assert first != bootstrap_interval("macro-f1", labels, logits, 2, seed=4)


def test_multi_label_rows_are_drawn_whole():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (200, 3))
    logits = np.where(rng.random((200, 3)) < 0.9, 2.0 * labels - 1, 1 - 2.0 * labels)
    low, high = bootstrap_interval("accuracy", labels, logits, 3, seed=0)
    share = ((logits > 0) == labels).all(axis=1).mean()
    np.testing.assert_allclose([low, high], binom.ppf([0.025, 0.975], 200, share) / 200, atol=0.012)


def test_perfect_scores():
    labels, logits = some(right=1.1)
    assert bootstrap_interval("accuracy", labels, logits, 2, seed=0) == (1.0, 1.0)


def test_roc_auc_of_draws_with_one_kind_only():
    """Such draws are left out; where all are such, there is no interval."""
    labels = np.array([0] * 6 + [1])
    logits = np.arange(7.0)[:, None]
    low, high = bootstrap_interval("roc-auc", labels, logits, 2, seed=0)
    assert (low, high) == (1.0, 1.0)
    none = bootstrap_interval("roc-auc", np.zeros(5, int), np.arange(5.0)[:, None], 2, seed=0)
    assert all(map(math.isnan, none))


def test_one_or_two_columns_of_a_binary_task():
    labels, logits = some()
    logits = logits * np.random.default_rng(0).uniform(1, 60, (300, 1)).astype(np.float32)
    both = np.concatenate([-logits, logits], axis=1) / 2
    for metric in ("accuracy", "matthews", "roc-auc"):
        first = bootstrap_interval(metric, labels, logits, 2, seed=0)
        assert first == bootstrap_interval(metric, labels, both, 2, seed=0)


def test_texts_and_seeds_both_widen_the_interval():
    """The normal approximation: the variance of texts plus that which drawing seeds shows."""
    rng = np.random.default_rng(0)
    n, rights = 2000, (0.70, 0.74, 0.78, 0.82)
    labels = rng.integers(0, 2, n)
    every = [np.where(rng.random(n) < right, labels, 1 - labels) for right in rights]
    logits = [np.eye(2)[answers] for answers in every]
    low, high = interval_over_seeds("accuracy", labels, logits, 2, seed=5)
    right = np.array([answers == labels for answers in every])
    scores = right.mean(axis=1)
    texts = right.mean(axis=0).var() / n
    # What is left of a single answer, drawn by both, counts once more.
    both = (right - right.mean(axis=0) - scores[:, None] + scores.mean()).var() / (n * 4)
    spread = np.sqrt(texts + scores.var() / 4 + both)
    expected = norm.ppf([0.025, 0.975], scores.mean(), spread)
    np.testing.assert_allclose([low, high], expected, atol=0.003)
    assert high - low > 2 * (np.subtract(*norm.ppf([0.975, 0.025])) * np.sqrt(texts))


def test_one_seed_is_the_interval_of_a_score():
    labels, logits = some()
    found = interval_over_seeds("macro-f1", labels, [logits], 2, seed=3)
    assert found == bootstrap_interval("macro-f1", labels, logits, 2, seed=3)


def test_rounding_is_no_difference():
    values = np.array([1.0, 2.0, 1e-16, -1e-16, 3.0])
    assert bootstrap_p(values) == 2 * (2 + 1) / (5 + 1)
