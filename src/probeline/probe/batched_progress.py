"""How far one problem of a batch has come on its path, on the host."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from probeline.probe.path import Step, best_step, may_stop
from probeline.probe.solver import Fit


@dataclass
class Progress:
    """One problem's path so far.

    Attributes
    ----------
    null : float
        Objective without weights.
    penalties : ndarray of float64
        All of them, in path order.
    most : float
        Non-zero weights beyond which a step is not chosen.
    steps : list of Step
    fit : Fit or None
        The one of `best_step(steps, most)`; the others' coefficients are let go.
    rounds, stalled : int
        At this penalty: rounds so far, and certificates in a row that showed no gain.
    lowest : float
        The lowest objective that a certificate showed at this penalty.
    """

    null: float
    penalties: np.ndarray
    most: float = np.inf
    steps: list[Step] = field(default_factory=list)
    fit: Fit | None = None
    since_best: int = 0
    rounds: int = 0
    stalled: int = 0
    lowest: float = np.inf

    @property
    def penalty(self) -> float:
        """The one that is being fitted."""
        return float(self.penalties[len(self.steps)])

    def certified(self, objective: float, rounding: float) -> bool:
        """Take note of a certificate's objective; whether it is higher than one before."""
        gains = objective < self.lowest - rounding * abs(objective)
        self.stalled = 0 if gains else self.stalled + 1
        higher = objective > self.lowest
        self.lowest = min(self.lowest, objective)
        return higher

    def add(self, step: Step, fit: Fit) -> None:
        """Finish a penalty."""
        best = max((each.score for each in self.steps), default=-np.inf)
        self.since_best = 0 if step.score > best else self.since_best + 1
        self.steps.append(step)
        if best_step(self.steps, self.most) == len(self.steps) - 1:
            self.fit = fit
        self.rounds, self.stalled, self.lowest = 0, 0, np.inf

    def has_ended(self, automatic: bool) -> bool:
        """Whether no penalty follows; an `automatic` path may end early."""
        if len(self.steps) == len(self.penalties):
            return True
        return automatic and may_stop(self.steps, self.since_best, self.null, self.most)
