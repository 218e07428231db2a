"""Train one probe: a sparse logistic regression on one shard, its penalty chosen on validation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from probeline.probe.matrix import Scaler, fit_scaler
from probeline.probe.path import Step, best_step, densest, run_paths
from probeline.probe.task import TaskData


@dataclass(frozen=True)
class Probe:
    """A trained probe.

    Attributes
    ----------
    coefficients : ndarray of float32, shape (p, K)
        In the space of scaled features; zero rows for constant features. K is 1 for a binary task.
    intercept : ndarray of float32, shape (K,)
    scaler : Scaler
    steps : list of Step
        The path; `chosen` indexes it.
    validation_score, test_score : float
    """

    coefficients: np.ndarray
    intercept: np.ndarray
    scaler: Scaler
    steps: list[Step]
    chosen: int
    validation_score: float
    test_score: float

    @property
    def step(self) -> Step:
        return self.steps[self.chosen]

    def logits(self, X: np.ndarray) -> np.ndarray:
        """Logits (n, K) of raw activations X (n, p), the threshold already taken off."""
        return linear_logits(X, self.scaler, self.coefficients, self.intercept) - np.float32(
            self.step.threshold
        )


def linear_logits(
    X: np.ndarray, scaler: Scaler, coefficients: np.ndarray, intercept: np.ndarray
) -> np.ndarray:
    """Logits (n, K) of raw features X (n, p): ((X - mean) / scale) W + b, without copying X."""
    weights = coefficients / scaler.scale[:, None]
    shifted = intercept - (scaler.mean.astype(np.float64) @ weights).astype(np.float32)
    return X @ weights + shifted


def train_probe(
    X: Mapping[str, np.ndarray], task: TaskData, options: Mapping, *, last: bool = False
) -> Probe:
    """Train a probe.

    Parameters
    ----------
    X : mapping of split to ndarray of float32, shape (n, p)
        Raw activations of the task's rows.
    options : mapping
        The `probe` section of the configuration.
    last : bool
        Whether to keep the end of the path, for which the rest is only the way there, and not what
        validation scores highest.
    """
    scaler = fit_scaler(X["train"], options["standardize"])
    XT = scaler.apply(X["train"])
    validation = scaler.apply(X["validation"])
    steps, fits = run_paths(XT, validation, task, options, l1_ratios=[options["l1_ratio"]])
    most = densest(fits[0].coefficients.size, options)
    chosen = len(steps) - 1 if last else best_step(steps, most)
    coefficients = np.zeros((len(scaler.kept), fits[chosen].coefficients.shape[1]), np.float32)
    coefficients[scaler.kept] = fits[chosen].coefficients
    probe = Probe(
        coefficients, fits[chosen].intercept, scaler, steps, chosen, steps[chosen].score, np.nan
    )
    test_score = task.score("test", probe.logits(X["test"]))
    return Probe(
        coefficients, probe.intercept, scaler, steps, chosen, steps[chosen].score, test_score
    )
