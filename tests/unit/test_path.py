"""A path of penalties: which ones, where it ends, which one is chosen."""

from __future__ import annotations

import numpy as np
import pytest
from problems import by_sklearn, double_loss, feature_major, problem

from probeline.probe.path import Step, best_step, densest, penalties_of, run_path
from probeline.probe.solver import extrapolate, largest_penalty, null_fit
from probeline.probe.threshold import Evaluation

AUTO = {
    "penalties": "auto",
    "path_length": 8,
    "path_ratio": 0.01,
    "tolerance": 1e-6,
    "max_iterations": 200,
}


def small(classes=3, n=100, p=12):
    X, y = problem(n, p, classes)
    return X, y, feature_major(X), double_loss(y, classes)


def improving():
    """An `evaluate` that is never content: each call scores higher than the one before."""
    scores = iter(range(1000))
    return lambda fit: Evaluation(next(scores), 0.0, 0.0, 0.0)


def test_automatic_penalties():
    _, _, XT, loss = small()
    null = null_fit(XT, loss)
    found = penalties_of(AUTO, 0.5, null, 100)
    assert len(found) == 8
    assert found[0] == pytest.approx(largest_penalty(null, 0.5))
    assert found[-1] == pytest.approx(0.01 * found[0])
    np.testing.assert_allclose(found[1:] / found[:-1], found[1] / found[0])
    first = run_path(XT, loss, improving(), AUTO, l1_ratio=0.5)[0][0]
    assert first.neurons == first.nonzero == 0


def test_listed_penalties_are_sklearns_C():
    X, y, XT, loss = small()
    options = AUTO | {"penalties": [0.1, 10.0, 1.0]}
    np.testing.assert_allclose(
        penalties_of(options, 1.0, null_fit(XT, loss), 100), [0.1, 0.01, 0.001]
    )
    steps, fits = run_path(XT, loss, improving(), options, l1_ratio=1.0)
    assert [step.C for step in steps] == pytest.approx([0.1, 1.0, 10.0])
    W, _ = by_sklearn(X - X.mean(axis=0), y, 1 / (1.0 * 100), 1.0)
    np.testing.assert_allclose(fits[1].coefficients, W, atol=1e-3)


def test_all_features_constant():
    *_, loss = small()
    for p, l1_ratio in ((0, 1.0), (3, 1.0), (0, 0.0), (3, 0.0)):
        steps, fits = run_path(np.zeros((p, 100)), loss, improving(), AUTO, l1_ratio=l1_ratio)
        assert all(step.converged and step.neurons == 0 for step in steps)
        assert fits[0].coefficients.shape == (p, 3)


def test_each_step_is_the_solution_at_its_penalty():
    """Warm starts change where the solver begins, not where it ends."""
    X, y, XT, loss = small()
    for l1_ratio in (1.0, 0.0):
        steps, fits = run_path(XT, loss, improving(), AUTO, l1_ratio=l1_ratio)
        assert len(steps) == 8
        for step, fit in list(zip(steps, fits, strict=True))[1::3]:
            W, _ = by_sklearn(X - X.mean(axis=0), y, step.penalty, l1_ratio)
            np.testing.assert_allclose(fit.coefficients, W, atol=5e-3)
            assert step.nonzero == np.count_nonzero(fit.coefficients)
            assert step.neurons == fit.coefficients.any(axis=1).sum()
            assert pytest.approx(1 / (100 * step.penalty)) == step.C
            assert step.objective == fit.objective


@pytest.mark.parametrize(
    "scores, losses, length",
    [
        ([1, 2, 2, 2, 9], [5, 4, 4, 4, 4], 4),  # two without improvement: the end
        ([1, 2, 1, 1, 9], [5, 4, 5, 6, 0], 4),
        ([1, 2, 2, 2, 2, 3, 3, 3], [9, 8, 7, 6, 5, 4, 4, 4], 8),  # the loss still falls: go on
        ([1, 2, 2, 2, 2, 2, 2, 2], [9, 8, 7, 6, 6, 6, 6, 6], 5),
        ([1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 4, 5, 6, 7, 8], 8),  # the score still rises: go on
    ],
)
def test_where_an_automatic_path_ends(scores, losses, length):
    _, _, XT, loss = small()
    answers = iter([Evaluation(s, 0.0, v, 0.0) for s, v in zip(scores, losses, strict=True)])
    steps, fits = run_path(XT, loss, lambda fit: next(answers), AUTO, l1_ratio=1.0)
    assert len(steps) == len(fits) == length


def test_a_path_ends_where_train_is_learnt_by_heart():
    X, y = problem(40, 60, 2, noise=0.0)
    options = AUTO | {"path_ratio": 1e-6, "path_length": 12, "tolerance": 1e-3}
    loss = double_loss(y, 2)
    steps, _ = run_path(feature_major(X), loss, improving(), options, l1_ratio=1.0)
    assert len(steps) < 12
    null = null_fit(feature_major(X), loss).objective
    assert steps[-1].objective < 1e-3 * null <= steps[-2].objective


def test_a_stated_list_is_never_cut_short():
    _, _, XT, loss = small()
    options = AUTO | {"penalties": [0.01, 0.1, 1.0, 10.0, 100.0]}
    steps, _ = run_path(XT, loss, lambda fit: Evaluation(0.5, 0.0, 1.0, 0.0), options, l1_ratio=1.0)
    assert len(steps) == 5


def test_an_automatic_path_ends_where_it_is_too_dense():
    _, _, XT, loss = small()
    whole, _ = run_path(XT, loss, improving(), AUTO, l1_ratio=0.5)
    limit = 0.4 * 12 * 3
    counts = [step.nonzero for step in whole]
    assert counts[-1] > limit
    cut, fits = run_path(XT, loss, improving(), AUTO | {"max_density": 0.4}, l1_ratio=0.5)
    end = next(i for i, count in enumerate(counts) if count > limit)
    assert cut == whole[: end + 1]
    assert densest(fits[0].coefficients.size, {"max_density": 0.4}) == pytest.approx(limit)
    listed = AUTO | {"max_density": 0.4, "penalties": [step.C for step in whole]}
    assert len(run_path(XT, loss, improving(), listed, l1_ratio=0.5)[0]) == len(whole)


def test_non_convergence_is_kept_in_the_steps():
    _, _, XT, loss = small()
    options = AUTO | {"penalties": [100.0], "max_iterations": 1}
    for l1_ratio in (1.0, 0.0):
        step = run_path(XT, loss, improving(), options, l1_ratio=l1_ratio)[0][0]
        assert not step.converged
        assert step.gap > AUTO["tolerance"]


@pytest.mark.parametrize("l1_ratio", [1.0, 0.0])
def test_a_path_is_continued_where_that_helps(l1_ratio):
    _, _, XT, loss = small()
    _, fits = run_path(XT, loss, improving(), AUTO, l1_ratio=l1_ratio)
    assert all(fit.logits is None for fit in fits[:-3])
    before, last = fits[-2:]
    np.testing.assert_allclose(last.logits, XT.T @ last.coefficients + last.intercept, atol=1e-9)

    def objective(fit, penalty):
        l1, l2 = np.abs(fit.coefficients).sum(), (fit.coefficients**2).sum() / 2
        logits = XT.T @ fit.coefficients + fit.intercept
        return loss.value(logits) + penalty * (l1_ratio * l1 + (1 - l1_ratio) * l2)

    penalty = 0.1 * penalties_of(AUTO, l1_ratio, null_fit(XT, loss), 100)[-1]
    start = extrapolate(loss, last, before, 1.0, penalty, l1_ratio)
    assert start.gradient is None
    np.testing.assert_allclose(start.coefficients, 2 * last.coefficients - before.coefficients)
    np.testing.assert_allclose(start.logits, XT.T @ start.coefficients + start.intercept, atol=1e-9)
    assert start.objective == pytest.approx(objective(start, penalty))
    assert start.objective < objective(last, penalty)
    # Too far, or the wrong way: the last solution as it is.
    assert extrapolate(loss, last, before, 1000.0, penalty, l1_ratio) is last
    assert extrapolate(loss, last, before, -0.5, penalty, l1_ratio) is last


def step_of(score, log_loss, nonzero=1) -> Step:
    return Step(1.0, 1.0, 1.0, None, score, 0.0, log_loss, 0.0, nonzero, 1, 1.0, 0.0, 1, True)


def test_best_step():
    steps = [step_of(*pair) for pair in [(0.5, 0.1), (0.9, 0.4), (0.9, 0.3), (0.9, 0.3), (0.8, 0)]]
    assert best_step(steps) == 2
    assert best_step(steps[:2]) == 1
    assert best_step(steps[:1]) == 0


def test_a_step_with_too_many_weights_is_not_the_best():
    steps = [step_of(0.5, 0.3, 2), step_of(0.7, 0.2, 5), step_of(0.9, 0.1, 9)]
    assert best_step(steps, 9) == 2
    assert best_step(steps, 8.5) == 1
    assert best_step(steps, 4) == 0
    # One has to be it.
    assert best_step(steps[1:], 4) == 0
