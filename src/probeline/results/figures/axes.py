"""Axes: their ends, ticks and labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

_METRICS = {
    "macro-f1": "macro-F1",
    "micro-f1": "micro-F1",
    "matthews": "Matthews correlation",
    "roc-auc": "ROC AUC",
}


@dataclass(frozen=True)
class Axis:
    title: str
    domain: tuple[float, float]
    ticks: list[float]
    labels: str  # a Vega expression over `datum.value`
    scale: str = "linear"

    def share(self, value: float) -> float:
        """Position between the ends of the axis, 0 to 1."""
        low, high = self.domain
        if self.scale == "log":
            low, high, value = math.log(low), math.log(high), math.log(value)
        return (value - low) / (high - low)


def metric_name(metric: str) -> str:
    return _METRICS.get(metric, metric)


def score_axis(
    title: str, scores: Sequence[float], always: Sequence[float], reach: float
) -> tuple[Axis, list[str]]:
    """An axis over `always` and those `scores` that are at most `reach` interquartile ranges below
    the lower quartile, and a note if that leaves some out.

    A single one of no use (the first token before any attention) would squeeze all the others.
    """
    low, high = np.quantile(scores, (0.25, 0.75))
    fence = low - reach * max(high - low, 0.02)
    kept = [score for score in scores if score >= fence] + list(always)
    bottom, top = min(kept), max(kept)
    if min(scores) > bottom - 0.15 * (top - bottom):  # all fit, with hardly less room
        bottom = min(bottom, *scores)
    margin = max(0.08 * (top - bottom), 0.003)
    domain = (bottom - margin, top + margin)
    step = _nice((domain[1] - domain[0]) / 8)
    ticks = np.arange(math.ceil(domain[0] / step), math.floor(domain[1] / step) + 1) * step
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    # No score exceeds 1; the axis does, so that a point at 1 is whole.
    ticks = [round(float(tick), 9) for tick in ticks if tick <= 1 + 1e-9]
    hidden = any(score < domain[0] for score in scores)
    note = [f"Not shown: scores below {domain[0]:.3f}"] if hidden else []
    return Axis(title, domain, ticks, f"format(datum.value, '.{digits}f')"), note


def layer_axis(layers: Sequence[int]) -> Axis:
    low, high = min(layers), max(layers)
    step = int(max(1, _nice((high - low) / 13 or 1)))
    margin = max(0.3, 0.03 * (high - low))
    ticks = [layer for layer in range(0, high + 1, step) if layer >= low]
    title = "Layer (0 = embeddings)" if low == 0 else "Layer"
    return Axis(title, (low - margin, high + margin), ticks, "format(datum.value, 'd')")


def neuron_axis(counts: set[int]) -> tuple[Axis, Callable[[int], float]]:
    """A logarithmic axis, and where on it a count stands: 0 has a place left of the smallest."""
    positive = [count for count in counts if count > 0] or [1]
    low, high = min(positive), max(positive)
    zero = low / 2
    start = zero if 0 in counts else low
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    marks = (1, 2, 5) if high / low < 200 else (1, 3) if high / low < 5000 else (1,)
    ticks = [mark * 10**power for power in decades for mark in marks]
    ticks = [zero] * (0 in counts) + [tick for tick in ticks if low * 0.8 <= tick <= high * 1.25]
    labels = f"datum.value < {low * 0.75} ? '0' : format(datum.value, ',d')"
    axis = Axis("Neurons kept (log scale)", (start * 0.8, high * 1.25), ticks, labels, "log")
    return axis, lambda count: count or zero


def _nice(step: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is at least `step`."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= step * (1 - 1e-9))
