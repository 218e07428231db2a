"""L2-penalised logistic regression: L-BFGS preconditioned by the Gram matrix.

With neighbouring neurons highly correlated, the condition of the problem is that of the Gram
matrix G = X^T X / n. Starting the L-BFGS recursion from (c G + lambda I)^-1, c the mean curvature
of the loss, takes that away: a handful of passes over X suffices (Nocedal and Wright 2006, ch. 7).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from probeline.probe.losses import LogisticLoss
from probeline.probe.solver import Fit, logits_of, optimal_intercept, penalty_value

_MEMORY = 10
# A line search ends where the slope is this share of the one at its start.
_SLOPE = 0.2
# Trials after which it takes what is lower than the start.
_TRIALS = 5


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
    state = _start(XT, loss, start)
    precondition = _Preconditioner(loss, state.Z, gram, penalty)
    history: deque = deque(maxlen=_MEMORY)
    iteration = 0
    while True:
        total = state.gradient + penalty * state.W
        # The gap is exact for a centred residual: off that it may promise too much, and the fit
        # goes on from the best intercept.
        if _gap(state, total, penalty) <= tolerance or iteration >= max_iterations:
            state = _centred(XT, loss, state)
            total = state.gradient + penalty * state.W
            gap = _gap(state, total, penalty)
            if gap <= tolerance or iteration >= max_iterations:
                break
        direction, direction_b = precondition.direction(total, state.gradient_b, history)
        Z_direction = logits_of(XT, direction) + direction_b
        new = _line_search(loss, state, total, direction, direction_b, Z_direction, penalty)
        iteration += 1
        if new is None:
            if not history:
                state = _centred(XT, loss, state)
                break
            history.clear()
            continue
        new.gradient = XT @ new.residual
        dW, db = new.W - state.W, new.b - state.b
        dg = new.gradient - state.gradient + penalty * dW
        dg_b = new.gradient_b - state.gradient_b
        curvature = float(np.vdot(dW, dg)) + float(np.vdot(db, dg_b))
        if curvature > 1e-12:
            history.append((dW, db, dg, dg_b, 1.0 / curvature))
        state = new
    total = state.gradient + penalty * state.W
    gap = _gap(state, total, penalty)
    objective = state.value + penalty_value(state.W, penalty, 0.0)
    return Fit(
        state.W, state.b, objective, gap, iteration, gap <= tolerance, state.gradient, state.Z
    )


@dataclass
class _State:
    """A point, its logits Z = X W + b, and the loss there; `gradient` is X^T residual."""

    W: np.ndarray
    b: np.ndarray
    Z: np.ndarray
    value: float
    residual: np.ndarray
    gradient: np.ndarray | None

    @property
    def gradient_b(self) -> np.ndarray:
        return self.residual.sum(axis=0)


def _start(XT, loss, start: Fit) -> _State:
    W, b, Z, gradient = start.coefficients, start.intercept, start.logits, start.gradient
    if Z is None:
        Z = logits_of(XT, W) + b
    value, residual = loss.value_and_residual(Z)
    return _State(W, b, Z, value, residual, XT @ residual if gradient is None else gradient)


def _centred(XT, loss, state: _State) -> _State:
    """The same coefficients with the best intercept."""
    shift = optimal_intercept(state.Z, np.zeros_like(state.b), loss)
    Z = state.Z + shift
    value, residual = loss.value_and_residual(Z)
    return _State(state.W, state.b + shift, Z, value, residual, XT @ residual)


def _gap(state: _State, total: np.ndarray, penalty: float) -> float:
    """Relative duality gap at a centred residual.

    The dual point is the residual itself, where f(Z) + f*(R) = <Z, R>: all that is left of the gap
    is ||X^T R + penalty W||^2 / (2 penalty).
    """
    objective = state.value + penalty_value(state.W, penalty, 0.0)
    gap = float(np.vdot(total, total)) / (2 * penalty) + abs(float(state.b @ state.gradient_b))
    return gap / max(objective, 1e-12)


class _Preconditioner:
    """Approximate inverse Hessian: (c G + lambda I)^-1 for W, 1 / c for b, plus L-BFGS pairs."""

    def __init__(self, loss: LogisticLoss, logits, gram, penalty):
        p = loss.probabilities(logits)
        weights = np.broadcast_to(loss.weights, p.shape)
        self.curvature = max(float((weights * p * (1 - p)).sum() / p.shape[1]), 1e-3)
        matrix = gram * gram.dtype.type(self.curvature)
        matrix.flat[:: len(matrix) + 1] += gram.dtype.type(penalty)
        self.factor = _factor(matrix, 1e-5 * self.curvature)

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


def _factor(matrix: np.ndarray, jitter: float):
    """Cholesky factor of a matrix that rounding may have made indefinite, by as much as needed.

    What is added to the diagonal makes a preconditioner less exact, and no result less right.
    """
    added = 0.0
    for _ in range(8):
        matrix.flat[:: len(matrix) + 1] += matrix.dtype.type(jitter - added)
        try:
            return cho_factor(matrix, check_finite=False)
        except np.linalg.LinAlgError:
            jitter, added = 10 * jitter, jitter
    raise FloatingPointError("the Gram matrix of the features holds no finite numbers")


def _line_search(loss, at: _State, total, direction, direction_b, Z_direction, penalty):
    """Secant search for the zero of the slope along the direction; touches (n, K) arrays only.

    Returns the state with the lowest objective seen, its gradient not yet known; None where none
    was below the start.
    """
    slope_w = penalty * float(np.vdot(at.W, direction))
    curvature_w = penalty * float(np.vdot(direction, direction))
    start_slope = float(np.vdot(total, direction)) + float(at.gradient_b @ direction_b)
    best, best_value = None, at.value
    step, low, high = 1.0, 0.0, np.inf
    for trial in range(20):
        Z = at.Z + at.Z.dtype.type(step) * Z_direction
        value, residual = loss.value_and_residual(Z)
        objective = value + step * slope_w + 0.5 * step**2 * curvature_w
        slope = float(np.vdot(residual, Z_direction)) + slope_w + step * curvature_w
        if objective < best_value:
            best, best_value = (step, Z, value, residual), objective
        # A slope can be small beyond the minimum too, where the loss has levelled off higher up.
        enough = abs(slope) <= _SLOPE * abs(start_slope) or trial >= _TRIALS
        if best is not None and enough:
            break
        low, high = (low, step) if slope > 0 else (step, high)
        step = step * start_slope / (start_slope - slope) if slope != start_slope else 2 * step
        if not low < step < high:
            step = 0.5 * (low + high) if np.isfinite(high) else 2 * low
    if best is None:
        return None
    step, Z, value, residual = best
    step = at.W.dtype.type(step)
    return _State(at.W + step * direction, at.b + step * direction_b, Z, value, residual, None)
