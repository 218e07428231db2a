"""Small L1-penalised quadratics: what a proximal Newton step solves for each class, many times."""

from __future__ import annotations

import numpy as np
from scipy.linalg import get_lapack_funcs

_ROUNDS = 40
_BURST = 50
_LONGEST_BURST = 400
# A zero coordinate may break its optimality condition by this share of the threshold.
_SLACK = 1e-4


class L1Quadratic:
    """Minimise <g, u - s> + 1/2 (u - s)^T H (u - s) + threshold * ||u||_1 for several g and s.

    Alternates exact solves on the current support with bursts of accelerated proximal gradient that
    find the support (Beck and Teboulle 2009, restarted as in O'Donoghue and Candes 2015). Warm-
    started near the solution, one solve is all; far from it the bursts do the work, and a solve
    that would raise the model tells that the next burst should be longer.

    Parameters
    ----------
    H : ndarray, shape (m, m), positive definite
    """

    def __init__(self, H: np.ndarray):
        self.scale = 1.0 / np.sqrt(np.diag(H))
        # Variables scaled to a unit diagonal: one step length then suits all.
        self.S = H * self.scale * self.scale[:, None]
        self.L = _spectral_norm(self.S)

    def solve(
        self,
        g: np.ndarray,
        s: np.ndarray,
        threshold: float,
        *,
        share: float = 0.0,
        enough: float = 0.0,
    ) -> tuple[np.ndarray, float]:
        """Return the minimiser, shape (m,), and by how much it lowers the model.

        Parameters
        ----------
        share, enough : float
            A round of solve and burst that lowers the model by at most `share` of what all rounds
            did, or by at most `enough`, is the last.
        """
        u = s / self.scale
        constant = g * self.scale - self.S @ u
        thresholds = threshold * self.scale
        start = before = self._value(u, constant, thresholds)
        length = _BURST
        for _ in range(_ROUNDS):
            u, value, solved = self._on_support(u, before, constant, thresholds)
            if solved == "optimal":
                break
            moved = self._burst(u, constant, thresholds, length)
            at_moved = self._value(moved, constant, thresholds)
            # Accelerated steps may end higher than they began.
            if at_moved < value:
                u, value = moved, at_moved
            gain, before = before - value, value
            limit = max(share * (start - value), enough)
            if gain <= limit and (limit > 0 or length == _LONGEST_BURST):
                break
            if solved == "refused" or gain <= 0:
                length = min(2 * length, _LONGEST_BURST)
        return u * self.scale, start - value

    def _value(self, u, constant, thresholds) -> float:
        return float(0.5 * (u @ (self.S @ u)) + constant @ u + thresholds @ np.abs(u))

    def _on_support(self, u, value, constant, thresholds) -> tuple[np.ndarray, float, str]:
        """Move to the minimum over the support with its signs, coordinates that would change sign
        set to zero; where that does not lower the model, to the first sign change only.

        Returns the point, its value, and 'optimal' (of the whole model), 'taken' or 'refused'.
        """
        support = np.flatnonzero(u)
        new = np.zeros_like(u)
        flips = False
        if len(support):
            now, sign = u[support], np.sign(u[support])
            right = -(constant[support] + thresholds[support] * sign)
            best = _solve_positive(self.S[np.ix_(support, support)], right)
            flipped = best * sign <= 0
            flips = flipped.any()
            new[support] = np.where(flipped, 0, best)
        gradient = self.S @ new + constant
        at_new = float(0.5 * (new @ (gradient + constant)) + thresholds @ np.abs(new))
        if flips and at_new < value:
            return new, at_new, "taken"
        if flips:
            steps = np.where(flipped, now / np.where(flipped, now - best, 1), np.inf)
            step = steps.min()
            new[support] = np.where(steps <= step, 0, now + step * (best - now))
            at_new = self._value(new, constant, thresholds)
            return (new, at_new, "refused") if at_new < value else (u, value, "refused")
        zero = new == 0
        inside = np.abs(gradient[zero]) <= thresholds[zero] * (1 + _SLACK)
        return new, at_new, "optimal" if inside.all() else "taken"

    def _burst(self, u, constant, thresholds, length) -> np.ndarray:
        """Accelerated proximal gradient steps."""
        v, momentum, first = u, 1.0, u
        most = None
        short = thresholds / self.L
        for _ in range(length):
            moved = v - (self.S @ v + constant) / self.L
            new = moved - np.clip(moved, -short, short)
            back = v - new
            change = float(np.abs(back).max())
            most = most or 100 * change
            if change > most:
                # The eigenvalue was underestimated: start over with a shorter step.
                self.L *= 2
                short = thresholds / self.L
                u, v, momentum, most = first, first, 1.0, None
                continue
            if float(back @ (new - u)) > 0:
                momentum, v = 1.0, new
            else:
                following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
                v = new + u.dtype.type((momentum - 1) / following) * (new - u)
                momentum = following
            u = new
        return u


def _solve_positive(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Solve A x = b by Cholesky; by LU where rounding has made A indefinite."""
    (posv,) = get_lapack_funcs(("posv",), (A, b))
    _, x, failed = posv(A, b)
    return np.linalg.solve(A, b) if failed else x


def _spectral_norm(S: np.ndarray) -> float:
    """Upper estimate of the largest eigenvalue: power iteration, bounded by the row sums."""
    sizes = np.abs(S).sum(axis=0)
    # Not the sum of the columns: that may be an eigenvector, and of the smallest eigenvalue.
    v = S[:, sizes.argmax()]
    value = 0.0
    for _ in range(20):
        norm = np.linalg.norm(v)
        if norm == 0:
            break
        v = S @ (v / norm)
        value = float(np.linalg.norm(v))
    bound = float(sizes.max())
    return min(1.2 * value, bound) if value > 0 else bound
