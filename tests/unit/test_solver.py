"""The L1 and elastic-net solver against scikit-learn, and its certificate against the truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import (
    by_sklearn,
    double_loss,
    feature_major,
    indicators,
    objective,
    objective_of,
    problem,
)
from scipy.special import logit

from probeline.probe.losses import make_loss
from probeline.probe.quadratic import L1Quadratic
from probeline.probe.solver import fit_l1, largest_penalty, null_fit, optimal_intercept

CASES = [  # n, p, classes, l1_ratio, class_weight, share of the largest penalty
    (200, 30, 2, 1.0, None, 0.05),
    (200, 30, 2, 0.5, "balanced", 0.02),
    (60, 100, 2, 1.0, None, 0.1),
    (150, 20, 3, 1.0, None, 0.03),
    (150, 20, 4, 0.3, None, 0.1),
    (150, 20, 5, 1.0, "balanced", 0.1),
    (60, 80, 3, 1.0, "balanced", 0.2),
]


def solve(XT, loss, penalty, l1_ratio=1.0, tolerance=1e-7, **options):
    start = null_fit(XT, loss)
    options = {"max_iterations": 200} | options
    return fit_l1(XT, loss, penalty, alpha=l1_ratio, start=start, tolerance=tolerance, **options)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("n, p, classes, l1_ratio, class_weight, share", CASES)
def test_equals_sklearn(n, p, classes, l1_ratio, class_weight, share, dtype):
    X, y = problem(n, p, classes)
    XT = feature_major(X, dtype)
    loss = make_loss(y, classes, class_weight=class_weight, dtype=dtype)
    penalty = share * largest_penalty(null_fit(XT, loss), l1_ratio)
    fit = solve(XT, loss, penalty, l1_ratio)
    assert fit.coefficients.dtype == fit.intercept.dtype == dtype
    W, b = by_sklearn(X - X.mean(axis=0), y, penalty, l1_ratio, class_weight)
    truth = double_loss(y, classes, class_weight)
    best = objective(X - X.mean(axis=0), truth, W, b, penalty, l1_ratio)
    found = objective_of(X, truth, fit, penalty, l1_ratio)
    assert found == pytest.approx(best, rel=1e-5 if dtype == np.float32 else 1e-7)
    assert fit.objective == pytest.approx(found, rel=1e-5)
    tolerance = {np.float64: 2e-4, np.float32: 2e-3}[dtype] * np.abs(W).max()
    np.testing.assert_allclose(fit.coefficients, W, atol=tolerance)
    # A softmax does not see a constant added to all intercepts.
    shift = (fit.intercept - b).mean() if classes > 2 else 0
    np.testing.assert_allclose(fit.intercept - shift, b, atol=5 * tolerance)
    if dtype == np.float64:
        assert fit.converged
        small = np.abs(W) > 1e-4 * np.abs(W).max()
        assert np.array_equal(fit.coefficients != 0, small) or l1_ratio < 1


def test_multi_label_is_one_vs_rest():
    X, Y = indicators(150, 4)
    XT = feature_major(X)
    for class_weight in (None, "balanced"):
        loss = make_loss(Y, 4, class_weight=class_weight, dtype=np.float64)
        fit = solve(XT, loss, 0.01)
        assert fit.converged
        for k in range(4):
            W, b = by_sklearn(X - X.mean(axis=0), Y[:, k], 0.01, 1.0, class_weight)
            np.testing.assert_allclose(fit.coefficients[:, [k]], W, atol=3e-4)
            np.testing.assert_allclose(fit.intercept[[k]], b, atol=3e-4)


def test_the_intercept_is_not_penalised():
    """Features far from zero: their mean goes into the intercept, free of charge."""
    X, y = problem(150, 8, 2, seed=3)
    y = np.where(np.random.default_rng(0).random(150) < 0.7, 1, y)
    fit = solve(feature_major(X), double_loss(y, 2), 0.02)
    W, b = by_sklearn(X, y, 0.02, 1.0)
    np.testing.assert_allclose(fit.coefficients, W, atol=1e-4)
    np.testing.assert_allclose(fit.intercept - X.mean(axis=0) @ fit.coefficients, b, atol=1e-3)


@pytest.mark.parametrize("classes, l1_ratio", [(2, 1.0), (2, 0.4), (4, 1.0), (4, 0.4)])
def test_the_gap_bounds_the_suboptimality(classes, l1_ratio):
    X, y = problem(120, 40, classes, seed=1)
    truth = double_loss(y, classes)
    for dtype, rounding in ((np.float64, 1e-9), (np.float32, 2e-7)):
        XT, loss = feature_major(X, dtype), make_loss(y, classes, dtype=dtype)
        null = null_fit(XT, loss)
        for share in (0.5, 0.05):
            penalty = share * largest_penalty(null, l1_ratio)
            W, b = by_sklearn(X - X.mean(axis=0), y, penalty, l1_ratio)
            best = objective(X - X.mean(axis=0), truth, W, b, penalty, l1_ratio)
            for steps in (0, 1, 2, 4, 100):
                fit = solve(XT, loss, penalty, l1_ratio, max_iterations=steps)
                found = objective_of(X, truth, fit, penalty, l1_ratio)
                assert found - best <= fit.gap * found + rounding
                assert fit.converged == (fit.gap <= 1e-7)
                assert fit.iterations <= steps


def test_the_gap_holds_where_the_loss_vanishes():
    """Separable rows and a tiny penalty, in float32: recomputed in float64, the gap is as told."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        X, y = problem(80, 60, 2, seed=seed, noise=0.0)
        y[rng.random(80) < 0.9] = 1
        y[0] = 0
        XT, loss, truth = feature_major(X, np.float32), make_loss(y, 2), double_loss(y, 2)
        null = fit = null_fit(XT, loss)
        for share in (0.1, 0.01, 0.001):
            penalty = share * largest_penalty(null, 1.0)
            fit = fit_l1(XT, loss, penalty, start=fit, tolerance=1e-3)
            Z = (X - X.mean(axis=0)) @ fit.coefficients.astype(np.float64)
            b = optimal_intercept(Z, fit.intercept.astype(np.float64), truth)
            residual = truth.residual(Z + b)
            value = truth.value(Z + b) + penalty * np.abs(fit.coefficients).sum(dtype=np.float64)
            scale = min(1.0, penalty / np.abs(feature_major(X) @ residual).max())
            gap = 1 + truth.conjugate(residual, scale) / value
            assert fit.gap == pytest.approx(gap, abs=2e-4)


def test_steps_used_up_are_not_convergence():
    X, y = problem(150, 40, 3)
    XT, loss = feature_major(X), double_loss(y, 3)
    penalty = 0.05 * largest_penalty(null_fit(XT, loss), 1.0)
    one = solve(XT, loss, penalty, max_iterations=1)
    assert not one.converged
    assert one.gap > 1e-3
    whole = solve(XT, loss, penalty, tolerance=1e-3)
    assert whole.converged
    assert whole.gap <= 1e-3
    assert whole.objective < one.objective


@pytest.mark.parametrize("classes, l1_ratio", [(2, 1.0), (3, 1.0), (3, 0.5)])
def test_largest_penalty_is_the_threshold(classes, l1_ratio):
    X, y = problem(100, 15, classes, seed=2)
    XT, loss = feature_major(X), double_loss(y, classes)
    largest = largest_penalty(null_fit(XT, loss), l1_ratio)
    for share, is_zero in ((1.001, True), (0.97, False)):
        ours = solve(XT, loss, share * largest, l1_ratio).coefficients
        W, _ = by_sklearn(X - X.mean(axis=0), y, share * largest, l1_ratio)
        assert (not ours.any()) == is_zero
        assert (np.abs(W).max() < 1e-6) == is_zero


def test_null_fit_is_the_share_of_each_class():
    X, y = problem(100, 5, 3)
    null = null_fit(feature_major(X), double_loss(y, 3))
    shares = np.bincount(y) / len(y)
    found = np.exp(null.intercept) / np.exp(null.intercept).sum()
    np.testing.assert_allclose(found, shares, atol=1e-7)
    assert null.objective == pytest.approx(-(shares * np.log(shares)).sum())
    binary = null_fit(feature_major(X), double_loss((y == 0).astype(int), 2))
    assert binary.intercept == pytest.approx(logit(shares[0]), abs=1e-6)


def test_no_features_and_constant_ones():
    _, y = problem(50, 3, 3)
    loss = double_loss(y, 3)
    for p in (0, 4):
        XT = np.zeros((p, 50))
        null = null_fit(XT, loss)
        assert largest_penalty(null, 1.0) == 0.0
        fit = fit_l1(XT, loss, 1.0, start=null)
        assert fit.converged
        assert fit.coefficients.shape == (p, 3)
        assert not fit.coefficients.any()
        assert fit.objective == pytest.approx(null.objective)


def test_constant_features_among_others_change_nothing():
    X, y = problem(100, 10, 3)
    X[:, [2, 7]] = 1.0
    fit = solve(feature_major(X), double_loss(y, 3), 0.02)
    others = [0, 1, 3, 4, 5, 6, 8, 9]
    alone = solve(feature_major(X[:, others]), double_loss(y, 3), 0.02)
    assert not fit.coefficients[[2, 7]].any()
    np.testing.assert_allclose(fit.coefficients[others], alone.coefficients, atol=1e-5)


def test_copies_of_a_feature():
    X, y = problem(100, 10, 2)
    fit = solve(feature_major(X), double_loss(y, 2), 0.02)
    twice = solve(feature_major(np.hstack([X, X])), double_loss(y, 2), 0.02)
    assert twice.converged
    assert twice.objective == pytest.approx(fit.objective, rel=1e-6)


@pytest.mark.parametrize("classes", [2, 3])
def test_separable_classes(classes):
    X, y = problem(90, 30, classes, noise=0.0)
    XT, loss = feature_major(X, np.float32), make_loss(y, classes)
    null = fit = null_fit(XT, loss)
    for share in (0.3, 0.1, 0.03, 0.01):
        fit = fit_l1(XT, loss, share * largest_penalty(null, 1.0), start=fit)
        assert np.isfinite(fit.objective)
        assert fit.gap < 5e-3
    Z = XT.T @ fit.coefficients + fit.intercept
    predicted = (Z[:, 0] > 0) if classes == 2 else Z.argmax(axis=1)
    assert (predicted == y).all()


def test_many_classes_few_rows():
    X, y = problem(160, 24, 77, seed=5)
    XT, loss = feature_major(X, np.float32), make_loss(y, 77)
    penalty = 0.3 * largest_penalty(null_fit(XT, loss), 1.0)
    fit = solve(XT, loss, penalty, tolerance=1e-3)
    assert fit.converged
    W, b = by_sklearn(X - X.mean(axis=0), y, penalty, 1.0, tol=1e-5)
    best = objective(X - X.mean(axis=0), double_loss(y, 77), W, b, penalty, 1.0)
    assert fit.objective == pytest.approx(best, rel=1e-3)


def test_a_class_without_rows():
    X, y = problem(80, 6, 3)
    y[y == 1] = 2
    fit = solve(feature_major(X, np.float32), make_loss(y, 3), 0.02, tolerance=1e-3)
    assert fit.converged
    Z = (X - X.mean(axis=0)) @ fit.coefficients + fit.intercept
    assert (Z.argmax(axis=1) != 1).all()


def test_bit_equal_twice():
    X, y = problem(120, 50, 4)
    XT, loss = feature_major(X, np.float32), make_loss(y, 4)
    first, second = (solve(XT, loss, 0.01, tolerance=1e-4) for _ in range(2))
    assert first.coefficients.tobytes() == second.coefficients.tobytes()
    assert first.intercept.tobytes() == second.intercept.tobytes()
    assert (first.objective, first.gap) == (second.objective, second.gap)


def test_arguments_are_left_alone():
    X, y = problem(80, 10, 3)
    XT, loss = feature_major(X), double_loss(y, 3)
    start = solve(XT, loss, 0.05)
    kept = [a.copy() for a in (XT, start.coefficients, start.intercept, start.gradient)]
    fit_l1(XT, loss, 0.01, start=start)
    now = (XT, start.coefficients, start.intercept, start.gradient)
    assert all(np.array_equal(a, b) for a, b in zip(kept, now, strict=True))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), m=st.integers(1, 12), threshold=st.floats(0.001, 2))
def test_quadratic_model(seed, m, threshold):
    """Against plain coordinate descent, carried far."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(m, 2 * m)) * 10.0 ** rng.uniform(-1, 1, (m, 1))
    H = A @ A.T / m + 1e-3 * np.eye(m)
    linear, start = rng.normal(size=m), rng.normal(size=m) * (rng.random(m) < 0.5)

    def value(u):
        d = u - start
        return linear @ d + d @ H @ d / 2 + threshold * np.abs(u).sum()

    u = start.copy()
    for _ in range(2000):
        for j in range(m):
            rest = linear[j] + H[j] @ (u - start) - H[j, j] * u[j]
            u[j] = -np.sign(rest) * max(abs(rest) - threshold, 0) / H[j, j]
    found, gain = L1Quadratic(H).solve(linear, start, threshold)
    assert value(found) <= value(u) + 1e-6 * abs(value(start) - value(u)) + 1e-9
    assert gain == pytest.approx(value(start) - value(found), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_quadratic_model_of_correlated_variables(dtype):
    """Where most signs of a first exact solve are wrong; judged by the optimality conditions."""
    rng = np.random.default_rng(0)
    A = rng.normal(size=(150, 40)) @ rng.normal(size=(40, 200)) + rng.normal(size=(150, 200))
    H = (A @ A.T / 200 + 1e-2 * np.eye(150)).astype(dtype)
    linear = rng.normal(size=150).astype(dtype)
    start = (rng.normal(size=150) * (rng.random(150) < 0.5)).astype(dtype)
    found, gain = L1Quadratic(H).solve(linear, start, 0.3)
    assert found.dtype == dtype
    gradient = linear + H @ (found - start)
    used = found != 0
    assert 10 < used.sum() < 140
    close = {np.float64: 1e-6, np.float32: 3e-3}[dtype]
    np.testing.assert_allclose(gradient[used], -0.3 * np.sign(found[used]), atol=close)
    assert np.abs(gradient[~used]).max() <= 0.3 * (1 + 1e-4) + close
    _, less = L1Quadratic(H).solve(linear, start, 0.3, share=0.01)
    assert 0.95 * gain <= less <= gain * (1 + 1e-5)


def test_quadratic_model_whose_row_sums_are_an_eigenvector():
    H = np.array([[1.0, -0.55], [-0.55, 1.0]])
    found, _ = L1Quadratic(H).solve(np.array([3.0, -3.0]), np.zeros(2), 2.0)
    np.testing.assert_allclose(found, [-1 / 1.55, 1 / 1.55])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), kind=st.sampled_from(["binary", "softmax", "multi-label"]))
def test_optimal_intercept(seed, kind):
    rng = np.random.default_rng(seed)
    _, y = problem(40, 3, 4, seed=seed)
    labels = {"binary": y % 2, "softmax": y, "multi-label": indicators(40, 3, seed)[1]}[kind]
    loss = make_loss(labels, {"binary": 2}.get(kind, 4), dtype=np.float64)
    Z = 4 * rng.normal(size=loss.targets.shape)
    b = optimal_intercept(Z, rng.normal(size=Z.shape[1]), loss)
    assert np.abs(loss.residual(Z + b).sum(axis=0)).max() < 2e-7


@pytest.mark.parametrize("kind", ["binary", "softmax", "multi-label"])
@pytest.mark.parametrize("spread", [0.1, 4, 15])
def test_optimal_intercept_in_float32(kind, spread):
    """The gap counts on a centred residual: as well centred as float64 would have it."""
    for seed in range(25):
        rng = np.random.default_rng(seed)
        _, y = problem(40, 3, 4, seed=seed)
        labels = {"binary": y % 2, "softmax": y, "multi-label": indicators(40, 3, seed)[1]}[kind]
        loss = make_loss(labels, {"binary": 2}.get(kind, 4))
        Z = (spread * rng.normal(size=loss.targets.shape)).astype(np.float32)
        b = optimal_intercept(Z, np.zeros(Z.shape[1], np.float32), loss)
        assert np.abs(loss.residual(Z + b).sum(axis=0, dtype=np.float64)).max() < 3e-7


@pytest.mark.parametrize("seed", [0, 1])
def test_separable_classes_converge_in_few_steps(seed):
    """What carries little curvature must not be left out of the model: such fits stall."""
    X, y = problem(400, 250, 2, seed=seed)
    X = ((X - X.mean(axis=0)) / X.std(axis=0)).astype(np.float32)
    XT, loss = np.ascontiguousarray(X.T), make_loss(y, 2)
    fit = null_fit(XT, loss)
    for C in np.geomspace(1e-2, 1e3, 15):
        fit = fit_l1(XT, loss, 1 / (400 * C), start=fit, tolerance=5e-3, max_iterations=50)
        assert fit.converged, f"C {C}: gap {fit.gap}"
        assert fit.iterations <= 5
