"""The L2 solver against scikit-learn's lbfgs, and its certificate."""

from __future__ import annotations

import numpy as np
import pytest
from problems import (
    by_sklearn,
    double_loss,
    feature_major,
    indicators,
    objective,
    objective_of,
    problem,
)

from probeline.probe.losses import make_loss
from probeline.probe.smooth import fit_l2
from probeline.probe.solver import null_fit


def solve(XT, loss, penalty, tolerance=1e-7, max_iterations=300, start=None):
    gram = XT @ XT.T / XT.dtype.type(XT.shape[1])
    start = start or null_fit(XT, loss)
    return fit_l2(
        XT,
        loss,
        penalty,
        gram=gram,
        start=start,
        tolerance=tolerance,
        max_iterations=max_iterations,
    )


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(
    "n, p, classes, class_weight, penalty",
    [
        (200, 30, 2, None, 0.01),
        (200, 30, 2, "balanced", 1e-4),
        (60, 100, 2, None, 0.1),
        (150, 20, 3, None, 0.01),
        (150, 20, 5, "balanced", 0.001),
        (60, 80, 4, None, 1.0),
    ],
)
def test_equals_sklearn(n, p, classes, class_weight, penalty, dtype):
    X, y = problem(n, p, classes)
    loss = make_loss(y, classes, class_weight=class_weight, dtype=dtype)
    tolerance = {np.float64: 1e-8, np.float32: 1e-5}[dtype]
    fit = solve(feature_major(X, dtype), loss, penalty, tolerance)
    assert fit.converged
    assert fit.coefficients.dtype == fit.intercept.dtype == dtype
    W, b = by_sklearn(X - X.mean(axis=0), y, penalty, 0.0, class_weight)
    truth = double_loss(y, classes, class_weight)
    best = objective(X - X.mean(axis=0), truth, W, b, penalty, 0.0)
    found = objective_of(X, truth, fit, penalty, 0.0)
    assert found == pytest.approx(best, rel=2 * tolerance)
    close = {np.float64: 1e-3, np.float32: 3e-2}[dtype] * np.abs(W).max()
    np.testing.assert_allclose(fit.coefficients, W, atol=close)
    shift = (fit.intercept - b).mean() if classes > 2 else 0
    np.testing.assert_allclose(fit.intercept - shift, b, atol=5 * close)


def test_multi_label_is_one_vs_rest():
    X, Y = indicators(150, 4)
    fit = solve(feature_major(X), make_loss(Y, 4, dtype=np.float64), 0.01, 1e-9)
    for k in range(4):
        W, b = by_sklearn(X - X.mean(axis=0), Y[:, k], 0.01, 0.0)
        np.testing.assert_allclose(fit.coefficients[:, [k]], W, atol=1e-3)
        np.testing.assert_allclose(fit.intercept[[k]], b, atol=1e-3)


@pytest.mark.parametrize("classes", [2, 4])
def test_the_gap_bounds_the_suboptimality(classes):
    X, y = problem(120, 40, classes, seed=1)
    truth = double_loss(y, classes)
    for dtype, rounding in ((np.float64, 1e-9), (np.float32, 2e-7)):
        XT, loss = feature_major(X, dtype), make_loss(y, classes, dtype=dtype)
        for penalty in (1.0, 0.01, 1e-4):
            W, b = by_sklearn(X - X.mean(axis=0), y, penalty, 0.0)
            best = objective(X - X.mean(axis=0), truth, W, b, penalty, 0.0)
            for steps in (0, 1, 3, 200):
                fit = solve(XT, loss, penalty, 1e-5, steps)
                found = objective_of(X, truth, fit, penalty, 0.0)
                assert found - best <= fit.gap * found + rounding
                assert fit.converged == (fit.gap <= 1e-5)
                assert fit.iterations <= steps


@pytest.mark.parametrize("seed", range(4))
def test_reaches_its_tolerance_at_small_penalties(seed):
    """Nearly separable rows, correlated features, a class that is rare: where an intercept that is
    a little off hides most of the gap."""
    rng = np.random.default_rng(seed)
    X, y = problem(150, 80, 2, seed=seed, noise=0.3)
    X += 3 * rng.normal(size=(150, 1))
    y[rng.random(150) < 0.8] = 1
    y[0] = 0
    XT, loss = feature_major(X, np.float32), make_loss(y, 2)
    fit = None
    for penalty in np.geomspace(1, 1e-3, 7):
        fit = solve(XT, loss, penalty, 1e-3, 100, fit)
        assert fit.converged


def test_steps_used_up_are_not_convergence():
    X, y = problem(150, 40, 3)
    fit = solve(feature_major(X), double_loss(y, 3), 1e-4, 1e-6, 1)
    assert not fit.converged
    assert fit.gap > 1e-3


def test_no_features_and_constant_ones():
    _, y = problem(50, 3, 3)
    loss = double_loss(y, 3)
    for p in (0, 4):
        fit = solve(np.zeros((p, 50)), loss, 0.1)
        assert fit.converged
        assert fit.coefficients.shape == (p, 3)
        assert not fit.coefficients.any()


def test_more_features_than_rows_and_copies():
    X, y = problem(40, 30, 3)
    four = np.hstack([X] * 4)
    assert solve(feature_major(four, np.float32), make_loss(y, 3), 0.01, 1e-4).converged
    fit = solve(feature_major(four), double_loss(y, 3), 0.01, 1e-9)
    assert fit.converged
    parts = np.split(fit.coefficients, 4)
    np.testing.assert_allclose(parts[0], parts[3], atol=1e-4)


def test_bit_equal_twice():
    X, y = problem(120, 50, 4)
    XT, loss = feature_major(X, np.float32), make_loss(y, 4)
    first, second = (solve(XT, loss, 0.01, 1e-4) for _ in range(2))
    assert first.coefficients.tobytes() == second.coefficients.tobytes()
    assert first.intercept.tobytes() == second.intercept.tobytes()


def test_arguments_are_left_alone():
    X, y = problem(80, 10, 3)
    XT, loss = feature_major(X), double_loss(y, 3)
    gram = XT @ XT.T / 80
    start = solve(XT, loss, 0.5)
    kept = [a.copy() for a in (XT, gram, start.coefficients, start.intercept)]
    fit_l2(XT, loss, 0.01, gram=gram, start=start)
    now = (XT, gram, start.coefficients, start.intercept)
    assert all(np.array_equal(a, b) for a, b in zip(kept, now, strict=True))


def test_collinear_features_under_a_tiny_penalty():
    """The float32 Gram matrix of many nearly equal columns is not positive definite by itself."""
    rng = np.random.default_rng(0)
    n, p = 150, 900
    X = (rng.normal(size=(n, 3)) @ rng.normal(size=(3, p))).astype(np.float32)
    X += 1e-3 * rng.normal(size=X.shape).astype(np.float32)
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    y = (X[:, 0] + rng.normal(size=n) > 0).astype(np.int64)
    XT, loss = np.ascontiguousarray(X.T), make_loss(y, 2)
    gram = XT @ XT.T / np.float32(n)
    penalty = 1e-7
    with pytest.raises(np.linalg.LinAlgError):
        np.linalg.cholesky(gram + np.float32(penalty) * np.eye(p, dtype=np.float32))
    fit = fit_l2(XT, loss, penalty, gram=gram, start=null_fit(XT, loss), max_iterations=5)
    assert np.isfinite(fit.coefficients).all()
    assert fit.objective < null_fit(XT, loss).objective


@pytest.mark.parametrize("penalty", [2e-2, 4e-3, 2e-3])
def test_a_cold_start_with_many_classes_goes_all_the_way(penalty):
    """Beyond the minimum the penalty's slope alone is small: a line search must not end there."""
    rng = np.random.default_rng(0)
    n, p, classes = 200, 300, 100
    y = np.arange(n) % classes
    X = np.maximum(rng.normal(size=(classes, p))[y] + rng.normal(size=(n, p)), 0) ** 2
    X = ((X - X.mean(axis=0)) / X.std(axis=0)).astype(np.float32)
    XT, loss = np.ascontiguousarray(X.T), make_loss(y, classes)
    gram, null = XT @ XT.T / np.float32(n), null_fit(XT, loss)
    cold = fit_l2(XT, loss, penalty, gram=gram, start=null, tolerance=1e-3)
    assert cold.converged
    warm = null
    for through in np.geomspace(1.0, penalty, 12):
        warm = fit_l2(XT, loss, through, gram=gram, start=warm, tolerance=1e-3)
    assert cold.objective == pytest.approx(warm.objective, rel=2e-3)
