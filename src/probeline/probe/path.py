"""A path of penalties, warm-started from the largest down, one solution chosen on validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from probeline.probe.group import fit_group
from probeline.probe.group_model import row_norms
from probeline.probe.losses import LogisticLoss
from probeline.probe.smooth import fit_l2
from probeline.probe.solver import Fit, Sizes, extrapolate, fit_l1, largest_penalty, null_fit
from probeline.probe.task import TaskData
from probeline.probe.threshold import Evaluation
from probeline.probe.threshold import evaluate as evaluate_logits

# The `penalty` of the options: what its norm sums over, and its solver.
_SPARSE = {"l1": (np.abs, fit_l1), "group-l1": (row_norms, fit_group)}
# L2 has no penalty at which the solution becomes zero; with standardised features, this one lies
# above every useful one.
_LARGEST_L2 = 1.0
# A path ends when validation has not improved over this many penalties...
_PATIENCE = 2
# ...or the training loss is this share of the null model's.
_SATURATED = 1e-3


@dataclass(frozen=True)
class Step:
    """One penalty of a path.

    Attributes
    ----------
    penalty : float
        lambda of the objective (see `probeline.probe.solver`).
    C : float
        The same in scikit-learn's terms: 1 / (lambda n).
    score, error, log_loss : float
        On validation; `error` is the standard error of the score.
    threshold : float
        Logit above which a label is predicted (multi-label; 0 otherwise), chosen on validation.
    nonzero : int
        Non-zero weights.
    neurons : int
        Features with a non-zero weight for any class.
    """

    penalty: float
    C: float
    l1_ratio: float
    class_weight: str | None
    score: float
    error: float
    log_loss: float
    threshold: float
    nonzero: int
    neurons: int
    objective: float
    gap: float
    iterations: int
    converged: bool


Evaluate = Callable[[Fit], Evaluation]


def penalties_of(
    options: Mapping, l1_ratio: float, null: Fit, n: int, sizes: Sizes = np.abs
) -> np.ndarray:
    """Resolve `penalties`: 'auto' or scikit-learn C values, as lambdas from the largest down."""
    if options["penalties"] != "auto":
        return np.sort([1.0 / (C * n) for C in options["penalties"]])[::-1]
    largest = largest_penalty(null, l1_ratio, sizes) if l1_ratio > 0 else _LARGEST_L2
    if largest == 0.0:
        # Every feature is constant: the null model is the solution at any penalty.
        return np.ones(1)
    return largest * np.geomspace(1.0, options["path_ratio"], options["path_length"])


def run_path(
    XT: np.ndarray,
    loss: LogisticLoss,
    evaluate: Evaluate,
    options: Mapping,
    *,
    l1_ratio: float,
    class_weight: str | None = None,
    gram: np.ndarray | None = None,
) -> tuple[list[Step], list[Fit]]:
    """Fit every penalty until validation stops improving.

    Parameters
    ----------
    XT : ndarray of float32, shape (p, n)
        Centred features by rows (`Scaler.apply` of the training rows).
    evaluate : callable
        Fit -> `Evaluation` on validation.
    options : mapping
        penalties, path_length, path_ratio, tolerance, max_iterations, and optionally penalty:
        'l1' (the default) or 'group-l1', the norm that `l1_ratio` is a share of; and max_density,
        the share of non-zero weights beyond which an automatic path ends.
    gram : ndarray, shape (p, p), optional
        XT XT^T / n, for l1_ratio = 0; computed when missing.

    Returns
    -------
    steps, fits
        In path order. A stated list of C values is never cut short.
    """
    n = XT.shape[1]
    null = null_fit(XT, loss)
    steps, fits, fit = [], [], null
    best, since_best = -np.inf, 0
    sizes, solve = _method(XT, options, l1_ratio, gram)
    solver = {"tolerance": options["tolerance"], "max_iterations": options["max_iterations"]}
    for penalty in penalties_of(options, l1_ratio, null, n, sizes):
        start = _start(loss, steps, fits, fit, penalty, l1_ratio, sizes)
        fit = solve(XT, loss, float(penalty), start=start, **solver)
        steps.append(step_of(fit, float(penalty), n, l1_ratio, class_weight, evaluate(fit)))
        fits.append(fit)
        improved = steps[-1].score > best
        best, since_best = max(best, steps[-1].score), 0 if improved else since_best + 1
        most = densest(fit.coefficients.size, options)
        if options["penalties"] == "auto" and may_stop(steps, since_best, null.objective, most):
            break
    return steps, fits


def run_paths(
    XT: np.ndarray,
    validation: np.ndarray,
    task: TaskData,
    options: Mapping,
    *,
    l1_ratios: Sequence[float],
    gram: np.ndarray | None = None,
) -> tuple[list[Step], list[Fit]]:
    """Run a path for every class weight of the options and every L1 ratio.

    Parameters
    ----------
    XT, validation : ndarray of float32, shapes (p, n) and (p, m)
        Scaled features of the training and the validation rows, by rows.
    options : mapping
        As for `run_path`, with `class_weight`.
    gram : ndarray, shape (p, p), optional
        As for `run_path`.

    Returns
    -------
    steps, fits
        Path after path.
    """
    steps, fits = [], []
    for class_weight in task.class_weights(options["class_weight"]):
        loss = task.loss(class_weight)
        for l1_ratio in l1_ratios:
            path = run_path(
                XT,
                loss,
                lambda fit: evaluate_logits(task, validation.T @ fit.coefficients + fit.intercept),
                options,
                l1_ratio=l1_ratio,
                class_weight=class_weight,
                gram=gram,
            )
            steps += path[0]
            fits += path[1]
    return steps, fits


def _method(XT, options: Mapping, l1_ratio: float, gram) -> tuple[Sizes, Callable[..., Fit]]:
    """What the penalty's norm sums over, and the solver."""
    sizes, fit = _SPARSE[options.get("penalty", "l1")]
    if l1_ratio > 0:
        return sizes, partial(fit, alpha=l1_ratio)
    if gram is None:
        gram = XT @ XT.T / XT.dtype.type(XT.shape[1])
    return sizes, partial(fit_l2, gram=gram)


def _start(loss, steps: list[Step], fits: list[Fit], fit: Fit, penalty, l1_ratio, sizes) -> Fit:
    if len(fits) < 2:
        return fit
    # Two fits back is as far as any start looks: the logits of older ones are let go.
    for old in fits[:-2]:
        old.logits = None
    last, before = steps[-1].penalty, steps[-2].penalty
    by = np.log(penalty / last) / np.log(last / before)
    return extrapolate(loss, fits[-1], fits[-2], by, float(penalty), l1_ratio, sizes=sizes)


def may_stop(steps: list[Step], since_best: int, null: float, most: float = np.inf) -> bool:
    """Whether an automatic path ends here, `since_best` penalties after its best score.

    `null` is the objective without weights, `most` the number of them that is not to be exceeded.
    """
    # While the log loss still falls the score may only be pausing.
    falling = len(steps) > 1 and steps[-1].log_loss < steps[-2].log_loss
    saturated = steps[-1].objective < _SATURATED * null
    too_dense = steps[-1].nonzero > most
    return too_dense or saturated or (since_best >= _PATIENCE and not falling)


def step_of(
    fit: Fit,
    penalty: float,
    n: int,
    l1_ratio: float,
    class_weight: str | None,
    evaluation: Evaluation,
) -> Step:
    """The entry of a path for a fit of n rows."""
    used = fit.coefficients != 0
    return Step(
        penalty=penalty,
        C=1.0 / (penalty * n),
        l1_ratio=l1_ratio,
        class_weight=class_weight,
        score=evaluation.score,
        error=evaluation.error,
        log_loss=evaluation.log_loss,
        threshold=evaluation.threshold,
        nonzero=int(used.sum()),
        neurons=int(used.any(axis=1).sum()),
        objective=fit.objective,
        gap=fit.gap,
        iterations=fit.iterations,
        converged=fit.converged,
    )


def densest(weights: int, options: Mapping) -> float:
    """How many of so many weights may be non-zero: `max_density` of the options, else all."""
    return options.get("max_density", 1.0) * weights


def best_step(steps: list[Step], most: float = np.inf) -> int:
    """Index of the best validation score; of equal ones the lowest log loss, then the first.

    Only steps with at most `most` non-zero weights count; where there is none, the sparsest is it.
    """
    most = max(most, min(step.nonzero for step in steps))
    allowed = [i for i, step in enumerate(steps) if step.nonzero <= most]
    return min(allowed, key=lambda i: (-steps[i].score, steps[i].log_loss, i))
