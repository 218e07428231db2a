"""Logistic losses on a matrix of logits: value, residual, conjugate (for the duality gap).

With weights w (n, 1 or K; they sum to 1 per column when no class is reweighted) and targets Y::

    softmax:  f(Z) = sum_i w_i [ log sum_k exp z_ik - sum_k y_ik z_ik ]
    sigmoid:  f(Z) = sum_ik w_ik [ log(1 + exp z_ik) - y_ik z_ik ]

A binary task is one sigmoid column; a multi-label task is one sigmoid column per label.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

# Upper bounds of the second derivative: 1/4 for the sigmoid, 1/2 for the softmax (Boehning 1992).
_CURVATURE = {"sigmoid": 0.25, "softmax": 0.5}


@dataclass(frozen=True)
class LogisticLoss:
    """A weighted logistic loss.

    Attributes
    ----------
    kind : 'softmax' or 'sigmoid'
    targets : ndarray of float, shape (n, K)
        One-hot rows (softmax) or indicators (sigmoid; K = 1 for a binary task). Fortran order,
        like the logits of the solvers: sums over the classes of a row are then fast.
    weights : ndarray of float, shape (n, 1) or (n, K)
        Non-negative; already divided by n.
    """

    kind: str
    targets: np.ndarray
    weights: np.ndarray

    @property
    def curvature(self) -> float:
        """Bound of the largest eigenvalue of one row's Hessian, before its weight."""
        return _CURVATURE[self.kind]

    @cached_property
    def _wrong_way(self) -> np.ndarray:
        """1 where the target is 0, -1 where it is 1: log(1 + exp z) - y z = log(1 + exp(s z)),
        without the difference of two large numbers that hides a small loss in float32."""
        return 1 - 2 * self.targets

    def value(self, logits: np.ndarray) -> float:
        """Weighted sum of the losses, accumulated in float64."""
        if self.kind == "softmax":
            peak = logits.max(axis=1, keepdims=True)
            log_sum = np.log(np.exp(logits - peak).sum(axis=1, keepdims=True))
            each = log_sum + (peak - (self.targets * logits).sum(axis=1, keepdims=True))
        else:
            each = np.logaddexp(0, self._wrong_way * logits)
        return float((self.weights * each).sum(dtype=np.float64))

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Softmax or sigmoid of the logits, shape (n, K)."""
        return softmax(logits) if self.kind == "softmax" else sigmoid(logits)

    def residual(self, logits: np.ndarray) -> np.ndarray:
        """Gradient with respect to the logits: weights * (probabilities - targets), (n, K)."""
        residual = self.probabilities(logits)
        residual -= self.targets
        residual *= self.weights
        return residual

    def value_and_residual(self, logits: np.ndarray) -> tuple[float, np.ndarray]:
        """`value` and `residual` from one pass of exponentials."""
        if self.kind == "softmax":
            peak = logits.max(axis=1, keepdims=True)
            residual = np.exp(logits - peak)
            total = residual.sum(axis=1, keepdims=True)
            each = np.log(total) + (peak - (self.targets * logits).sum(axis=1, keepdims=True))
            residual /= total
        else:
            each = np.logaddexp(0, self._wrong_way * logits)
            residual = sigmoid(logits)
        residual -= self.targets
        residual *= self.weights
        return float((self.weights * each).sum(dtype=np.float64)), residual

    def conjugate(self, residual: np.ndarray, scale: float) -> float:
        """Conjugate of the loss at ``scale * residual``, for 0 <= scale <= 1.

        `residual` must come from `residual`: then ``targets + scale * (probabilities - targets)``
        is a probability vector, and the conjugate is its negative entropy.
        """
        weights = np.broadcast_to(self.weights, residual.shape)
        unweighted = np.divide(
            residual, weights, out=np.zeros_like(residual), where=weights > 0
        ).astype(np.float64)
        q = self.targets + scale * unweighted
        np.clip(q, 0.0, 1.0, out=q)
        entropy = _x_log_x(q)
        if self.kind == "sigmoid":
            entropy += _x_log_x(1.0 - q)
            return float((weights * entropy).sum())
        return float((self.weights * entropy.sum(axis=1, keepdims=True)).sum())


def make_loss(
    labels: np.ndarray, classes: int, *, class_weight: str | None = None, dtype=np.float32
) -> LogisticLoss:
    """Build the loss of a task from its labels.

    Parameters
    ----------
    labels : ndarray, shape (n,) of class codes, or (n, K) of 0/1 for multi-label
    classes : int
        Number of classes (labels, for multi-label). Two classes give one sigmoid column.
    class_weight : None or 'balanced'
        'balanced' weighs a row by n / (classes * count of its class), as scikit-learn does; for
        multi-label the same per label, each label being a two-class task.
    """
    n = len(labels)
    if labels.ndim == 2:
        targets = labels.astype(dtype, order="F")
        weights = np.full((n, 1), 1.0 / n, dtype)
        if class_weight == "balanced":
            positive = np.maximum(targets.sum(axis=0), 1)
            negative = np.maximum(n - targets.sum(axis=0), 1)
            weights = (np.where(targets > 0, 0.5 / positive, 0.5 / negative)).astype(dtype)
        return LogisticLoss("sigmoid", targets, weights)
    counts = np.bincount(labels, minlength=classes)
    weights = np.full(n, 1.0 / n)
    if class_weight == "balanced":
        present = np.maximum(counts, 1)
        weights = (1.0 / ((counts > 0).sum() * present))[labels]
    weights = weights.astype(dtype)[:, None]
    if classes == 2:
        return LogisticLoss("sigmoid", labels.astype(dtype)[:, None], weights)
    targets = np.zeros((n, classes), dtype, order="F")
    targets[np.arange(n), labels] = 1
    return LogisticLoss("softmax", targets, weights)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Row-wise softmax, shape (n, K), in the dtype of `logits`."""
    out = np.exp(logits - logits.max(axis=1, keepdims=True))
    out /= out.sum(axis=1, keepdims=True)
    return out


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Element-wise logistic function without overflow: (1 + tanh(z / 2)) / 2."""
    out = np.tanh(0.5 * logits)
    out += 1
    out *= 0.5
    return out


def _x_log_x(q: np.ndarray) -> np.ndarray:
    return q * np.log(np.where(q > 0, q, 1.0))
