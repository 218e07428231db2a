"""The chosen classifier: neurons, scaler, weights; fitted once more, and scored on test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from probeline.aggregate.grid import Candidate, Columns
from probeline.aggregate.neurons import Neurons
from probeline.probe.matrix import Scaler
from probeline.probe.path import Step, run_paths
from probeline.probe.task import TaskData
from probeline.probe.train import linear_logits

# The grid is fitted to the configured tolerance; what is kept, this much closer.
_TIGHTER = 0.1


@dataclass(frozen=True)
class Head:
    """A linear classifier over named neurons.

    Attributes
    ----------
    neurons : Neurons, p of them, all with a non-zero weight
    scaler : Scaler
    coefficients : ndarray of float32, shape (p, K), in scaled space
    intercept : ndarray of float32, shape (K,)
    candidate : Candidate
        The grid point, its step replaced by the one of the final fit.
    """

    neurons: Neurons
    scaler: Scaler
    coefficients: np.ndarray
    intercept: np.ndarray
    candidate: Candidate

    @property
    def step(self) -> Step:
        return self.candidate.step

    @property
    def depth(self) -> int:
        """Blocks to compute."""
        return int(self.neurons.layer.max(initial=0))

    def logits(self, activations: np.ndarray) -> np.ndarray:
        """Logits (n, K) of raw activations (n, p) in the neurons' order, threshold taken off."""
        logits = linear_logits(activations, self.scaler, self.coefficients, self.intercept)
        return logits - np.float32(self.step.threshold)


def fit_head(
    columns: Columns, task: TaskData, candidate: Candidate, etas: list[float], options: Mapping
) -> Head:
    """Fit a grid point again, to a tenth of the tolerance, and drop neurons of zero weight."""
    indices = columns.neurons.at(etas.index(candidate.eta), candidate.depth)
    if candidate.available == 0:
        indices = indices[:0]
    XT = np.ascontiguousarray(columns.train[indices])
    validation = columns.validation[indices]
    wanted = candidate.step
    tight = dict(options) | {
        "tolerance": options["tolerance"] * _TIGHTER,
        "penalties": [wanted.C],
        "class_weight": wanted.class_weight,
    }
    steps, fits = run_paths(XT, validation, task, tight, l1_ratios=[wanted.l1_ratio])
    fit = fits[0]
    used = np.flatnonzero((fit.coefficients != 0).any(axis=1))
    kept = indices[used]
    scaler = columns.scaler
    return Head(
        columns.neurons.take(kept),
        Scaler(scaler.mean[kept], scaler.scale[kept], scaler.kept[kept]),
        fit.coefficients[used],
        fit.intercept,
        Candidate(candidate.eta, candidate.depth, candidate.available, steps[0]),
    )
