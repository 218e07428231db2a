"""Losses against their definitions, finite differences and the Fenchel-Young equality."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import problem
from scipy.optimize import approx_fprime
from scipy.special import log_expit, logsumexp
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight

from probeline.probe.losses import make_loss, sigmoid, softmax


def some_loss(kind: str, class_weight=None, n: int = 12):
    rng = np.random.default_rng(0)
    if kind == "multi-label":
        labels, classes = rng.integers(0, 2, (n, 4)), 4
    else:
        classes = 2 if kind == "binary" else 4
        labels = np.concatenate([np.arange(classes), rng.integers(0, classes, n - classes)])
    return make_loss(labels, classes, class_weight=class_weight, dtype=np.float64), labels


def defined_value(kind, loss, labels, Z) -> float:
    total = 0.0
    weights = np.broadcast_to(loss.weights, Z.shape)
    for i, z in enumerate(Z):
        if kind == "softmax":
            total += weights[i, 0] * (logsumexp(z) - z[labels[i]])
            continue
        for k, value in enumerate(z):
            y = labels[i] if kind == "binary" else labels[i, k]
            total -= weights[i, k] * (log_expit(value) if y else log_expit(-value))
    return total


KINDS = pytest.mark.parametrize("kind", ["binary", "softmax", "multi-label"])
WEIGHTS = pytest.mark.parametrize("class_weight", [None, "balanced"])


@KINDS
@WEIGHTS
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_value_and_residual(kind, class_weight, scale):
    loss, labels = some_loss(kind, class_weight)
    Z = scale * np.random.default_rng(1).normal(size=loss.targets.shape)
    expected = defined_value(kind, loss, labels, Z)
    assert loss.value(Z) == pytest.approx(expected, rel=1e-12)
    value, residual = loss.value_and_residual(Z)
    assert value == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(residual, loss.residual(Z), rtol=1e-10, atol=1e-15)
    slopes = approx_fprime(Z.ravel(), lambda z: loss.value(z.reshape(Z.shape)), 1e-6)
    np.testing.assert_allclose(residual.ravel(), slopes, atol=1e-6)


@KINDS
def test_float32_keeps_small_losses(kind):
    """A loss far below the size of the logits is not lost in their rounding."""
    double, labels = some_loss(kind)
    single = make_loss(labels, 4 if kind != "binary" else 2)
    size = 4 if kind == "softmax" else 12
    Z = size * (2 * double.targets - 1) + np.random.default_rng(2).normal(size=double.targets.shape)
    assert double.value(Z) < 2e-3
    Z = (100 * (kind == "softmax") + Z).astype(np.float32)
    assert single.value(Z) == pytest.approx(double.value(Z.astype(np.float64)), rel=1e-4)
    assert single.value_and_residual(Z)[0] == single.value(Z)


@KINDS
def test_extreme_logits_do_not_overflow(kind):
    loss, _ = some_loss(kind)
    with np.errstate(all="raise", under="ignore"):
        value, residual = loss.value_and_residual(1e4 * (1 - 2 * loss.targets))
    assert np.isfinite(value)
    expected = 2e4 + np.log(3) if kind == "softmax" else 1e4 * loss.targets.shape[1]
    assert value == pytest.approx(expected)
    assert np.abs(residual).max() <= loss.weights.max() * (1 + 1e-9)


@KINDS
@WEIGHTS
@settings(max_examples=25, deadline=None)
@given(scale=st.floats(0, 1), spread=st.floats(0.01, 20), seed=st.integers(0, 1000))
def test_conjugate(kind, class_weight, scale, spread, seed):
    """f(Z) + f*(R) = <Z, R> at R = f'(Z), and f(Z) + f*(t R) >= <Z, t R> elsewhere."""
    loss, _ = some_loss(kind, class_weight)
    Z = spread * np.random.default_rng(seed).normal(size=loss.targets.shape)
    R = loss.residual(Z)
    assert loss.value(Z) + loss.conjugate(R, 1.0) == pytest.approx(np.vdot(Z, R), abs=1e-9)
    assert loss.value(Z) + loss.conjugate(R, scale) >= scale * np.vdot(Z, R) - 1e-9
    # The supremum over Z of <Z, tR> - f(Z) is reached where the probabilities are the targets
    # moved by t towards those of Z.
    mixed = loss.targets + scale * (loss.probabilities(Z) - loss.targets)
    mixed = np.clip(mixed, 1e-300, 1 - 1e-16)
    at = np.log(mixed) if loss.kind == "softmax" else np.log(mixed) - np.log1p(-mixed)
    supremum = scale * np.vdot(at, R) - loss.value(at)
    assert loss.conjugate(R, scale) == pytest.approx(supremum, abs=1e-8)


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_balanced_weights_are_sklearns(classes):
    _, y = problem(90, 3, classes, seed=4)
    loss = make_loss(y, classes, class_weight="balanced", dtype=np.float64)
    per_class = compute_class_weight("balanced", classes=np.arange(classes), y=y)
    np.testing.assert_allclose(loss.weights[:, 0], per_class[y] / len(y))
    assert loss.weights.sum() == pytest.approx(1.0)


def test_balanced_weights_of_a_class_without_rows():
    y = np.array([0, 0, 0, 2])
    loss = make_loss(y, 4, class_weight="balanced", dtype=np.float64)
    np.testing.assert_allclose(loss.weights[:, 0], compute_sample_weight("balanced", y) / 4)


def test_balanced_weights_per_label():
    Y = np.random.default_rng(0).integers(0, 5, (40, 3)) == 0
    loss = make_loss(Y, 3, class_weight="balanced", dtype=np.float64)
    for k in range(3):
        np.testing.assert_allclose(
            loss.weights[:, k], compute_sample_weight("balanced", Y[:, k]) / len(Y)
        )


def test_shapes_and_targets():
    assert make_loss(np.array([0, 1, 1]), 2).targets.tolist() == [[0], [1], [1]]
    assert make_loss(np.array([2, 0]), 3).targets.tolist() == [[0, 0, 1], [1, 0, 0]]
    plain = make_loss(np.array([[1, 0], [1, 1]]), 2)
    assert (plain.kind, plain.targets.tolist()) == ("sigmoid", [[1, 0], [1, 1]])
    assert plain.weights.tolist() == [[0.5], [0.5]]


@given(st.lists(st.floats(-200, 200), min_size=2, max_size=6))
def test_softmax_and_sigmoid(values):
    z = np.array([values])
    np.testing.assert_allclose(softmax(z), np.exp(z - logsumexp(z)), atol=1e-14)
    np.testing.assert_allclose(sigmoid(z), np.exp(log_expit(z)), atol=1e-14)
    two = np.concatenate([-z.T, z.T], axis=1) / 2
    np.testing.assert_allclose(softmax(two)[:, 1], sigmoid(z)[0], atol=1e-14)
