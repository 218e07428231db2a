"""One probe from activations: everything is estimated on train, chosen on validation."""

from __future__ import annotations

import numpy as np
import pytest
from problems import by_sklearn, indicators, split_problem, task_of
from sklearn.preprocessing import StandardScaler

from probeline.errors import ProbelineError
from probeline.probe.task import SPLITS
from probeline.probe.train import train_probe

OPTIONS = {
    "standardize": True,
    "penalties": [0.01, 0.1, 1.0, 10.0],
    "path_length": 8,
    "path_ratio": 0.01,
    "l1_ratio": 1.0,
    "class_weight": None,
    "tolerance": 1e-6,
    "max_iterations": 200,
}


# An even number of classes has several solutions: moving half of a neuron's weights up and half
# down costs nothing.
@pytest.mark.parametrize("classes", [2, 3])
def test_equals_a_search_by_hand(classes):
    X, task = split_problem(classes=classes, noise=2.0)
    probe = train_probe(X, task, OPTIONS)
    scaler = StandardScaler().fit(X["train"].astype(np.float64))
    found = []
    for C in OPTIONS["penalties"]:
        W, b = by_sklearn(scaler.transform(X["train"]), task.y["train"], 1 / (120 * C), 1.0)
        logits = {split: scaler.transform(X[split]) @ W + b for split in SPLITS}
        found.append((task.score("validation", logits["validation"]), logits, W))
    np.testing.assert_allclose([s.score for s in probe.steps], [f[0] for f in found], atol=0.02)
    _, logits, W = found[probe.chosen]
    assert probe.validation_score == pytest.approx(max(s.score for s in probe.steps))
    np.testing.assert_allclose(probe.coefficients, W, atol=2e-3)
    np.testing.assert_allclose(probe.logits(X["test"]), logits["test"], atol=2e-2)
    assert probe.test_score == task.score("test", probe.logits(X["test"]))


def test_validation_and_test_do_not_enter_the_fit():
    X, task = split_problem()
    first = train_probe(X, task, OPTIONS | {"penalties": [1.0]})
    rng = np.random.default_rng(0)
    others = {s: X[s] if s == "train" else 100 * rng.normal(size=X[s].shape) for s in SPLITS}
    others = {s: v.astype(np.float32) for s, v in others.items()}
    second = train_probe(others, task, OPTIONS | {"penalties": [1.0]})
    np.testing.assert_array_equal(first.coefficients, second.coefficients)
    np.testing.assert_array_equal(first.scaler.mean, second.scaler.mean)


def test_the_scale_is_a_choice():
    X, task = split_problem()
    X = {split: values * np.float32(3) for split, values in X.items()}
    options = OPTIONS | {"penalties": [0.1], "standardize": False}
    probe = train_probe(X, task, options)
    W, _ = by_sklearn(X["train"] - X["train"].mean(axis=0), task.y["train"], 1 / 12, 1.0)
    np.testing.assert_allclose(probe.coefficients, W, atol=1e-3 * np.abs(W).max())


def test_a_probe_has_no_more_weights_than_asked():
    X, task = split_problem(noise=2.0)
    options = OPTIONS | {"penalties": "auto", "path_ratio": 0.001}
    dense = train_probe(X, task, options)
    assert np.count_nonzero(dense.coefficients) > 0.3 * dense.coefficients.size
    sparse = train_probe(X, task, options | {"max_density": 0.3})
    assert 0 < np.count_nonzero(sparse.coefficients) <= 0.3 * sparse.coefficients.size
    allowed = [step.score for step in dense.steps if step.nonzero <= 0.3 * 60]
    assert sparse.validation_score == pytest.approx(max(allowed), abs=0.02)


def test_constant_features_have_zero_rows():
    X, task = split_problem()
    for values in X.values():
        values[:, [0, 5]] = 2.5
    probe = train_probe(X, task, OPTIONS)
    assert probe.coefficients.shape == (20, 3)
    assert not probe.coefficients[[0, 5]].any()
    assert probe.coefficients.any()


@pytest.mark.parametrize("penalties", ["auto", [1.0]])
def test_all_features_constant(penalties):
    """Layer 0's first token: a legal probe without a neuron, which predicts the majority."""
    X, task = split_problem()
    X = {split: np.ones_like(values) for split, values in X.items()}
    probe = train_probe(X, task, OPTIONS | {"penalties": penalties})
    assert not probe.coefficients.any()
    majority = np.bincount(task.y["train"]).argmax()
    assert probe.validation_score == (task.y["validation"] == majority).mean()
    assert probe.step.neurons == 0


def test_the_activations_are_left_alone():
    X, task = split_problem(sizes=(30, 1, 1), p=1, classes=2)
    before = {split: values.copy() for split, values in X.items()}
    train_probe(X, task, OPTIONS)
    for split in SPLITS:
        np.testing.assert_array_equal(X[split], before[split])


def test_multi_label():
    X, Y = indicators(240, 3)
    task = task_of({"train": Y[:120], "validation": Y[120:180], "test": Y[180:]}, metric="macro-f1")
    parts = dict(zip(SPLITS, np.split(X.astype(np.float32), [120, 180]), strict=True))
    probe = train_probe(parts, task, OPTIONS | {"class_weight": "auto"})
    assert {step.class_weight for step in probe.steps} == {None, "balanced"}
    assert probe.coefficients.shape == (12, 3)
    assert probe.validation_score == task.score("validation", probe.logits(parts["validation"]))
    assert probe.test_score == task.score("test", probe.logits(parts["test"]))
    assert probe.test_score > 0.6


def test_class_weights_follow_the_metric():
    for metric, expected in {
        "accuracy": [None],
        "macro-f1": [None, "balanced"],
        "matthews": [None, "balanced"],
        "roc-auc": [None],
    }.items():
        task = task_of({split: [0, 1] for split in SPLITS}, metric=metric)
        assert task.class_weights("auto") == expected
        assert task.class_weights("balanced") == ["balanced"]
        assert task.class_weights(None) == [None]


def test_validation_without_both_kinds_of_rows():
    X, task = split_problem(classes=2, metric="roc-auc")
    task.y["validation"][:] = 1
    with pytest.raises(ProbelineError, match="roc-auc needs rows of both kinds"):
        train_probe(X, task, OPTIONS)


def test_bit_equal_twice():
    X, task = split_problem(classes=4)
    first, second = (train_probe(X, task, OPTIONS | {"penalties": "auto"}) for _ in range(2))
    assert first.coefficients.tobytes() == second.coefficients.tobytes()
    assert first.steps == second.steps
