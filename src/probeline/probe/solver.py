"""Solvers of penalised logistic regression, with a certificate of how far from optimal they ended.

Objective, for X (n, p) with centred columns, coefficients W (p, K), intercept b (K,)::

    min  f(X W + b) + lambda * ( alpha * ||W||_1 + (1 - alpha) / 2 * ||W||_2^2 )

with f a `LogisticLoss` whose weights sum to one. The intercept is not penalised. In scikit-learn's
terms lambda = 1 / (C n) and alpha = l1_ratio.

* alpha > 0: proximal Newton (Lee, Sun and Saunders 2014), its model minimised in `newton`.
* alpha = 0: L-BFGS whose initial Hessian is the Gram matrix, in `smooth`.

With the sizes of the rows of W in place of ||W||_1 the solver is in `group`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from probeline.probe.losses import LogisticLoss
from probeline.probe.newton import newton_direction

# Three steps in a row that each gain less than this share of the tolerance end a fit.
_STALL = 0.001

# The norm of a penalty, as what it sums over: `np.abs`, the sizes of the weights (L1), or the sizes
# of the rows of W (group L1). The largest size of a gradient is its dual norm.
Sizes = Callable[[np.ndarray], np.ndarray]


@dataclass
class Fit:
    """A solution and its certificate.

    Attributes
    ----------
    coefficients : ndarray, shape (p, K)
    intercept : ndarray, shape (K,)
    objective : float
        Primal objective at the solution.
    gap : float
        Duality gap divided by the objective: the objective is at most this share above the optimum.
    iterations : int
        Passes over the data (one product with X and one with its transpose each).
    converged : bool
        Whether `gap` reached the tolerance.
    gradient : ndarray, shape (p, K), or None where it was not computed (a point to start from)
        Gradient of f with respect to W.
    logits : ndarray, shape (n, K), optional
        X W + b, which the next penalty starts from.
    """

    coefficients: np.ndarray
    intercept: np.ndarray
    objective: float
    gap: float
    iterations: int
    converged: bool
    gradient: np.ndarray | None
    logits: np.ndarray | None = None


def null_fit(XT: np.ndarray, loss: LogisticLoss) -> Fit:
    """Fit the intercept alone: the solution at and above the largest useful penalty."""
    n, K = loss.targets.shape
    intercept = optimal_intercept(np.zeros((n, K), XT.dtype), np.zeros(K, XT.dtype), loss)
    logits = np.broadcast_to(intercept, (n, K)).astype(XT.dtype)
    objective, residual = loss.value_and_residual(logits)
    zero = np.zeros((len(XT), K), XT.dtype)
    return Fit(zero, intercept, objective, 0.0, 0, True, XT @ residual)


def extrapolate(
    loss: LogisticLoss, last: Fit, before: Fit, by: float, penalty, alpha, *, sizes: Sizes = np.abs
) -> Fit:
    """A point to start the next penalty of a path from: the last step's change, continued.

    Solutions move almost linearly in log lambda. Where the continued point has not the lower
    objective at `penalty`, `last` is returned.

    Parameters
    ----------
    last, before : Fit, with logits
    by : float
        Length of the coming step over the last one's, in log lambda.
    sizes : callable
        What the penalty sums over, see `Sizes`.
    """
    by = last.coefficients.dtype.type(by)
    W = last.coefficients + by * (last.coefficients - before.coefficients)
    b = last.intercept + by * (last.intercept - before.intercept)
    Z = last.logits + by * (last.logits - before.logits)
    objective = loss.value(Z) + penalty_value(W, penalty, alpha, sizes)
    now = loss.value(last.logits) + penalty_value(last.coefficients, penalty, alpha, sizes)
    return Fit(W, b, objective, np.inf, 0, False, None, Z) if objective < now else last


def largest_penalty(null: Fit, alpha: float, sizes: Sizes = np.abs) -> float:
    """The smallest lambda at which W = 0 is optimal: the dual norm of X^T residual, over alpha."""
    largest = float(sizes(null.gradient).max(initial=0.0))
    return largest / max(alpha, 1e-3)


def optimal_intercept(logits: np.ndarray, intercept: np.ndarray, loss: LogisticLoss) -> np.ndarray:
    """Minimise f(logits + b) over b (K,) by damped Newton steps, starting from `intercept`."""
    b = intercept.astype(np.float64)
    value = loss.value(logits + b.astype(logits.dtype))
    # What is left of the gradient enters the duality gap times b: small against the objective too.
    enough = max(1e-7 * min(value, 1.0), 1e-10)
    # Differences of the value below this are rounding.
    noise = 4 * float(np.finfo(logits.dtype).eps)
    previous, at_rounding = np.inf, False
    for _ in range(50):
        shifted = logits + b.astype(logits.dtype)
        gradient = loss.residual(shifted).sum(axis=0, dtype=np.float64)
        size = float(np.abs(gradient).max())
        # A last step, too short to show in the value, still helps while it halves the gradient.
        if size < enough or (at_rounding and size > 0.5 * previous):
            break
        previous = size
        step = np.linalg.lstsq(_intercept_hessian(shifted, loss), gradient, rcond=1e-10)[0]
        at_rounding = float(gradient @ step) < noise * abs(value)
        # Caps a step taken where the curvature has vanished (separable targets).
        step *= min(1.0, 5.0 / max(np.abs(step).max(), 1e-12))
        scale = 1.0
        while scale > 1e-4:
            candidate = b - scale * step
            new = loss.value(logits + candidate.astype(logits.dtype))
            if new <= value + noise * abs(value):
                break
            scale /= 2
        b, value = candidate, new
        if np.abs(scale * step).max() < 1e-7:
            break
    return b.astype(intercept.dtype)


def _intercept_hessian(logits: np.ndarray, loss: LogisticLoss) -> np.ndarray:
    p = loss.probabilities(logits).astype(np.float64)
    if loss.kind == "sigmoid":
        return np.diag((loss.weights * p * (1 - p)).sum(axis=0) + 1e-12)
    # Exactly singular along (1, ..., 1), so that no step is taken there: float32 rows do not sum
    # to one, and the quotient of two roundings would be that step's length.
    p /= p.sum(axis=1, keepdims=True)
    weighted = loss.weights * p
    return np.diag(weighted.sum(axis=0)) - weighted.T @ p


def relative_gap(
    loss: LogisticLoss,
    residual: np.ndarray,
    gradient: np.ndarray,
    objective: float,
    penalty: float,
    alpha: float,
    sizes: Sizes = np.abs,
) -> float:
    """Duality gap over the objective, from the residual at a point and its gradient X^T residual.

    The dual point is the residual scaled until it is feasible (Ndiaye et al. 2017, section 2). The
    residual's columns must sum to zero, which `optimal_intercept` sees to.
    """
    norms = sizes(gradient)
    largest = float(norms.max(initial=0.0))
    if alpha >= 1.0:
        scale = min(1.0, penalty / largest) if largest > 0 else 1.0
        conjugate_of_penalty = 0.0
    else:
        scale = 1.0
        excess = np.maximum(norms - penalty * alpha, 0.0).astype(np.float64)
        conjugate_of_penalty = float((excess**2).sum()) / (2 * penalty * (1 - alpha))
    dual = -loss.conjugate(residual, scale) - conjugate_of_penalty
    return max(0.0, objective - dual) / max(objective, 1e-12)


def fit_l1(
    XT: np.ndarray,
    loss: LogisticLoss,
    penalty: float,
    *,
    alpha: float = 1.0,
    start: Fit,
    tolerance: float = 1e-3,
    max_iterations: int = 100,
) -> Fit:
    """Solve at one lambda > 0 with 0 < alpha <= 1 by proximal Newton steps from `start`.

    Parameters
    ----------
    XT : ndarray of float, shape (p, n), C-contiguous
        Features by rows: the transpose of X, each feature centred.
    start : Fit
        Solution at a larger penalty, or `null_fit`.
    tolerance : float
        Relative duality gap to reach, measured on all p features.
    max_iterations : int
        Newton steps; when used up the best point is returned, marked not converged.
    """
    W, b, Z = start.coefficients, start.intercept, start.logits
    if Z is None:
        Z = logits_of(XT, W) + b
    stalled = 0
    for iteration in range(max_iterations + 1):
        shift = optimal_intercept(Z, np.zeros_like(b), loss)
        b, Z = b + shift, Z + shift
        value, residual = loss.value_and_residual(Z)
        gradient = XT @ residual
        objective = value + penalty_value(W, penalty, alpha)
        gap = relative_gap(loss, residual, gradient, objective, penalty, alpha)
        if gap <= tolerance or iteration >= max_iterations or stalled == 3:
            break
        point = _newton_step(XT, loss, _Point(W, b, Z, objective), gradient, penalty, alpha)
        if point is None:
            # Rounding hides any further descent: the certificate says how far it got.
            break
        W, b, Z = point.W, point.b, point.Z
        small = _STALL * min(tolerance, 1.0) * objective
        stalled = stalled + 1 if objective - point.objective < small else 0
    return Fit(W, b, objective, gap, iteration, gap <= tolerance, gradient, Z)


@dataclass
class _Point:
    """Coefficients, intercept, logits X W + b and objective that belong together."""

    W: np.ndarray
    b: np.ndarray
    Z: np.ndarray
    objective: float

    def moved(self, step: float, W: np.ndarray, b: np.ndarray, Z: np.ndarray, loss, penalize):
        step = self.W.dtype.type(step)
        Z = self.Z + step * Z
        W = self.W + step * W
        return _Point(W, self.b + step * b, Z, loss.value(Z) + penalize(W))


def _newton_step(XT, loss, at: _Point, gradient, penalty, alpha) -> _Point | None:
    """One proximal Newton step with backtracking (Lee, Sun and Saunders 2014), or None."""
    direction, shift = newton_direction(XT, loss, at.Z, at.W, gradient, penalty, alpha)
    Z_direction = logits_of(XT, direction) + shift
    slope = (
        float(np.vdot(gradient, direction))
        + penalty_value(at.W + direction, penalty, alpha)
        - penalty_value(at.W, penalty, alpha)
    )
    step = 1.0
    for _ in range(20):
        new = at.moved(
            step, direction, shift, Z_direction, loss, lambda W: penalty_value(W, penalty, alpha)
        )
        if new.objective <= at.objective + 0.01 * step * slope and new.objective < at.objective:
            return new
        step /= 2
    return None


def logits_of(XT: np.ndarray, W: np.ndarray) -> np.ndarray:
    """X W, shape (n, K), reading only the features W uses.

    In memory it lies class by class, where sums over the classes of a row are fast.
    """
    used = np.flatnonzero(np.abs(W).max(axis=1))
    if len(used) == 0:
        return np.zeros((W.shape[1], XT.shape[1]), XT.dtype).T
    if len(used) > 0.7 * len(XT):
        return (W.T @ XT).T
    return (W[used].T @ XT[used]).T


def penalty_value(W: np.ndarray, penalty: float, alpha: float, sizes: Sizes = np.abs) -> float:
    norm = float(sizes(W).sum(dtype=np.float64))
    l2 = float((W.astype(np.float64) ** 2).sum())
    return penalty * (alpha * norm + (1 - alpha) / 2 * l2)
