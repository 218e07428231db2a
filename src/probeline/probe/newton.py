"""The direction of a proximal Newton step: the second-order model of an L1 problem, minimised.

Class by class, over the features in play and the rows that carry curvature. Both are few on a
sparse path, so that a step costs little more than its one pass over the data.
"""

from __future__ import annotations

import numpy as np

from probeline.probe.losses import LogisticLoss
from probeline.probe.quadratic import L1Quadratic

_SWEEPS = 30
# Sweeps end when the largest change is this share of the first sweep's.
_SWEPT = 0.01
# A class's model is minimised until a round lowers it by less than this share of the total.
_MODEL_SHARE = 0.01
# Violating features that may join a class's model at once, at least.
_FEWEST = 20
# Rows are dropped from a class's model until this share of the curvature is left.
_CURVATURE_KEPT = 0.999


def newton_direction(
    XT: np.ndarray,
    loss: LogisticLoss,
    Z: np.ndarray,
    W: np.ndarray,
    gradient: np.ndarray,
    penalty: float,
    alpha: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Minimise the second-order model of the objective by block coordinate descent over classes.

    The softmax couples the classes: the Hessian takes logits z to w p (z - sum_l p_l z_l), and
    `mixture` holds that sum for the direction found so far.

    Parameters
    ----------
    XT : ndarray, shape (p, n)
    Z, W, gradient : ndarray, shapes (n, K), (p, K), (p, K)
        Logits, coefficients, and gradient of the loss with respect to W.

    Returns
    -------
    direction, shift : ndarray, shapes (p, K) and (K,)
        Of the coefficients and of the intercept.
    """
    P = loss.probabilities(Z)
    weights = np.broadcast_to(loss.weights, P.shape)
    threshold, ridge = penalty * alpha, penalty * (1 - alpha)
    blocks: dict[int, _ClassModel] = {}
    room = XT.size
    for k in range(W.shape[1]):
        features = _features_in_play(W[:, k], gradient[:, k], threshold)
        if len(features):
            blocks[k] = _ClassModel(XT, features, weights[:, k], P[:, k], ridge, room)
            room -= blocks[k].held
    coupled = loss.kind == "softmax"
    new, mixture = W.copy(), np.zeros(len(Z), Z.dtype)
    largest_first = 0.0
    for sweep in range(_SWEEPS if coupled else 1):
        largest = 0.0
        for k, block in blocks.items():
            f = block.features
            linear = gradient[f, k] + ridge * new[f, k]
            if sweep:
                linear += block.curvature_of_direction(mixture)
            updated, gain = block.quadratic.solve(
                linear, new[f, k], threshold, share=_MODEL_SHARE, enough=block.enough
            )
            block.enough = max(block.enough, _MODEL_SHARE * gain)
            delta = updated - new[f, k]
            largest = max(largest, float(np.abs(delta / block.quadratic.scale).max()))
            new[f, k] = updated
            block.move(delta, mixture)
        largest_first = largest_first or largest
        if largest <= _SWEPT * largest_first:
            break
    shift = np.zeros(W.shape[1], W.dtype)
    for k, block in blocks.items():
        shift[k] = block.shift
    return new - W, shift


class _ClassModel:
    """One class's part of the second-order model: features in play, rows that carry curvature.

    Its activations are held in memory where they take no more than `room` numbers, and gathered
    anew for each use otherwise.
    """

    def __init__(self, XT, features, weights, p, ridge, room):
        self.features = features
        curvature = weights * p * (1 - p)
        self.rows = _rows_that_matter(curvature)
        self._XT = XT
        self._held = None
        A = self._activations()
        self.held = A.size if A.size <= room else 0
        if self.held:
            self._held = A
        self.p, self.wp, curvature = p[self.rows], (weights * p)[self.rows], curvature[self.rows]
        self._total = max(float(curvature.sum()), 1e-12)
        # Centring by the curvature profiles the intercept out of the model.
        self.mean = (A @ curvature) / A.dtype.type(self._total)
        weighted = A - self.mean[:, None]
        weighted *= np.sqrt(curvature)
        H = weighted @ weighted.T
        jitter = 1e-5 * float(np.trace(H)) / len(H) + 1e-9
        H.flat[:: len(H) + 1] += H.dtype.type(ridge + jitter)
        self.quadratic = L1Quadratic(H)
        # A gain of the model that is not worth another round.
        self.enough = 0.0
        self.shift = self._pending = 0.0
        self._z = np.zeros(A.shape[1], A.dtype)

    def _activations(self) -> np.ndarray:
        if self._held is not None:
            return self._held
        if isinstance(self.rows, slice):
            return self._XT[self.features]
        return self._XT[self.features[:, None], self.rows]

    def curvature_of_direction(self, mixture: np.ndarray) -> np.ndarray:
        """This class's part of H d for the direction of all classes so far, shape (m,).

        The class's intercept counts as moved to the model's optimum, which `move` will do.
        """
        v = self.wp * (self._z - mixture[self.rows])
        total = float(v.sum())
        self._pending = -total / self._total
        return self._activations() @ v - self.mean * v.dtype.type(total)

    def move(self, delta: np.ndarray, mixture: np.ndarray) -> None:
        """Record a change of this class's coefficients in its logits and in `mixture`."""
        shift = self._pending - float(self.mean @ delta)
        self._pending = 0.0
        self.shift += shift
        dz = delta @ self._activations()
        dz += dz.dtype.type(shift)
        self._z += dz
        dz *= self.p
        mixture[self.rows] += dz


def _features_in_play(w: np.ndarray, gradient: np.ndarray, threshold: float) -> np.ndarray:
    """Non-zero weights, and the zero ones that violate optimality most, a bounded number."""
    support = w != 0
    violation = np.abs(gradient) - threshold
    violation[support] = 0
    candidates = np.flatnonzero(violation > 0)
    room = max(_FEWEST, int(support.sum()))
    if len(candidates) > room:
        candidates = candidates[np.argpartition(-violation[candidates], room - 1)[:room]]
    return np.union1d(np.flatnonzero(support), candidates)


def _rows_that_matter(curvature: np.ndarray) -> np.ndarray | slice:
    """Rows that carry nearly all of the curvature; all of them where that is most."""
    order = np.argsort(-curvature)
    cumulative = np.cumsum(curvature[order], dtype=np.float64)
    count = int(np.searchsorted(cumulative, _CURVATURE_KEPT * cumulative[-1])) + 1
    return slice(None) if count > 0.5 * len(curvature) else np.sort(order[:count])
