"""Small classification problems with known structure, and the same problems given to others."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.linear_model import LogisticRegression

from probeline.probe.losses import LogisticLoss, make_loss
from probeline.probe.solver import Fit
from probeline.probe.task import SPLITS, TaskData


def problem(n: int, p: int, classes: int, seed: int = 0, noise: float = 1.0):
    """X (n, p) of correlated features, unequal in scale and mean; y (n,) from a few of them."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p)) + 0.5 * rng.normal(size=(n, 1))
    weights = np.zeros((p, classes))
    weights[: min(p, 6)] = 1.5 * rng.normal(size=(min(p, 6), classes))
    y = (X @ weights + noise * rng.gumbel(size=(n, classes))).argmax(axis=1)
    y[:classes] = np.arange(classes)
    return X * rng.uniform(0.5, 2, p) + 3 * rng.normal(size=p), y


def feature_major(X: np.ndarray, dtype=np.float64) -> np.ndarray:
    """Centred features by rows, as the solvers want them."""
    return np.ascontiguousarray((X - X.mean(axis=0)).T, dtype=dtype)


def objective(X, loss: LogisticLoss, W, b, penalty: float, l1_ratio: float) -> float:
    """The penalised loss, in float64, by its definition."""
    W, b = np.asarray(W, np.float64), np.asarray(b, np.float64)
    size = l1_ratio * np.abs(W).sum() + (1 - l1_ratio) / 2 * (W**2).sum()
    return loss.value(X @ W + b) + penalty * size


def objective_of(X, loss: LogisticLoss, fit: Fit, penalty: float, l1_ratio: float) -> float:
    return objective(X - X.mean(axis=0), loss, fit.coefficients, fit.intercept, penalty, l1_ratio)


def by_sklearn(X, y, penalty: float, l1_ratio: float, class_weight=None, tol=1e-9) -> tuple:
    """(coefficients (p, K), intercept (K,)) by scikit-learn's saga or lbfgs, run to the end."""
    solver = {"solver": "saga", "l1_ratio": l1_ratio} if l1_ratio else {"solver": "lbfgs"}
    model = LogisticRegression(
        C=1 / (penalty * len(y)),
        tol=tol,
        max_iter=200_000,
        class_weight=class_weight,
        random_state=0,
        **solver,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(np.asarray(X, np.float64), y)
    return model.coef_.T, model.intercept_


def double_loss(y, classes: int, class_weight=None) -> LogisticLoss:
    return make_loss(y, classes, class_weight=class_weight, dtype=np.float64)


def task_of(y: dict, classes: int | None = None, metric: str = "accuracy") -> TaskData:
    """A task over consecutive rows, from {split: labels}."""
    y = {split: np.asarray(y[split]) for split in SPLITS}
    ends = np.cumsum([0] + [len(y[split]) for split in SPLITS])
    rows = {s: np.arange(a, b) for s, a, b in zip(SPLITS, ends, ends[1:], strict=False)}
    multilabel = y["train"].ndim == 2
    classes = classes or (y["train"].shape[1] if multilabel else int(y["train"].max()) + 1)
    names = tuple(f"c{k}" for k in range(classes))
    return TaskData("label", names, multilabel, metric, rows, y)


def split_problem(sizes=(120, 60, 60), p=20, classes=3, seed=0, metric="accuracy", noise=1.0):
    """({split: float32 (n, p)}, task) drawn from one `problem`."""
    X, y = problem(sum(sizes), p, classes, seed, noise)
    cuts = np.cumsum(sizes)[:-1]
    parts = dict(zip(SPLITS, np.split(X.astype(np.float32), cuts), strict=True))
    return parts, task_of(dict(zip(SPLITS, np.split(y, cuts), strict=True)), classes, metric)


def indicators(n: int, labels: int, seed: int = 0, p: int = 12):
    """A multi-label problem: X (n, p), Y (n, labels) of 0/1 with both values in every column."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p))
    Y = (X @ rng.normal(size=(p, labels)) + rng.logistic(size=(n, labels)) > 0.8).astype(np.uint8)
    Y[0], Y[1] = 0, 1
    return X, Y
