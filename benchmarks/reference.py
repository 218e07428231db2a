"""The published recipe, as the thing to beat: scikit-learn's SAGA, stopped early and warm-started.

Per penalty C an L1 logistic regression on raw features is fitted for a few epochs, scored on
validation, and fitted on from where it stands, time and again: 16 restarts of 4 epochs for a probe,
32 of 2 for an aggregation, seed 42. The best validation score counts. The public code is for two
classes; more are fitted one against the rest, as scikit-learn of its time did. Unlike it, this
keeps a copy of the best weights and not the last ones.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score

PENALTIES = (0.1, 0.2, 1.0, 10.0, 100.0)
SEED = 42


@dataclass(frozen=True)
class Schedule:
    """How often a fit is restarted, and for how many epochs."""

    restarts: int
    epochs: int


PROBE = Schedule(16, 4)
AGGREGATION = Schedule(32, 2)


@dataclass(frozen=True)
class Fitted:
    """The best weights of all restarts at one penalty.

    Attributes
    ----------
    coefficients : ndarray, shape (p, K)
        In the space of raw features; K is 1 for two classes.
    intercept : ndarray, shape (K,)
    score : float
        On validation.
    seconds : float
        Fitting and scoring.
    """

    coefficients: np.ndarray
    intercept: np.ndarray
    score: float
    seconds: float

    @property
    def nonzero(self) -> float:
        """Share of weights that are not zero."""
        return float(np.count_nonzero(self.coefficients) / self.coefficients.size)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Class codes of X (n, p)."""
        return codes(X @ self.coefficients + self.intercept)


def codes(logits: np.ndarray) -> np.ndarray:
    """Class codes of logits (n, K): the sign of a single column, else the largest."""
    return (logits[:, 0] > 0).astype(int) if logits.shape[1] == 1 else logits.argmax(axis=1)


def score(metric: str, labels: np.ndarray, predicted: np.ndarray) -> float:
    """Accuracy or macro-F1."""
    if metric == "macro-f1":
        return float(f1_score(labels, predicted, average="macro"))
    if metric == "accuracy":
        return float(accuracy_score(labels, predicted))
    raise ValueError(f"the reference knows accuracy and macro-f1, not {metric}")


def fit(
    X: Mapping[str, np.ndarray],
    y: Mapping[str, np.ndarray],
    metric: str,
    C: float,
    schedule: Schedule = PROBE,
) -> Fitted:
    """Fit one penalty.

    Parameters
    ----------
    X : mapping of 'train' and 'validation' to ndarray of float32, shape (n, p)
        Raw features.
    y : mapping of the same to ndarray of int, shape (n,)
        Codes 0..K-1, all of them in train.
    C : float
        scikit-learn's.
    """
    began = time.perf_counter()
    classes = int(y["train"].max()) + 1
    # Of two classes the second is fitted; of more, each against the rest.
    targets = [y["train"] == k for k in (range(classes) if classes > 2 else [1])]
    models = [
        LogisticRegression(
            solver="saga",
            l1_ratio=1.0,
            C=C,
            max_iter=schedule.epochs,
            warm_start=True,
            random_state=SEED,
        )
        for _ in targets
    ]
    best, weights = -np.inf, None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for _ in range(schedule.restarts):
            for model, target in zip(models, targets, strict=True):
                model.fit(X["train"], target)
            coefficients = np.concatenate([model.coef_ for model in models]).T
            intercept = np.concatenate([model.intercept_ for model in models])
            predicted = codes(X["validation"] @ coefficients + intercept)
            reached = score(metric, y["validation"], predicted)
            if reached > best:
                # A copy: the next restart moves the models' own arrays.
                best, weights = reached, (coefficients.copy(), intercept.copy())
    return Fitted(*weights, score=best, seconds=time.perf_counter() - began)
