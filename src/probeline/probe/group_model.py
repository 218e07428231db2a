"""The second-order model of a group-penalised problem, and its minimiser.

The Hessian of the loss is taken as c G (x) I_K, the same for all classes, corrected by L-BFGS pairs
in compact form (Byrd, Nocedal and Schnabel 1994). G is the Gram matrix of the features in play,
rows weighted by their share of the curvature. The products are those of (m, m) and (m, K) matrices.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from probeline.probe.losses import LogisticLoss

_MEMORY = 10
# c over the classes' mean curvature: too little costs halved steps, too much short ones.
_OVERESTIMATE = 1.5
# Accelerated steps on the model end when a change is this share of the first one, or here.
_SHARE = 0.1
_STEPS = 200


def row_norms(W: np.ndarray) -> np.ndarray:
    """||W_j||_2 of each row, shape (p,): what the group penalty sums over."""
    return np.sqrt(np.einsum("jk,jk->j", W, W))


class CurvatureModel:
    """Curvature of the loss around the start of a fit, on features that join as they are needed.

    Parameters
    ----------
    XT : ndarray, shape (p, n)
    Z : ndarray, shape (n, K)
        Logits at the start: they weigh the rows of G.
    ridge : float
        Curvature of the penalty.
    """

    def __init__(self, XT: np.ndarray, loss: LogisticLoss, Z: np.ndarray, *, ridge: float):
        self._XT, self._ridge = XT, ridge
        P = loss.probabilities(Z)
        curvature = (loss.weights * P * (1 - P)).mean(axis=1)
        # No row is without weight: one that is certain here need not stay so.
        curvature += 1e-3 * curvature.mean() + 1e-9 / len(Z)
        self._curvature = curvature * _OVERESTIMATE
        self._features = np.empty(0, np.intp)
        self._joined = np.zeros(len(XT), bool)
        self._rows = np.empty((0, XT.shape[1]), XT.dtype)
        self._G = np.empty((0, 0), XT.dtype)
        self._pairs: deque = deque(maxlen=_MEMORY)
        self._last: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def corrected(self) -> bool:
        """Whether the model has learnt anything that `forget` would take from it."""
        return len(self._pairs) > 0

    def forget(self) -> None:
        self._pairs.clear()

    def learn(self, W: np.ndarray, gradient: np.ndarray) -> None:
        """Learn the curvature along the step from the last point told, (p, K) arrays."""
        if self._last is not None:
            S, Y = W - self._last[0], gradient - self._last[1]
            curvature = float(np.vdot(S, Y))
            if curvature > 1e-6 * float(np.linalg.norm(S)) * float(np.linalg.norm(Y)):
                unit = curvature**-0.5
                self._pairs.append((unit * S, unit * Y))
        self._last = W, gradient

    def add(self, features: np.ndarray) -> None:
        """Let features join; those that have joined before may be among them."""
        new = features[~self._joined[features]]
        if len(new) == 0:
            return
        A, c = self._XT[new], self._curvature
        # Centred by the curvature: the intercept follows the coefficients.
        A -= (A @ c / c.sum())[:, None]
        A *= np.sqrt(c)
        m = len(self._features)
        self._features = np.concatenate([self._features, new])
        self._joined[new] = True
        self._rows = np.concatenate([self._rows, A])
        G = np.empty((len(self._rows),) * 2, A.dtype)
        G[:m, :m] = self._G
        G[m:] = A @ self._rows.T
        G[:m, m:] = G[m:, :m].T
        self._G = G

    def direction(self, W: np.ndarray, gradient: np.ndarray, threshold: float) -> np.ndarray:
        """Minimise the penalised model over the features that joined: the step from W, (p, K)."""
        f = self._features
        H = self._G.copy()
        jitter = 1e-5 * float(np.trace(H)) / max(len(H), 1) + 1e-9
        H.flat[:: len(H) + 1] += H.dtype.type(self._ridge + jitter)
        pairs = [(S[f], Y[f] + self._ridge * S[f]) for S, Y in self._pairs]
        quadratic = GroupQuadratic(H, pairs)
        step = np.zeros_like(W)
        step[f] = quadratic.solve(gradient[f] + self._ridge * W[f], W[f], threshold) - W[f]
        return step


class GroupQuadratic:
    """Minimise <g, u - s> + 1/2 <u - s, B (u - s)> + threshold * sum_j ||u_j||_2, u of (m, K).

    B is H (x) I_K, corrected as BFGS does for each of the pairs: B S = Y for the last one.

    Parameters
    ----------
    H : ndarray, shape (m, m), positive definite
    pairs : list of (S, Y)
        Steps and changes of the gradient, each (m, K), with <S, Y> > 0.
    """

    def __init__(self, H: np.ndarray, pairs: list):
        # Variables scaled to a unit diagonal of H: one step length then suits all.
        self._scale = (1.0 / np.sqrt(np.diag(H)))[:, None]
        self._H = H * self._scale * self._scale.T
        self._outer = self._middle = None
        if pairs:
            self._correct(pairs)

    def _correct(self, pairs: list) -> None:
        S = np.stack([s / self._scale for s, _ in pairs])
        Y = np.stack([y * self._scale for _, y in pairs])
        r = len(pairs)
        HS = (self._H @ S).reshape(r, -1)
        S, Y = S.reshape(r, -1), Y.reshape(r, -1)
        SY = (S @ Y.T).astype(np.float64)
        lower = np.tril(SY, -1)
        middle = np.block([[S @ HS.T, lower], [lower.T, -np.diag(np.diag(SY))]])
        self._outer = np.concatenate([HS, Y])
        # Two pairs may be nearly the same.
        self._middle = np.linalg.pinv(middle, rcond=1e-10).astype(S.dtype)

    def _product(self, d: np.ndarray) -> np.ndarray:
        out = self._H @ d
        if self._outer is not None:
            out -= ((self._middle @ (self._outer @ d.ravel())) @ self._outer).reshape(d.shape)
        return out

    def _largest_eigenvalue(self, x: np.ndarray) -> float:
        """A few power iterations from x; `solve` makes up for an underestimate."""
        value = 0.0
        for _ in range(6):
            norm = float(np.linalg.norm(x))
            if norm == 0:
                break
            x = self._product(x / norm)
            value = float(np.linalg.norm(x))
        return max(1.1 * value, 1e-6)

    def solve(
        self, g: np.ndarray, s: np.ndarray, threshold: float, *, share: float = _SHARE
    ) -> np.ndarray:
        """Accelerated proximal gradient from s, restarted (O'Donoghue and Candes 2015): u (m, K).

        Parameters
        ----------
        share : float
            It ends when a step is this share of the first one.
        """
        start, linear = s / self._scale, g * self._scale
        thresholds = threshold * self._scale
        L = self._largest_eigenvalue(linear)
        # From here on everything is relative to `start`; B is applied once a step.
        d = v = Bd = Bv = np.zeros_like(start)
        momentum, first = 1.0, None
        for _ in range(_STEPS):
            while True:
                new = _shrunk(start + v - (linear + Bv) / L, thresholds / L) - start
                Bnew = self._product(new)
                back = new - v
                square = float(np.vdot(back, back))
                if float(np.vdot(back, Bnew - Bv)) <= 1.001 * L * square or square == 0:
                    break
                L *= 1.5
            first = first or square
            if float(np.vdot(back, new - d)) < 0:
                momentum, v, Bv = 1.0, new, Bnew
            else:
                following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
                beta = (momentum - 1) / following
                v, Bv = new + beta * (new - d), Bnew + beta * (Bnew - Bd)
                momentum = following
            d, Bd = new, Bnew
            if square <= share**2 * first:
                break
        return (start + d) * self._scale


def _shrunk(x: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Group soft-thresholding: rows x_j (1 - t_j / ||x_j||)_+."""
    norms = np.maximum(row_norms(x)[:, None], 1e-30)
    return x * np.maximum(1 - thresholds / norms, 0)
