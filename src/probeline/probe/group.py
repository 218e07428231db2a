"""Group-penalised logistic regression: a feature is in or out for all classes together.

Objective, with W_j the row of feature j over the K classes::

    min  f(X W + b) + lambda * ( alpha * sum_j ||W_j||_2 + (1 - alpha) / 2 * ||W||_F^2 )

(Yuan and Lin 2006; for the multinomial loss Simon, Friedman and Hastie 2013). Proximal quasi-Newton
steps: the model of `group_model` is minimised over the features in play, the optimality of all
features is checked at each step. The intercept is no part of the model: the loss is taken at the
best one for each W.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from probeline.probe.group_model import CurvatureModel, row_norms
from probeline.probe.losses import LogisticLoss
from probeline.probe.solver import (
    Fit,
    fit_l1,
    logits_of,
    optimal_intercept,
    penalty_value,
    relative_gap,
)

# Features that may join the model at once, at least.
_FEWEST = 20
# Features join from this share of the threshold on, or from the strong rule's bound if larger.
_NEAR = 0.9


def fit_group(
    XT: np.ndarray,
    loss: LogisticLoss,
    penalty: float,
    *,
    alpha: float = 1.0,
    start: Fit,
    tolerance: float = 1e-3,
    max_iterations: int = 100,
) -> Fit:
    """Solve at one lambda > 0 with 0 < alpha <= 1 by proximal quasi-Newton steps from `start`.

    With one column of logits the penalty is the L1 norm, and `fit_l1` solves it.

    Parameters
    ----------
    XT : ndarray of float, shape (p, n), C-contiguous
        Features by rows: the transpose of X, each feature centred.
    start : Fit
        Solution at a larger penalty, or `null_fit`.
    tolerance : float
        Relative duality gap to reach, measured on all p features.
    max_iterations : int
        Steps; when used up the best point is returned, marked not converged.
    """
    if start.coefficients.shape[1] == 1:
        options = {"tolerance": tolerance, "max_iterations": max_iterations}
        return fit_l1(XT, loss, penalty, alpha=alpha, start=start, **options)
    at = _start(XT, loss, start, penalty, alpha)
    model = CurvatureModel(XT, loss, at.Z, ridge=penalty * (1 - alpha))
    # Three steps in a row that gain less than a rounding of the objective end a fit, and no larger
    # gain does: the last digits of the gap come while the objective hardly moves.
    stalled, rounding = 0, float(np.finfo(XT.dtype).eps)
    for iteration in range(max_iterations + 1):
        gradient = XT @ at.residual
        gap = relative_gap(loss, at.residual, gradient, at.objective, penalty, alpha, row_norms)
        if gap <= tolerance or iteration >= max_iterations or stalled == 3:
            break
        model.learn(at.W, gradient)
        model.add(_features_in_play(at.W, gradient, penalty * alpha))
        direction = model.direction(at.W, gradient, penalty * alpha)
        new = _search(XT, loss, at, gradient, direction, penalty, alpha)
        if new is None and not model.corrected:
            # Rounding hides any further descent: the certificate says how far it got.
            break
        if new is None:
            model.forget()
            continue
        gain = at.objective - new.objective
        stalled = stalled + 1 if gain < rounding * at.objective else 0
        at = new
    converged = gap <= tolerance
    return Fit(at.W, at.b, at.objective, gap, iteration, converged, gradient, at.Z)


@dataclass
class _Point:
    """Coefficients with their best intercept, logits, loss residual (n, K) and objective."""

    W: np.ndarray
    b: np.ndarray
    Z: np.ndarray
    residual: np.ndarray
    objective: float


def _start(XT, loss, start: Fit, penalty, alpha) -> _Point:
    W, b, Z = start.coefficients, start.intercept, start.logits
    if Z is None:
        Z = logits_of(XT, W) + b
    return _point(loss, W, b, Z, penalty, alpha)


def _point(loss, W, b, Z, penalty, alpha) -> _Point:
    shift = optimal_intercept(Z, np.zeros_like(b), loss)
    Z = Z + shift
    value, residual = loss.value_and_residual(Z)
    objective = value + penalty_value(W, penalty, alpha, row_norms)
    return _Point(W, b + shift, Z, residual, objective)


def _search(XT, loss, at: _Point, gradient, direction, penalty, alpha) -> _Point | None:
    """The first point of a backtracking search that descends enough (Lee et al. 2014), or None."""
    moved = penalty_value(at.W + direction, penalty, alpha, row_norms)
    slope = float(np.vdot(gradient, direction)) + moved
    slope -= penalty_value(at.W, penalty, alpha, row_norms)
    if not slope < 0:
        return None
    Z_direction = logits_of(XT, direction)
    step = 1.0
    for _ in range(20):
        W, Z = at.W + step * direction, at.Z + step * Z_direction
        new = _point(loss, W, at.b, Z, penalty, alpha)
        if new.objective <= at.objective + 0.01 * step * slope and new.objective < at.objective:
            return new
        step /= 2
    return None


def _features_in_play(W: np.ndarray, gradient: np.ndarray, threshold: float) -> np.ndarray:
    """Non-zero rows, and zero ones the strong rule does not discard, a bounded number.

    The sequential strong rule (Tibshirani et al. 2012) discards a row whose gradient is below
    2 threshold - threshold before; the largest gradient is what the threshold was before.
    """
    used = W.any(axis=1)
    sizes = row_norms(gradient)
    bound = max(2 * threshold - float(sizes.max(initial=0.0)), _NEAR * threshold)
    sizes[used] = 0
    candidates = np.flatnonzero(sizes > bound)
    room = max(_FEWEST, int(used.sum()))
    if len(candidates) > room:
        candidates = candidates[np.argpartition(-sizes[candidates], room - 1)[:room]]
    return np.union1d(np.flatnonzero(used), candidates)
