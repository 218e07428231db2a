"""The group penalty against a naive solver, its optimality conditions, and the L1 it contains."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import double_loss, feature_major, indicators, problem, split_problem, task_of

from probeline.config import validate
from probeline.errors import ConfigError
from probeline.probe.group import fit_group
from probeline.probe.group_model import GroupQuadratic, row_norms
from probeline.probe.losses import LogisticLoss, make_loss
from probeline.probe.path import run_path
from probeline.probe.solver import fit_l1, largest_penalty, null_fit
from probeline.probe.task import SPLITS
from probeline.probe.threshold import Evaluation
from probeline.probe.train import train_probe
from probeline.sparsify import rank_neurons

CASES = [  # kind, n, p, classes, l1_ratio, class_weight, share of the largest penalty
    ("softmax", 150, 20, 3, 1.0, None, 0.05),
    ("softmax", 150, 20, 5, 1.0, "balanced", 0.2),
    ("softmax", 150, 20, 4, 0.4, None, 0.1),
    ("softmax", 60, 90, 3, 1.0, None, 0.2),
    ("multi-label", 150, 12, 4, 1.0, None, 0.1),
    ("multi-label", 150, 12, 4, 0.5, "balanced", 0.1),
]


def made(kind, n, p, classes, seed=0):
    return (
        indicators(n, classes, seed, p) if kind == "multi-label" else problem(n, p, classes, seed)
    )


def solve(XT, loss, penalty, l1_ratio=1.0, tolerance=1e-7, **options):
    start = null_fit(XT, loss)
    options = {"max_iterations": 1000} | options
    return fit_group(XT, loss, penalty, alpha=l1_ratio, start=start, tolerance=tolerance, **options)


def largest(XT, loss, l1_ratio=1.0):
    return largest_penalty(null_fit(XT, loss), l1_ratio, row_norms)


def objective(X, loss, W, b, penalty, l1_ratio):
    W, b = np.asarray(W, np.float64), np.asarray(b, np.float64)
    groups = np.sqrt((W**2).sum(axis=1)).sum()
    return loss.value(X @ W + b) + penalty * (l1_ratio * groups + (1 - l1_ratio) / 2 * (W**2).sum())


def naive(X, loss, penalty, l1_ratio, rounds=60_000):
    """Accelerated proximal gradient with a fixed step, in float64: (W, b)."""
    ones = np.hstack([X, np.ones((len(X), 1))])
    step = 1 / (loss.curvature * loss.weights.max() * np.linalg.norm(ones, 2) ** 2)
    U = V = np.zeros((X.shape[1] + 1, loss.targets.shape[1]))
    momentum = 1.0
    for _ in range(rounds):
        new = V - step * (ones.T @ loss.residual(ones @ V))
        W = new[:-1]
        sizes = np.linalg.norm(W, axis=1, keepdims=True)
        W *= np.maximum(1 - step * penalty * l1_ratio / np.maximum(sizes, 1e-300), 0)
        W /= 1 + step * penalty * (1 - l1_ratio)
        if ((V - new) * (new - U)).sum() > 0:
            momentum, V = 1.0, new
        else:
            following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
            V, momentum = new + (momentum - 1) / following * (new - U), following
        if np.abs(new - U).max() < 1e-13:
            break
        U = new
    return new[:-1], new[-1]


def assert_optimal(X, loss, fit, penalty, l1_ratio, close):
    """The optimality conditions, by their definition."""
    W = fit.coefficients.astype(np.float64)
    residual = loss.residual(X @ W + fit.intercept)
    gradient = X.T @ residual + penalty * (1 - l1_ratio) * W
    sizes = np.linalg.norm(W, axis=1, keepdims=True)
    used = sizes[:, 0] > 0
    threshold = penalty * l1_ratio
    assert (np.linalg.norm(gradient[~used], axis=1) <= threshold * (1 + close)).all()
    unit = W[used] / sizes[used]
    np.testing.assert_allclose(gradient[used], -threshold * unit, atol=close * threshold)
    assert np.abs(residual.sum(axis=0)).max() < 1e-6


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("kind, n, p, classes, l1_ratio, class_weight, share", CASES)
def test_equals_a_naive_solver(kind, n, p, classes, l1_ratio, class_weight, share, dtype):
    X, y = made(kind, n, p, classes)
    XT = feature_major(X, dtype)
    loss = make_loss(y, classes, class_weight=class_weight, dtype=dtype)
    penalty = share * largest(XT, loss, l1_ratio)
    fit = solve(XT, loss, penalty, l1_ratio)
    assert fit.coefficients.dtype == fit.intercept.dtype == dtype
    X, truth = X - X.mean(axis=0), double_loss(y, classes, class_weight)
    W, b = naive(X, truth, penalty, l1_ratio)
    best = objective(X, truth, W, b, penalty, l1_ratio)
    found = objective(X, truth, fit.coefficients, fit.intercept, penalty, l1_ratio)
    assert found == pytest.approx(best, rel=1e-5 if dtype == np.float32 else 1e-7)
    assert fit.objective == pytest.approx(found, rel=1e-5)
    tolerance = {np.float64: 1e-3, np.float32: 5e-3}[dtype] * np.abs(W).max()
    np.testing.assert_allclose(fit.coefficients, W, atol=tolerance)
    if dtype == np.float64:
        assert fit.converged
        assert np.array_equal(fit.coefficients.any(axis=1), row_norms(W) > 1e-4 * np.abs(W).max())
    # A group is in or out as a whole.
    assert (fit.coefficients != 0).sum() == classes * fit.coefficients.any(axis=1).sum()


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    kind=st.sampled_from(["softmax", "multi-label"]),
    classes=st.integers(3, 6),
    p=st.integers(1, 40),
    l1_ratio=st.sampled_from([1.0, 0.5]),
    share=st.floats(0.03, 0.9),
    class_weight=st.sampled_from([None, "balanced"]),
)
def test_the_optimality_conditions_hold(seed, kind, classes, p, l1_ratio, share, class_weight):
    X, y = made(kind, 80, p, classes, seed)
    XT, loss = feature_major(X), double_loss(y, classes, class_weight)
    penalty = share * largest(XT, loss, l1_ratio)
    fit = solve(XT, loss, penalty, l1_ratio, tolerance=1e-9)
    assert fit.gap < 1e-6
    assert_optimal(XT.T, loss, fit, penalty, l1_ratio, close=0.02)


def test_one_column_is_the_l1():
    X, y = problem(120, 20, 2)
    XT, loss = feature_major(X), double_loss(y, 2)
    null = null_fit(XT, loss)
    assert largest(XT, loss) == largest_penalty(null, 1.0)
    for l1_ratio in (1.0, 0.5):
        group, alone = (
            fit(XT, loss, 0.02, alpha=l1_ratio, start=null, tolerance=1e-7)
            for fit in (fit_group, fit_l1)
        )
        assert np.array_equal(group.coefficients, alone.coefficients)
        assert (group.objective, group.gap) == (alone.objective, alone.gap)


@pytest.mark.parametrize("share", [0.5, 0.1, 0.03])
def test_two_softmax_columns_are_the_l1_of_their_difference(share):
    """Rows (-v/2, v/2) of norm |v| / sqrt 2: two solvers that share little, one solution."""
    X, y = problem(120, 20, 2)
    XT, binary = feature_major(X), double_loss(y, 2)
    two = LogisticLoss("softmax", np.asfortranarray(np.eye(2)[y]), binary.weights)
    null = null_fit(XT, binary)
    penalty = share * largest_penalty(null, 1.0)
    alone = fit_l1(XT, binary, penalty, start=null, tolerance=1e-9, max_iterations=200)
    fit = solve(XT, two, np.sqrt(2) * penalty, tolerance=1e-9)
    W = fit.coefficients
    np.testing.assert_allclose(W[:, [1]] - W[:, [0]], alone.coefficients, atol=1e-4)
    np.testing.assert_allclose(W.sum(axis=1), 0, atol=1e-4)
    assert fit.objective == pytest.approx(alone.objective, rel=1e-8)


@pytest.mark.parametrize("kind, l1_ratio", [("softmax", 1.0), ("multi-label", 0.5)])
def test_largest_penalty_is_the_threshold(kind, l1_ratio):
    X, y = made(kind, 100, 15, 3, seed=2)
    XT, loss = feature_major(X), double_loss(y, 3)
    bound = largest(XT, loss, l1_ratio)
    gradient = null_fit(XT, loss).gradient
    assert bound == pytest.approx(np.linalg.norm(gradient, axis=1).max() / l1_ratio)
    above, below = (solve(XT, loss, share * bound, l1_ratio) for share in (1.0001, 0.97))
    assert above.iterations == 0
    assert not above.coefficients.any()
    assert below.coefficients.any(axis=1).sum() == 1


@pytest.mark.parametrize("l1_ratio", [1.0, 0.4])
def test_the_gap_bounds_the_suboptimality(l1_ratio):
    X, y = problem(120, 40, 4, seed=1)
    X, truth = X - X.mean(axis=0), double_loss(y, 4)
    for dtype, rounding in ((np.float64, 1e-9), (np.float32, 2e-7)):
        XT, loss = feature_major(X, dtype), make_loss(y, 4, dtype=dtype)
        for share in (0.5, 0.1):
            penalty = share * largest(XT, loss, l1_ratio)
            best = objective(X, truth, *naive(X, truth, penalty, l1_ratio), penalty, l1_ratio)
            for steps in (0, 1, 2, 4, 8, 100):
                fit = solve(XT, loss, penalty, l1_ratio, max_iterations=steps)
                found = objective(X, truth, fit.coefficients, fit.intercept, penalty, l1_ratio)
                assert found - best <= fit.gap * found + rounding
                assert fit.converged == (fit.gap <= 1e-7)
                assert fit.iterations <= steps


def known_support(n=800, p=60, classes=6, true=7, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p))
    W = np.zeros((p, classes))
    W[:true] = 1.5 * rng.normal(size=(true, classes))
    return X, (X @ W + rng.gumbel(size=(n, classes))).argmax(axis=1)


def test_the_true_neurons_come_first_and_stay():
    X, y = known_support()
    XT, loss = feature_major(X, np.float32), make_loss(y, 6)
    steps, fits = run_path(
        XT,
        loss,
        lambda fit: Evaluation(-fit.objective, 0.0, fit.objective, 0.0),
        {"penalties": "auto", "path_length": 12, "path_ratio": 0.05, "penalty": "group-l1"}
        | {"tolerance": 1e-3, "max_iterations": 200},
        l1_ratio=1.0,
    )
    assert len(steps) == 12
    assert all(step.converged for step in steps)
    kept = [np.flatnonzero(fit.coefficients.any(axis=1)) for fit in fits]
    assert [step.neurons for step in steps] == [len(neurons) for neurons in kept]
    assert [step.nonzero for step in steps] == [6 * len(neurons) for neurons in kept]
    assert kept[0].size == 0
    for fewer, more in pairwise(kept):
        assert set(fewer) <= set(more)
    assert list(range(7)) in [neurons.tolist() for neurons in kept]
    assert len(kept[-1]) > 7


def test_steps_used_up_are_not_convergence():
    X, y = problem(150, 40, 3)
    XT, loss = feature_major(X), double_loss(y, 3)
    penalty = 0.05 * largest(XT, loss)
    one = solve(XT, loss, penalty, max_iterations=1)
    whole = solve(XT, loss, penalty, tolerance=1e-3)
    assert not one.converged
    assert one.gap > 1e-3 >= whole.gap
    assert whole.converged
    assert whole.objective < one.objective


def test_a_warm_start_changes_the_way_and_not_the_end():
    X, y = problem(150, 40, 4)
    XT, loss = feature_major(X), double_loss(y, 4)
    far = solve(XT, loss, 0.1, tolerance=1e-3)
    kept = [a.copy() for a in (XT, far.coefficients, far.intercept, far.gradient, far.logits)]
    warm = fit_group(XT, loss, 0.05, start=far, tolerance=1e-8, max_iterations=500)
    now = (XT, far.coefficients, far.intercept, far.gradient, far.logits)
    assert all(np.array_equal(a, b) for a, b in zip(kept, now, strict=True))
    cold = solve(XT, loss, 0.05, tolerance=1e-8)
    assert warm.objective == pytest.approx(cold.objective, rel=1e-7)
    np.testing.assert_allclose(warm.coefficients, cold.coefficients, atol=1e-3)
    np.testing.assert_allclose(warm.logits, XT.T @ warm.coefficients + warm.intercept, atol=1e-9)


def test_no_features_and_constant_ones():
    X, y = problem(100, 10, 3)
    loss = double_loss(y, 3)
    for p in (0, 4):
        fit = fit_group(np.zeros((p, 100)), loss, 1.0, start=null_fit(np.zeros((p, 100)), loss))
        assert fit.converged
        assert fit.coefficients.shape == (p, 3)
        assert not fit.coefficients.any()
    X[:, [2, 7]] = 1.0
    fit = solve(feature_major(X), loss, 0.02)
    others = [0, 1, 3, 4, 5, 6, 8, 9]
    alone = solve(feature_major(X[:, others]), loss, 0.02)
    assert not fit.coefficients[[2, 7]].any()
    np.testing.assert_allclose(fit.coefficients[others], alone.coefficients, atol=1e-3)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_separable_classes_and_one_without_rows(dtype):
    X, y = problem(90, 30, 4, noise=0.0)
    y[y == 1] = 2
    XT, loss = feature_major(X, dtype), make_loss(y, 4, dtype=dtype)
    fit = null_fit(XT, loss)
    for share in (0.3, 0.1, 0.03, 0.01):
        fit = fit_group(XT, loss, share * largest(XT, loss), start=fit, tolerance=5e-3)
        assert fit.gap < 2e-2
    assert ((XT.T @ fit.coefficients + fit.intercept).argmax(axis=1) == y).all()


def test_bit_equal_twice():
    X, y = problem(120, 50, 4)
    XT, loss = feature_major(X, np.float32), make_loss(y, 4)
    first, second = (solve(XT, loss, 0.01, tolerance=1e-4) for _ in range(2))
    assert first.coefficients.tobytes() == second.coefficients.tobytes()
    assert (first.objective, first.gap) == (second.objective, second.gap)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    m=st.integers(1, 8),
    classes=st.integers(1, 4),
    pairs=st.integers(0, 3),
    threshold=st.floats(0.01, 2),
)
def test_quadratic_model(seed, m, classes, pairs, threshold):
    """B by the recursion of BFGS on a dense matrix; the minimiser by plain proximal gradient."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(m, 3 * m))
    H = A @ A.T / m + 0.1 * np.eye(m)
    C = rng.normal(size=(m * classes, 2 * m * classes))
    true = C @ C.T / (m * classes) + 0.1 * np.eye(m * classes)
    steps = [rng.normal(size=m * classes) for _ in range(pairs)]
    B = np.kron(H, np.eye(classes))
    for s in steps:
        y = true @ s
        B += np.outer(y, y) / (y @ s) - np.outer(B @ s, B @ s) / (s @ B @ s)
    shape = (m, classes)
    told = [(s.reshape(shape), (true @ s).reshape(shape)) for s in steps]
    linear, start = rng.normal(size=shape), rng.normal(size=shape)
    found = GroupQuadratic(H, told).solve(linear, start, threshold, share=1e-9)
    step = 1 / np.linalg.norm(B, 2)
    u = start
    for _ in range(4000):
        x = u - step * (linear + (B @ (u - start).ravel()).reshape(shape))
        sizes = np.linalg.norm(x, axis=1, keepdims=True)
        u = x * np.maximum(1 - step * threshold / np.maximum(sizes, 1e-300), 0)
    np.testing.assert_allclose(found, u, atol=1e-4 * max(1, np.abs(u).max()))


def test_a_probe_and_its_neurons():
    options = {"standardize": True, "penalties": "auto", "path_length": 8, "path_ratio": 0.02}
    options |= {"l1_ratio": 1.0, "class_weight": None, "tolerance": 1e-3, "max_iterations": 100}
    X, task = split_problem(sizes=(200, 100, 60), p=30, classes=4)
    probe = train_probe(X, task, options | {"penalty": "group-l1"})
    neurons, _, cumulative = rank_neurons(probe.coefficients)
    assert len(neurons) == probe.step.neurons == probe.step.nonzero / 4
    assert cumulative[-1] == 1
    assert probe.validation_score > 0.5
    # Two classes: the same probe, whichever the penalty.
    X, task = split_problem(classes=2)
    one, other = (train_probe(X, task, options | {"penalty": k}) for k in ("l1", "group-l1"))
    assert one.coefficients.tobytes() == other.coefficients.tobytes()
    assert one.steps == other.steps


def test_a_multi_label_probe():
    X, Y = indicators(240, 3)
    task = task_of({"train": Y[:120], "validation": Y[120:180], "test": Y[180:]}, metric="macro-f1")
    parts = dict(zip(SPLITS, np.split(X.astype(np.float32), [120, 180]), strict=True))
    options = {"standardize": True, "penalties": [0.1, 1.0], "l1_ratio": 0.9, "tolerance": 1e-4}
    options |= {"class_weight": "auto", "max_iterations": 200, "penalty": "group-l1"}
    probe = train_probe(parts, task, options)
    assert [(s.class_weight, s.converged) for s in probe.steps] == [
        (None, True), (None, True), ("balanced", True), ("balanced", True)
    ]  # fmt: skip
    assert probe.test_score > 0.6


def test_the_setting():
    table = {"loader": "csv", "path": "d.csv", "splits": {"validation": 0.1, "test": 0.1}}
    raw = {"models": {"m": {"path": "some/model"}}, "datasets": {"d": table}}
    assert validate(raw).section("probe")["penalty"] == "l1"
    chosen = validate(raw | {"probe": {"penalty": "group-l1"}})
    assert chosen.section("probe")["penalty"] == "group-l1"
    with pytest.raises(ConfigError, match=r"probe\.penalty: 'group' is not one of l1, group-l1"):
        validate(raw | {"probe": {"penalty": "group"}})
