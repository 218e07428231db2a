"""Batched probes against scikit-learn and the CPU's solvers; on torch's CPU device."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from problems import (
    by_sklearn,
    double_loss,
    indicators,
    objective,
    split_problem,
    task_of,
)
from small_project import PROBE, make_project

from probeline.errors import ProbelineError
from probeline.probe.batched import STEPS_PER_ROUND, run_batch
from probeline.probe.batched_loss import BatchedLoss
from probeline.probe.batched_stage import probe_together
from probeline.probe.batched_steps import Iterates, Penalty, descend
from probeline.probe.batched_train import batches, bytes_of_a_problem, train_together
from probeline.probe.group import fit_group
from probeline.probe.losses import make_loss
from probeline.probe.matrix import fit_scaler
from probeline.probe.path import best_step, run_path
from probeline.probe.solver import fit_l1, largest_penalty, null_fit, optimal_intercept
from probeline.probe.stage import probe_shards
from probeline.probe.store import read_probe
from probeline.probe.task import SPLITS
from probeline.probe.threshold import Evaluation
from probeline.probe.train import train_probe

CPU = torch.device("cpu")
OPTIONS = {
    "standardize": True,
    "penalty": "l1",
    "penalties": "auto",
    "path_length": 6,
    "path_ratio": 0.02,
    "l1_ratio": 1.0,
    "class_weight": None,
    "tolerance": 1e-3,
    "max_iterations": 300,
}
# kind, classes, l1_ratio, class_weight
CASES = [
    ("codes", 2, 1.0, None),
    ("codes", 2, 0.5, "balanced"),
    ("codes", 4, 1.0, None),
    ("codes", 3, 1.0, "balanced"),
    ("codes", 3, 0.4, None),
]


def several(n=100, p=20, seeds=(0, 1, 2), classes=3, noise=(1.0, 3.0, 0.3)):
    """Features (B, n, p) of problems unlike in difficulty, and codes that all of them know of."""
    rng = np.random.default_rng(7)
    y = np.arange(n) % classes
    known = np.eye(classes)[y]
    X = []
    for seed, sigma in zip(seeds, noise, strict=True):
        rng = np.random.default_rng(seed)
        values = sigma * rng.normal(size=(n, p)) + 0.5 * rng.normal(size=(n, 1))
        values[:, :5] += known @ rng.normal(size=(classes, 5))
        X.append(values * rng.uniform(0.5, 2, p) + 3 * rng.normal(size=p))
    return np.stack(X), y


def by_rows(X: np.ndarray) -> torch.Tensor:
    """Centred features (B, p, n)."""
    return torch.from_numpy(
        np.ascontiguousarray((X - X.mean(axis=1, keepdims=True)).swapaxes(1, 2))
    )


def never_content(i, W, b):
    never_content.calls += 1
    return Evaluation(never_content.calls, 0.0, 0.0, 0.0)


never_content.calls = 0


def fits_at(X, loss, C, **options):
    """Each problem's fit at one C, to the end."""
    options = OPTIONS | {"penalties": [C], "tolerance": 1e-9} | options
    order = list(range(len(X)))
    l1_ratio = options.pop("l1_ratio")
    paths = run_batch(by_rows(X), order, loss, never_content, options, l1_ratio=l1_ratio)
    return [path.fit for path in paths]


@pytest.mark.parametrize("kind, classes, l1_ratio, class_weight", CASES)
def test_equals_sklearn(kind, classes, l1_ratio, class_weight):
    X, y = several(classes=classes)
    loss = double_loss(y, classes, class_weight)
    for C in (0.1, 2.0):
        for values, fit in zip(X, fits_at(X, loss, C, l1_ratio=l1_ratio), strict=True):
            values, penalty = values - values.mean(axis=0), 1 / (C * len(y))
            W, b = by_sklearn(values, y, penalty, l1_ratio, class_weight)
            best = objective(values, loss, W, b, penalty, l1_ratio)
            found = objective(values, loss, fit.coefficients, fit.intercept, penalty, l1_ratio)
            assert found == pytest.approx(best, rel=1e-7)
            assert fit.objective == pytest.approx(found, rel=1e-9)
            # Where an even number of classes has several solutions their objectives are the same.
            if classes != 4:
                close = 1e-3 * np.abs(W).max() + 1e-6
                np.testing.assert_allclose(fit.coefficients, W, atol=close)


@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_multi_label_is_one_vs_rest(class_weight):
    X, Y = indicators(120, 4)
    loss = make_loss(Y, 4, class_weight=class_weight, dtype=np.float64)
    (fit,) = fits_at(X[None], loss, 1.0)
    for k in range(4):
        W, b = by_sklearn(X - X.mean(axis=0), Y[:, k], 1 / 120, 1.0, class_weight)
        np.testing.assert_allclose(fit.coefficients[:, [k]], W, atol=1e-3)
        np.testing.assert_allclose(fit.intercept[[k]], b, atol=1e-3)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("penalty", ["l1", "group-l1"])
@pytest.mark.parametrize("classes, l1_ratio", [(2, 1.0), (3, 1.0), (3, 0.5)])
def test_follows_the_path_of_the_cpu(classes, l1_ratio, penalty, dtype):
    X, y = several(classes=classes)
    loss = make_loss(y, classes, dtype=dtype)
    options = OPTIONS | {"penalty": penalty}
    features = by_rows(X).numpy().astype(dtype)

    def scored(i, W, b):
        """Worse and worse from some penalty on, so that paths end early, each where it does."""
        sparse = -abs(int((np.asarray(W) != 0).any(axis=1).sum()) - 4 * i)
        return Evaluation(sparse, 0.0, -sparse, 0.0)

    given = torch.from_numpy(features.copy())
    paths = run_batch(given, [0, 1, 2], loss, scored, options, l1_ratio=l1_ratio)
    lengths = set()
    for i, (path, XT) in enumerate(zip(paths, features, strict=True)):

        def score(fit, i=i):
            return scored(i, fit.coefficients, fit.intercept)

        steps, _ = run_path(XT, loss, score, options, l1_ratio=l1_ratio)
        for mine, other in zip(path.steps, steps, strict=False):
            assert mine.penalty == pytest.approx(other.penalty, rel=1e-5)
            assert pytest.approx(other.C, rel=1e-5) == mine.C
            assert mine.converged and mine.gap <= options["tolerance"]
            assert mine.objective == pytest.approx(other.objective, rel=1.1e-3)
        assert path.steps[0].neurons == 0
        chosen = path.steps[best_step(path.steps)]
        assert path.fit.objective == chosen.objective
        assert np.count_nonzero(path.fit.coefficients) == chosen.nonzero
        assert path.fit.coefficients.dtype == dtype
        lengths.add(len(path.steps))
    assert len(lengths) > 1


@pytest.mark.parametrize(
    "kind, l1_ratio, group",
    [
        ("codes", 1.0, False),
        ("codes", 0.4, False),
        ("indicators", 1.0, False),
        ("codes", 1.0, True),
    ],
)
def test_the_gap_bounds_the_suboptimality(kind, l1_ratio, group):
    """Also where rounds are too few: then it is marked."""
    X, y = several(n=80, p=30) if kind == "codes" else (None, None)
    if kind == "indicators":
        one, y = indicators(80, 3, p=30)
        X = one[None]
    loss = make_loss(y, 3, dtype=np.float64)
    features = by_rows(X).numpy()
    solve = fit_group if group else fit_l1
    penalty = 1 / (2.0 * 80)
    best = [
        solve(
            XT,
            loss,
            penalty,
            alpha=l1_ratio,
            start=null_fit(XT, loss),
            tolerance=1e-9,
            max_iterations=1000,
        ).objective
        for XT in features
    ]
    for rounds in (1, 2, 5, 300):
        options = {"max_iterations": rounds, "l1_ratio": l1_ratio}
        options["penalty"] = "group-l1" if group else "l1"
        for fit, lowest in zip(fits_at(X, loss, 2.0, **options), best, strict=True):
            assert -1e-9 <= fit.objective - lowest <= fit.gap * fit.objective + 1e-9
            assert fit.converged == (fit.gap <= 1e-9)
            assert fit.iterations <= rounds * STEPS_PER_ROUND


def test_rounds_used_up_are_not_convergence():
    X, y = several()
    loss = double_loss(y, 3)
    for fit in fits_at(X, loss, 100.0, max_iterations=1, tolerance=1e-6):
        assert not fit.converged and fit.gap > 1e-6
        assert fit.iterations == STEPS_PER_ROUND


@pytest.mark.parametrize("kind", ["codes", "indicators", "binary"])
def test_loss_and_intercept_are_the_cpus(kind):
    rng = np.random.default_rng(0)
    y = {
        "codes": np.arange(60) % 5,
        "binary": (np.arange(60) % 4 == 0).astype(int),
        "indicators": (rng.random((60, 5)) < 0.3).astype(np.uint8),
    }[kind]
    classes = 2 if kind == "binary" else 5
    for class_weight in (None, "balanced"):
        loss = make_loss(y, classes, class_weight=class_weight, dtype=np.float64)
        batched = BatchedLoss(loss, CPU, torch.float64)
        # Of the size of rounding, of one, and so large that rows are sure of their class.
        Z = np.stack([s * rng.normal(size=loss.targets.shape) for s in (0.01, 1.0, 30.0)])
        given = torch.from_numpy(Z.swapaxes(1, 2).copy())
        values = [loss.value(z) for z in Z]
        np.testing.assert_allclose(batched.value(given), values, rtol=1e-10)
        best = batched.at_best_intercept(given)
        for z, shift, value, residual in zip(Z, best.shift, best.value, best.residual, strict=True):
            b = optimal_intercept(z, np.zeros(z.shape[1]), loss)
            assert float(value) == pytest.approx(loss.value(z + b), rel=1e-7)
            np.testing.assert_allclose(residual.T, loss.residual(z + shift.numpy()), atol=1e-12)
            assert np.abs(residual.numpy().sum(axis=1)).max() < 1e-6
        for scale in (1.0, 0.3):
            told = batched.conjugate(best.residual, torch.full((3,), scale, dtype=torch.float64))
            expected = [loss.conjugate(r.numpy().T, scale) for r in best.residual]
            np.testing.assert_allclose(told, expected, rtol=1e-10)


@pytest.mark.parametrize("kind", ["codes", "indicators"])
def test_steps_ask_nothing_of_the_host(kind):
    """On torch's device without memory whatever needs a value, or one from elsewhere, fails."""
    nowhere = torch.device("meta")
    y = np.arange(40) % 5 if kind == "codes" else np.eye(5, dtype=np.uint8)[np.arange(40) % 5]
    loss = BatchedLoss(make_loss(y, 5, class_weight="balanced"), nowhere, torch.float32)
    W, b, Z, one = (
        torch.empty(3, *shape, device=nowhere) for shape in ((20, 5), (5,), (5, 40), ())
    )
    at = Iterates(W, W, b, b, Z, Z, one, one, one)
    X = torch.empty(3, 20, 40, device=nowhere)
    for alpha, group in ((1.0, False), (0.5, True)):
        found = descend(X, loss, at, Penalty(one, alpha, group), 3)
        assert found.W.shape == (3, 20, 5) and found.W.device == nowhere


# Probes


def together(X, task, **options):
    return train_together(X, task, OPTIONS | options, CPU)


def shared_problems(classes=3, sizes=(120, 60, 60), **options):
    """Several problems of one task, as `split_problem` makes one."""
    X, y = several(sum(sizes), classes=classes, **options)
    cuts = np.cumsum(sizes)[:-1]
    task = task_of(dict(zip(SPLITS, np.split(y, cuts), strict=True)), classes)
    parts = [np.split(values.astype(np.float32), cuts) for values in X]
    return [dict(zip(SPLITS, part, strict=True)) for part in parts], task


def assert_same(ours, theirs, X, task, tolerance=2e-3):
    """The same penalties, and the objectives of both within the tolerance."""
    np.testing.assert_allclose(ours.scaler.mean, theirs.scaler.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ours.scaler.scale, theirs.scaler.scale, rtol=1e-5)
    np.testing.assert_array_equal(ours.scaler.kept, theirs.scaler.kept)
    assert ours.coefficients.shape == theirs.coefficients.shape
    assert ours.coefficients.dtype == ours.intercept.dtype == np.float32
    for mine, other in zip(ours.steps, theirs.steps, strict=False):
        assert mine.penalty == pytest.approx(other.penalty, rel=1e-3)
        assert mine.objective == pytest.approx(other.objective, rel=tolerance)
        assert mine.class_weight == other.class_weight
        assert mine.converged == other.converged
    assert ours.step.score == ours.validation_score
    assert ours.validation_score == task.score("validation", ours.logits(X["validation"]))
    assert ours.test_score == task.score("test", ours.logits(X["test"]))


def test_problems_of_different_difficulty():
    """With constant features, one that is separable, and one that has nothing to say."""
    X, task = shared_problems(seeds=(0, 1, 2, 3), noise=(1.0, 4.0, 0.02, 1.0))
    for values in X[0].values():
        values[:, [0, 5]] = 2.5
    for values in X[3].values():
        values[:] = 1.0
    probes = together(X, task, path_ratio=1e-3, path_length=8)
    for values, probe in zip(X, probes, strict=True):
        theirs = train_probe(values, task, OPTIONS | {"path_ratio": 1e-3, "path_length": 8})
        assert_same(probe, theirs, values, task)
        assert abs(probe.validation_score - theirs.validation_score) < 0.06
    assert not probes[0].coefficients[[0, 5]].any() and probes[0].coefficients.any()
    assert probes[2].validation_score == 1.0
    assert not probes[3].coefficients.any() and len(probes[3].steps) == 1


def test_probes_have_no_more_weights_than_asked():
    X, task = shared_problems()
    options = {"path_ratio": 1e-3, "path_length": 8, "max_density": 0.4, "tolerance": 1e-5}
    for problem in X:
        for values in problem.values():
            values[:, [0, 7, 8]] = 2.5  # constant features count on neither side
    most, cut = 0.4 * 17 * 3, 0
    for values, probe in zip(X, together(X, task, **options), strict=True):
        theirs = train_probe(values, task, OPTIONS | options)
        counts = [step.nonzero for step in probe.steps]
        cut += counts[-1] > most
        assert max(counts[:-1]) <= most
        assert len(counts) == len(theirs.steps)
        assert probe.chosen == theirs.chosen
        assert 0 < np.count_nonzero(probe.coefficients) <= most
    assert cut


def test_listed_penalties_and_both_class_weights():
    X, task = shared_problems(classes=4)
    options = {"penalties": [0.01, 0.1, 1.0], "class_weight": [None, "balanced"]}
    for values, probe in zip(X, together(X, task, **options), strict=True):
        theirs = train_probe(values, task, OPTIONS | options)
        assert len(probe.steps) == len(theirs.steps) == 6
        assert_same(probe, theirs, values, task)


def test_the_scale_is_a_choice():
    X, task = shared_problems()
    probes = together(X, task, standardize=False)
    for values, probe in zip(X, probes, strict=True):
        assert_same(
            probe, train_probe(values, task, OPTIONS | {"standardize": False}), values, task
        )
        assert (probe.scaler.scale == 1).all()


def test_multi_label_probes():
    X, Y = indicators(240, 3)
    task = task_of({"train": Y[:120], "validation": Y[120:180], "test": Y[180:]}, metric="macro-f1")
    parts = dict(zip(SPLITS, np.split(X.astype(np.float32), [120, 180]), strict=True))
    options = {"class_weight": "auto"}
    (probe,) = together([parts], task, **options)
    assert {step.class_weight for step in probe.steps} == {None, "balanced"}
    assert_same(probe, train_probe(parts, task, OPTIONS | options), parts, task)
    assert probe.test_score > 0.6


def test_the_order_and_the_company_do_not_matter():
    X, task = shared_problems(seeds=(0, 1, 2, 3, 4), noise=(0.1, 3.0, 1.0, 0.3, 2.0))
    whole = together(X, task)
    turned = together(X[::-1], task)[::-1]
    alone = [together([values], task)[0] for values in X]
    for first, second, third in zip(whole, turned, alone, strict=True):
        for other in (second, third):
            assert len(other.steps) == len(first.steps) and other.chosen == first.chosen
            np.testing.assert_allclose(other.coefficients, first.coefficients, atol=1e-3)
            assert other.step.objective == pytest.approx(first.step.objective, rel=1e-4)


def test_few_features_are_gathered():
    """Wide enough that a path works with a part of the features."""
    X, task = shared_problems(p=300, noise=(1.0, 1.0, 1.0))
    for values, probe in zip(X, together(X, task, path_ratio=0.2), strict=True):
        assert 0 < probe.step.neurons < 150
        theirs = train_probe(values, task, OPTIONS | {"path_ratio": 0.2})
        assert_same(probe, theirs, values, task)


def test_largest_penalty_is_the_threshold():
    X, y = several()
    loss = double_loss(y, 3)
    features = by_rows(X)
    largest = [largest_penalty(null_fit(XT.numpy(), loss), 1.0) for XT in features]
    paths = run_batch(features, [0, 1, 2], loss, never_content, OPTIONS, l1_ratio=1.0)
    for path, penalty in zip(paths, largest, strict=True):
        assert path.steps[0].penalty == pytest.approx(penalty)
        assert path.steps[0].nonzero == path.steps[0].iterations == 0
        assert path.steps[1].nonzero > 0


# Memory


def test_batches_are_of_one_width_and_of_bounded_size():
    _, task = split_problem()
    one = bytes_of_a_problem(20, task)
    widths = [20, 8, 20, 20, 8, 20, 20]
    assert batches(widths, task, 100 * one) == [[0, 2, 3, 5, 6], [1, 4]]
    found = batches(widths, task, 8 * 20 * 120 + 3 * one)
    assert found == [[0, 2, 3], [5, 6], [1, 4]]
    assert batches(widths, task, 1) == [[0], [2], [3], [5], [6], [1], [4]]


def test_a_problem_counts_what_it_holds():
    """More rows, neurons or labels take more; one column of logits less than two."""
    X, task = split_problem()
    sizes = [bytes_of_a_problem(width, task) for width in (10, 20)]
    assert sizes[0] < sizes[1]
    assert sizes[1] > X["train"].nbytes + X["validation"].nbytes
    _, binary = split_problem(classes=2)
    assert bytes_of_a_problem(20, binary) < sizes[1]


def test_one_batch_has_one_width():
    X, task = shared_problems()
    X[1] = {split: values[:, :10] for split, values in X[1].items()}
    with pytest.raises(ValueError, match="20 and 10 wide"):
        together(X, task)


# The stage


@pytest.fixture(scope="module", params=["binary", "multiclass", "multilabel"])
def project(request, tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("project"), request.param)


def outputs(project, folder) -> list[Path]:
    return [folder / Path(probe).name for probe in project.probes]


def test_files_are_those_of_the_cpu(project, tmp_path):
    together, apart = outputs(project, tmp_path / "a"), outputs(project, tmp_path / "b")
    place = (project.data, "label", PROBE)
    probe_together(project.shards, together, *place, device=CPU)
    # One problem at a time.
    probe_together(project.shards, apart, *place, device=CPU, memory=1)
    for one, other, path in zip(together, apart, project.probes, strict=True):
        (probe, meta), (alone, _), (theirs, expected) = map(read_probe, (one, other, path))
        C = [[step.C for step in each.steps] for each in (probe, alone)]
        np.testing.assert_allclose(*C, rtol=1e-5)
        assert probe.step.objective == pytest.approx(alone.step.objective, rel=1e-3)
        assert set(meta) == set(expected)
        moving = {"seconds", "chosen", "validation_score", "test_score", "gap"}
        assert {k: v for k, v in meta.items() if k not in moving} == {
            k: v for k, v in expected.items() if k not in moving
        }
        assert meta["seconds"] > 0 and meta["device"] == "cpu"
        for mine, step in zip(probe.steps, theirs.steps, strict=False):
            assert mine.penalty == pytest.approx(step.penalty, rel=1e-3)
            assert mine.objective == pytest.approx(step.objective, rel=2e-4)
        assert probe.validation_score == pytest.approx(theirs.validation_score, abs=0.05)


def test_a_shard_that_is_missing_is_named(project, tmp_path):
    with pytest.raises(ProbelineError, match=r"ffn.last.01.h5: there is no shard of this name"):
        probe_together(
            project.shards, [tmp_path / "ffn.last.01.h5"], project.data, "label", PROBE, device=CPU
        )


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_without_cuda_one_line_says_what_to_do(project, tmp_path):
    options = PROBE | {"device": "cuda"}
    with pytest.raises(ProbelineError, match=r"probe\.device: cuda .* set probe\.device: cpu") as e:
        probe_shards(project.shards, outputs(project, tmp_path), project.data, "label", options)
    assert "\n" not in str(e.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA")
def test_on_cuda(project, tmp_path):
    found = outputs(project, tmp_path)
    probe_shards(project.shards, found, project.data, "label", PROBE | {"device": "cuda"})
    for path, expected in zip(found, project.probes, strict=True):
        (probe, meta), (theirs, _) = read_probe(path), read_probe(expected)
        assert meta["device"] == "cuda"
        for mine, step in zip(probe.steps, theirs.steps, strict=False):
            assert mine.penalty == pytest.approx(step.penalty, rel=1e-3)
            assert mine.objective == pytest.approx(step.objective, rel=2e-4)


def test_probes_on_the_cpu_import_no_torch():
    code = """
import json, sys
import probeline.probe.stage
print(json.dumps([name for name in ("torch", "transformers") if name in sys.modules]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_the_scaler_is_the_cpus():
    X, task = shared_problems()
    (probe,) = together(X[:1], task, penalties=[0.1])
    expected = fit_scaler(X[0]["train"])
    np.testing.assert_allclose(probe.scaler.mean, expected.mean, rtol=1e-6)
    np.testing.assert_allclose(probe.scaler.scale, expected.scale, rtol=1e-6)
