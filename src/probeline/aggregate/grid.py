"""Every eta x depth x penalty: one small classifier each, scored on validation.

Neuron sets are nested in eta and in depth, so the columns are standardised once and every Gram
matrix is a block of one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from probeline.aggregate.neurons import Neurons
from probeline.probe.matrix import Scaler, fit_scaler
from probeline.probe.path import Step, run_paths
from probeline.probe.task import TaskData

# Beyond this many columns (1.6 GB as float32) no Gram matrix of all is kept; sets have their own.
_LARGEST_GRAM = 20_000
# Standard errors by which the highest score may be luck.
_LUCK = 0.5


@dataclass(frozen=True)
class Candidate:
    """One point of the grid.

    Attributes
    ----------
    eta : float
    depth : int
        Blocks to compute: the highest layer among the neurons.
    available : int
        Neurons offered; `step.neurons` of them have a non-zero weight.
    step : Step
    """

    eta: float
    depth: int
    available: int
    step: Step

    def row(self) -> dict:
        return {"eta": self.eta, "depth": self.depth, "available": self.available} | asdict(
            self.step
        )


@dataclass(frozen=True)
class Columns:
    """Standardised activations of the candidate neurons, feature-major.

    Attributes
    ----------
    neurons : Neurons
        Constant ones already dropped.
    scaler : Scaler
    train, validation : ndarray of float32, shapes (p, n) and (p, m)
    """

    neurons: Neurons
    scaler: Scaler
    train: np.ndarray
    validation: np.ndarray


def prepare(neurons: Neurons, activations: np.ndarray, task: TaskData) -> Columns:
    """Standardise raw activations (rows, p) on the task's training rows."""
    train = activations[task.rows["train"]]
    scaler = fit_scaler(train)
    kept = np.flatnonzero(scaler.kept)
    validation = scaler.apply(activations[task.rows["validation"]])
    short = Scaler(scaler.mean[kept], scaler.scale[kept], scaler.kept[kept])
    return Columns(neurons.take(kept), short, scaler.apply(train), validation)


def search(
    columns: Columns, task: TaskData, etas: Sequence[float], options: Mapping
) -> list[Candidate]:
    """Fit the whole grid.

    Where no eta and depth keeps a neuron (all probes are zero, or have none at these depths), it
    has one point: the intercept alone, at depth 0.

    Parameters
    ----------
    etas : sequence of float, ascending
    options : mapping
        The `aggregate` section of the configuration.
    """
    neurons = columns.neurons
    found: list[Candidate] = []
    gram = _gram(columns.train, options)
    done: dict[bytes, list[Step]] = {}
    for depth in _depths(neurons, options["depths"]):
        for level, eta in enumerate(etas):
            indices = neurons.at(level, depth)
            if len(indices) == 0:
                continue
            key = indices.tobytes()
            if key not in done:
                done[key] = _steps(columns, task, indices, gram, options)
            reached = int(neurons.layer[indices].max())
            found += [Candidate(eta, reached, len(indices), step) for step in done[key]]
    return _distinct(found) or [_nothing(columns, task, etas[-1], options)]


def _nothing(columns: Columns, task: TaskData, eta: float, options: Mapping) -> Candidate:
    # The L1 solver knows that without features the null model is the solution.
    l1 = dict(options) | {"l1_ratios": [1.0]}
    return Candidate(eta, 0, 0, _steps(columns, task, np.empty(0, np.int64), None, l1)[0])


def _distinct(found: list[Candidate]) -> list[Candidate]:
    """A depth that adds no neuron repeats the one below it."""
    return list(dict.fromkeys(found))


def _depths(neurons: Neurons, wanted) -> list[int]:
    present = np.unique(neurons.layer).tolist()
    return present if wanted == "all" else sorted(wanted)


def _gram(train: np.ndarray, options: Mapping) -> np.ndarray | None:
    p, n = train.shape
    if 0.0 not in options["l1_ratios"] or p > _LARGEST_GRAM:
        return None
    return train @ train.T / train.dtype.type(n)


def _steps(columns, task, indices, gram, options) -> list[Step]:
    whole = len(indices) == len(columns.neurons)
    XT = columns.train if whole else np.ascontiguousarray(columns.train[indices])
    validation = columns.validation[indices]
    block = None if gram is None else gram[np.ix_(indices, indices)]
    return run_paths(XT, validation, task, options, l1_ratios=options["l1_ratios"], gram=block)[0]


def choose(found: Sequence[Candidate], select: str, within: float) -> Candidate:
    """Choose one candidate by validation.

    Parameters
    ----------
    select : 'best', 'sparsest' or 'shallowest'
        The best; or, of those whose score is at most `within` below the highest, the one with the
        fewest neurons, or the lowest depth.

    Notes
    -----
    The highest of thousands of scores on a few hundred texts is partly luck. 'best' is the
    candidate with the lowest log loss among those within half a standard error of the highest
    score, then the one with the fewest neurons.
    """

    def rank(c: Candidate) -> tuple:
        return (c.step.log_loss, -c.step.score, c.step.neurons, c.depth, c.eta)

    top = max(found, key=lambda c: c.step.score).step
    highest = top.score
    # Scores are shares of a count: a hair keeps a tolerance from losing one to rounding.
    if select == "best":
        within = _LUCK * top.error
        return min((c for c in found if c.step.score >= highest - within - 1e-9), key=rank)
    near = [c for c in found if c.step.score >= highest - within - 1e-9]
    if select == "sparsest":
        return min(near, key=lambda c: (c.step.neurons, c.depth, *rank(c)))
    return min(near, key=lambda c: (c.depth, c.step.neurons, *rank(c)))
