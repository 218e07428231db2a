"""Small L1-penalised quadratics: what a proximal Newton step solves for each class, many times."""

from __future__ import annotations

import numpy as np

_ROUNDS = 40
_BURST = 15
# A zero coordinate may break its optimality condition by this share of the threshold.
_SLACK = 1e-4


class L1Quadratic:
    """Minimise <g, u - s> + 1/2 (u - s)^T H (u - s) + threshold * ||u||_1 for several g and s.

    Alternates an exact solve on the current support with bursts of accelerated proximal gradient
    that find the support (Beck and Teboulle 2009; active sets as in Lee et al. 2006, "Efficient
    sparse coding algorithms"). Warm-started near the solution, one solve is all.

    Parameters
    ----------
    H : ndarray, shape (m, m), positive definite
    """

    def __init__(self, H: np.ndarray):
        self.scale = 1.0 / np.sqrt(np.diag(H))
        # Variables scaled to a unit diagonal: one step length then suits all.
        self.S = H * self.scale * self.scale[:, None]
        self.L = _spectral_norm(self.S)

    def solve(self, g: np.ndarray, s: np.ndarray, threshold: float, floor: float) -> np.ndarray:
        """Return the minimiser, shape (m,).

        Parameters
        ----------
        floor : float
            In scaled variables: a change below it is no change.
        """
        u = s / self.scale
        constant = g * self.scale - self.S @ u
        thresholds = threshold * self.scale
        for _ in range(_ROUNDS):
            u, exact = self._on_support(u, constant, thresholds)
            if exact and self._optimal(u, constant, thresholds):
                break
            u, change = self._burst(u, constant, thresholds)
            if change <= floor:
                break
        return u * self.scale

    def _on_support(self, u, constant, thresholds) -> tuple[np.ndarray, bool]:
        """Move to the minimum over the support with its signs, or to the first sign change."""
        support = np.flatnonzero(u)
        if len(support) == 0:
            return u, True
        now, sign = u[support], np.sign(u[support])
        right = -(constant[support] + thresholds[support] * sign)
        best = np.linalg.solve(self.S[np.ix_(support, support)], right)
        flips = best * sign <= 0
        out = np.zeros_like(u)
        if not flips.any():
            out[support] = best
            return out, True
        steps = now[flips] / (now[flips] - best[flips])
        step = steps.min()
        moved = now + step * (best - now)
        moved[np.flatnonzero(flips)[steps <= step]] = 0
        out[support] = moved
        return out, False

    def _optimal(self, u, constant, thresholds) -> bool:
        zero = u == 0
        gradient = np.abs(self.S @ u + constant)
        return bool((gradient[zero] <= thresholds[zero] * (1 + _SLACK)).all())

    def _burst(self, u, constant, thresholds) -> tuple[np.ndarray, float]:
        """A few accelerated steps; returns the point and the largest change of the last one."""
        v, momentum, first = u, 1.0, u
        most = None
        for _ in range(_BURST):
            new = v - (self.S @ v + constant) / self.L
            new = np.sign(new) * np.maximum(np.abs(new) - thresholds / self.L, 0)
            change = float(np.abs(new - v).max())
            most = most or 100 * change
            if change > most:
                # The eigenvalue was underestimated: start over with a shorter step.
                self.L *= 2
                return first, change
            if float(np.vdot(v - new, new - u)) > 0:
                momentum, v = 1.0, new
            else:
                following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
                v = new + u.dtype.type((momentum - 1) / following) * (new - u)
                momentum = following
            u = new
        return u, change


def _spectral_norm(S: np.ndarray) -> float:
    """Upper estimate of the largest eigenvalue: power iteration, bounded by the row sums."""
    v = S.sum(axis=1)
    value = 0.0
    for _ in range(20):
        norm = np.linalg.norm(v)
        if norm == 0:
            break
        v = S @ (v / norm)
        value = float(np.linalg.norm(v))
    bound = float(np.abs(S).sum(axis=0).max())
    return min(1.2 * value, bound) if value > 0 else bound
