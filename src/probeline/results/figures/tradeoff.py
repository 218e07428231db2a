"""The figure of score against the number of neurons kept."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from probeline.results.figures.axes import Axis, metric_name, neuron_axis, score_axis
from probeline.results.figures.drawing import GLYPHS, Figure, check_outputs, draw, make_row
from probeline.results.figures.panels import HEIGHT, panel_and_series, panel_width
from probeline.results.figures.pareto import Point, pareto_front, read_points
from probeline.results.figures.reading import marked_classifiers, read_layers, reference_lines

# Faint points of all series together; they are most of an SVG's bytes.
_CLOUD = 700
_MANY = 20
# Pixels between dots of a step line.
_SPACING = 9


def tradeoff_figure(
    grids: Mapping[str, str | os.PathLike],
    scores: str | os.PathLike,
    layers: str | os.PathLike,
    sentence_embedding: str | os.PathLike | None,
    metric: str,
    title: str,
    outputs: Sequence[str | os.PathLike],
) -> None:
    """Draw the validation score against the number of neurons kept, one panel per representation
    and one for combinations.

    A step line per slug joins its Pareto-optimal points (the best score with at most that many
    neurons), other points are faint. The selected and the smallest classifier are ringed;
    horizontal lines show the last layer and the sentence embedding, on validation too.

    Parameters
    ----------
    grids : mapping of slug to path
        Grids of `probeline.aggregate.stage`.
    scores : path
        Scores of `probeline.classifier.stage`.
    layers, sentence_embedding, metric, outputs
        As in `layer_figure`.

    Raises
    ------
    ProbelineError
        As `layer_figure`; or if `scores` names a slug that is not among the grids.
    """
    check_outputs(outputs)
    points = read_points(grids)
    lines = reference_lines(read_layers(layers), sentence_embedding, "validation_score")
    marked = marked_classifiers(scores, grids)
    fronts = {slug: pareto_front(_of(slug, points), depth=False) for slug in grids}
    on_fronts = [point.score for front in fronts.values() for point in front]
    always = [entry["score"] for entry in marked] + list(lines.values())
    # Where there are many, the lowest quarter are the classifiers of a handful of neurons.
    reach = 0.0 if len(on_fronts) >= _MANY else 1.5
    y, below = score_axis(f"Validation {metric_name(metric)}", on_fronts, always, reach)
    shown = [point for point in points if point.score >= y.domain[0]]
    x, place = neuron_axis({p.neurons for p in shown} | {entry["neurons"] for entry in marked})
    panels = {panel_and_series(slug)[0] for slug in grids}
    rows = []
    for slug, front in fronts.items():
        panel, series = panel_and_series(slug)
        cloud = sorted({(place(p.neurons), p.score) for p in _of(slug, shown)})
        for at in _thinned(cloud, _CLOUD // len(grids)):
            rows.append(make_row(panel, "cloud", *at, series=series))
        # The last corner below the panel is where the line comes in.
        below_panel = sum(p.score < y.domain[0] for p in front)
        corners = [(place(p.neurons), p.score) for p in front[max(0, below_panel - 1) :]]
        corners = _apart(corners, x, y, panel_width(len(panels)), 1.0)
        dots = _apart(corners, x, y, panel_width(len(panels)), _SPACING)
        rows += [make_row(panel, "line", *at, series=series, dot=at in dots) for at in corners]
    for entry in marked:
        panel, _ = panel_and_series(entry["slug"])
        rows.append(make_row(panel, entry["shape"], place(entry["neurons"]), entry["score"]))
    notes = [
        f"{GLYPHS[entry['shape']]} {entry['name']}: {entry['slug']}, {entry['neurons']:,} "
        f"neurons, depth {entry['depth']}: validation {entry['score']:.3f}, "
        f"test {entry['test']:.3f}"
        for entry in marked
    ]
    legend = "Pooling or combination" if "combined" in panels else "Pooling"
    draw(Figure(title, notes + below, legend, rows, lines, x, y, "step-after"), outputs)


def _of(slug: str, points: Iterable[Point]) -> list[Point]:
    return [point for point in points if point.slug == slug]


def _apart(
    corners: Sequence[tuple[float, float]], x: Axis, y: Axis, width: int, pixels: float
) -> list[tuple[float, float]]:
    """The last corner of a line, and from it back those at least `pixels` from one another."""
    kept: list[tuple[float, float]] = []
    last = None
    for corner in reversed(corners):
        at = (width * x.share(corner[0]), HEIGHT * y.share(corner[1]))
        if last is None or math.dist(at, last) >= pixels:
            kept.append(corner)
            last = at
    return kept[::-1]


def _thinned(values: Sequence, most: int) -> list:
    """At most `most` values, evenly spaced in their order, first and last among them."""
    if len(values) <= most:
        return list(values)
    return [values[i] for i in np.linspace(0, len(values) - 1, max(most, 2)).astype(int)]
