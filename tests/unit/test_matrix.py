"""Scaling against scikit-learn's StandardScaler, on train alone."""

from __future__ import annotations

import numpy as np
import pytest
from problems import problem
from sklearn.preprocessing import StandardScaler

from probeline.probe.matrix import fit_scaler
from probeline.probe.train import linear_logits


def test_equals_standard_scaler():
    X, _ = problem(5000, 12, 2)
    X = X.astype(np.float32)
    other = problem(70, 12, 2, seed=1)[0].astype(np.float32)
    scaler = fit_scaler(X)
    sklearn = StandardScaler().fit(X.astype(np.float64))
    assert scaler.kept.all()
    np.testing.assert_allclose(scaler.mean, sklearn.mean_, rtol=1e-6)
    np.testing.assert_allclose(scaler.scale, sklearn.scale_, rtol=1e-6)
    for values in (X, other):
        scaled = scaler.apply(values)
        assert scaled.dtype == np.float32
        assert scaled.flags.c_contiguous
        np.testing.assert_allclose(scaled.T, sklearn.transform(values), atol=2e-5)


def test_large_offset_loses_nothing():
    """Sums are kept in float64: a mean of 1,000 does not drown a deviation of 0.1."""
    rng = np.random.default_rng(0)
    X = (1000 + 0.1 * rng.normal(size=(20_000, 2))).astype(np.float32)
    np.testing.assert_allclose(fit_scaler(X).scale, X.astype(np.float64).std(axis=0), rtol=1e-5)


def test_without_standardising_only_the_mean_goes():
    X, _ = problem(60, 5, 2)
    scaler = fit_scaler(X.astype(np.float32), standardize=False)
    np.testing.assert_array_equal(scaler.scale, 1)
    np.testing.assert_allclose(scaler.apply(X.astype(np.float32)).T, X - X.mean(axis=0), atol=1e-5)


@pytest.mark.parametrize("standardize", [True, False])
def test_constant_features_are_dropped(standardize):
    """The rule: a standard deviation below 1e-6 * (|mean| + 1)."""
    signs = np.where(np.arange(100) % 2, 1, -1)[:, None]
    mean = np.array([0.0, 0, 50, 50, 7, 0])
    deviation = np.array([2e-6, 0.5e-6, 70e-6, 30e-6, 0, 1.0])
    scaler = fit_scaler(mean + signs * deviation, standardize)
    assert scaler.kept.tolist() == [True, False, True, False, False, True]
    assert scaler.apply((mean + signs * deviation).astype(np.float32)).shape == (3, 100)
    assert np.isfinite(scaler.scale).all()
    assert (scaler.scale > 0).all()


@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (1, 1), (4, 3)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_the_input_is_left_alone(shape, order):
    """Also where the transpose needs no copy."""
    X = np.asarray(np.random.default_rng(0).normal(size=shape), dtype=np.float32, order=order)
    before = X.copy()
    scaler = fit_scaler(np.random.default_rng(1).normal(size=(9, shape[1])).astype(np.float32))
    scaler.apply(X)
    np.testing.assert_array_equal(X, before)


def test_linear_logits_equal_explicit_scaling():
    X, _ = problem(80, 10, 2)
    X[:, 4] = 3.0
    X = X.astype(np.float32)
    scaler = fit_scaler(X)
    W = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    W[~scaler.kept] = 0
    b = np.array([1.0, -2, 0.5], np.float32)
    scaled = np.zeros_like(X)
    scaled[:, scaler.kept] = scaler.apply(X).T
    np.testing.assert_allclose(linear_logits(X, scaler, W, b), scaled @ W + b, rtol=1e-4, atol=1e-4)
