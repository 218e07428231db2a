"""L2-penalised logistic regression: L-BFGS preconditioned by the Gram matrix.

With neighbouring neurons highly correlated, the condition of the problem is that of the Gram
matrix G = X^T X / n. Starting the L-BFGS recursion from (c G + lambda I)^-1, c the mean curvature
of the loss, takes that away: a handful of passes over X suffices (Nocedal and Wright 2006, ch. 7).
"""

from __future__ import annotations

from collections import deque

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from probeline.probe.losses import LogisticLoss
from probeline.probe.solver import Fit, _penalty_value, optimal_intercept, relative_gap

_MEMORY = 10


def fit_l2(
    XT: np.ndarray,
    loss: LogisticLoss,
    penalty: float,
    *,
    gram: np.ndarray,
    start: Fit,
    tolerance: float = 1e-3,
    max_iterations: int = 200,
) -> Fit:
    """Minimise f(X W + b) + penalty/2 ||W||^2 from `start`.

    Parameters
    ----------
    XT : ndarray of float, shape (p, n)
        Features by rows, each centred.
    gram : ndarray, shape (p, p)
        X^T X / n.
    penalty : float
        lambda > 0.

    Returns
    -------
    Fit
        `Fit.iterations` counts products with X and its transpose, in pairs.
    """
    W, b = start.coefficients.copy(), start.intercept.copy()
    Z = XT.T @ W + b
    value, residual = loss.value_and_residual(Z)
    gradient, gradient_b = XT @ residual, residual.sum(axis=0)
    precondition = _Preconditioner(loss, Z, gram, penalty)
    history: deque = deque(maxlen=_MEMORY)
    iteration = 0
    while True:
        total = gradient + penalty * W
        # The gap formula holds for a centred residual: off that it may promise too much, and
        # `_certify` has the last word.
        if np.abs(gradient_b).max() < 1e-3:
            objective = value + _penalty_value(W, penalty, 0.0)
            gap = relative_gap(loss, residual, gradient, objective, penalty, 0.0)
            if gap <= 0.5 * tolerance:
                fit = _certify(XT, loss, W, b, penalty, tolerance, iteration)
                if fit.converged or iteration >= max_iterations:
                    return fit
                # Go on from the certified intercept, where the formula is exact.
                b = fit.intercept
                Z = XT.T @ W + b
                value, residual = loss.value_and_residual(Z)
                gradient, gradient_b = fit.gradient, residual.sum(axis=0)
                total = gradient + penalty * W
        if iteration >= max_iterations:
            break
        direction, direction_b = precondition.direction(total, gradient_b, history)
        Z_direction = XT.T @ direction + direction_b
        step = _line_search(loss, Z, Z_direction, W, direction, penalty, value)
        iteration += 1
        if step == 0.0:
            if not history:
                break
            history.clear()
            continue
        dW, db = step * direction, step * direction_b
        W += dW
        b += db
        Z += step * Z_direction
        value, residual = loss.value_and_residual(Z)
        new_gradient, new_gradient_b = XT @ residual, residual.sum(axis=0)
        dg = new_gradient - gradient + penalty * dW
        dg_b = new_gradient_b - gradient_b
        curvature = float(np.vdot(dW, dg)) + float(np.vdot(db, dg_b))
        if curvature > 1e-12:
            history.append((dW, db, dg, dg_b, 1.0 / curvature))
        gradient, gradient_b = new_gradient, new_gradient_b
    return _certify(XT, loss, W, b, penalty, tolerance, iteration)


def _certify(XT, loss, W, b, penalty, tolerance, iterations) -> Fit:
    """The gap at the end, with the intercept solved for and X W computed afresh."""
    logits = XT.T @ W
    b = optimal_intercept(logits, b, loss)
    value, residual = loss.value_and_residual(logits + b)
    gradient = XT @ residual
    objective = value + _penalty_value(W, penalty, 0.0)
    gap = relative_gap(loss, residual, gradient, objective, penalty, 0.0)
    return Fit(W, b, objective, gap, iterations, gap <= tolerance, gradient)


class _Preconditioner:
    """Approximate inverse Hessian: (c G + lambda I)^-1 for W, 1 / c for b, plus L-BFGS pairs."""

    def __init__(self, loss: LogisticLoss, logits, gram, penalty):
        p = loss.probabilities(logits)
        weights = np.broadcast_to(loss.weights, p.shape)
        self.curvature = max(float((weights * p * (1 - p)).sum() / p.shape[1]), 1e-3)
        matrix = gram * gram.dtype.type(self.curvature)
        # The jitter keeps a float32 Cholesky of a rank-deficient Gram matrix from failing.
        matrix.flat[:: len(matrix) + 1] += gram.dtype.type(penalty + 1e-5 * self.curvature)
        self.factor = cho_factor(matrix, overwrite_a=True, check_finite=False)

    def direction(self, gradient, gradient_b, history):
        """Two-loop recursion; returns a descent direction (for W, for b)."""
        q, q_b = gradient.copy(), gradient_b.copy()
        coefficients = []
        for dW, db, dg, dg_b, rho in reversed(history):
            a = rho * (float(np.vdot(dW, q)) + float(np.vdot(db, q_b)))
            coefficients.append(a)
            q -= q.dtype.type(a) * dg
            q_b -= q_b.dtype.type(a) * dg_b
        r = cho_solve(self.factor, q, check_finite=False)
        r_b = q_b / self.curvature
        for (dW, db, dg, dg_b, rho), a in zip(history, reversed(coefficients), strict=True):
            beta = rho * (float(np.vdot(dg, r)) + float(np.vdot(dg_b, r_b)))
            r += r.dtype.type(a - beta) * dW
            r_b += r_b.dtype.type(a - beta) * db
        return -r, -r_b


def _line_search(loss, Z, Z_direction, W, direction, penalty, value) -> float:
    """Secant search for the zero of the slope along the direction; touches (n, K) arrays only.

    Returns the step with the lowest objective seen, 0 where none was below the start.
    """
    slope_w = penalty * float(np.vdot(W, direction))
    curvature_w = penalty * float(np.vdot(direction, direction))
    start_slope = float(np.vdot(loss.residual(Z), Z_direction)) + slope_w
    best, best_value = 0.0, value
    step, low, high = 1.0, 0.0, np.inf
    for _ in range(6):
        trial, residual = loss.value_and_residual(Z + Z.dtype.type(step) * Z_direction)
        total = trial + step * slope_w + 0.5 * step**2 * curvature_w
        slope = float(np.vdot(residual, Z_direction)) + slope_w + step * curvature_w
        if total < best_value:
            best, best_value = step, total
        if abs(slope) <= 0.2 * abs(start_slope):
            break
        low, high = (low, step) if slope > 0 else (step, high)
        step = step * start_slope / (start_slope - slope) if slope != start_slope else 2 * step
        if not low < step < high:
            step = 0.5 * (low + high) if np.isfinite(high) else 2 * low
    return best
