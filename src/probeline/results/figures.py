"""Figures: score by layer, and score against the number of neurons kept; the table of the latter.

Drawn by Altair and rendered by vl-convert: no browser, no network. Colours are those of Okabe and
Ito (2008, "Color Universal Design"), without the yellow, which is too pale for lines on white.
"""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from probeline.activations.names import POOLINGS, REPRESENTATIONS
from probeline.aggregate.stage import read_grid
from probeline.errors import ProbelineError, one_of
from probeline.files import read_json, replacing

_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
# One more than colours: a pair of colour and shape comes back after 56 series only.
_SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
_SHAPES += ("triangle-left", "triangle-right")
# The first four looks; a pooling has the same one in every figure.
_LOOKS = ("mean", "max", "first", "last")
_PANELS = {
    "ffn": "FFN activations",
    "hidden": "Hidden states",
    "decoder-ffn": "Decoder FFN activations",
    "decoder-hidden": "Decoder hidden states",
    "combined": "Combinations",
}
_METRICS = {
    "macro-f1": "macro-F1",
    "micro-f1": "micro-F1",
    "matthews": "Matthews correlation",
    "roc-auc": "ROC AUC",
}
_LAYER_COLUMNS = ("representation", "pooling", "layer", "test_score", "validation_score")
_LAYER_COLUMNS += ("best", "last")
_FORMATS = (".svg", ".png")
_PNG_SCALE = 2
_WIDTHS, _NARROWEST, _HEIGHT = {1: 560, 2: 350, 3: 270}, 230, 320
# Faint points of all series together; they are most of an SVG's bytes.
_CLOUD = 700
_MANY = 20
# Pixels between dots of a step line.
_SPACING = 9
_GREY = "#555555"
# The subtitle explains the marks.
_GLYPHS = {"circle": "○", "square": "□"}


class Point(NamedTuple):
    """A classifier of a grid: `score` on validation with `neurons` neurons of layers 0..`depth`."""

    slug: str
    neurons: int
    depth: int
    eta: float
    score: float


@dataclass(frozen=True)
class _Axis:
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


@dataclass(frozen=True)
class _Figure:
    """What is drawn.

    A row of `rows` has panel, kind (cloud, line, circle, square), x and y; of a cloud or line, its
    series; of a line, whether the point gets a dot.
    """

    title: str
    notes: list[str]
    legend: str
    rows: list[dict]
    lines: dict[str, float]
    x: _Axis
    y: _Axis
    interpolate: str


def layer_figure(
    layers: str | os.PathLike,
    sentence_embedding: str | os.PathLike | None,
    metric: str,
    title: str,
    outputs: Sequence[str | os.PathLike],
) -> None:
    """Draw the test score of every probe by layer, one panel per representation.

    The best single layer, chosen on validation, is ringed; horizontal lines show the last layer
    and the sentence embedding.

    Parameters
    ----------
    layers : path
        Table of `probeline.results.layers.compare_layers`.
    sentence_embedding : path or None
        Scores of `probeline.baselines.sentence_embedding`; None where there is no such baseline.
    metric : str
        Name of the score, as in the configuration.
    outputs : sequence of path
        `.svg` or `.png`.

    Raises
    ------
    ProbelineError
        If an input is missing, unreadable or not of its kind, or an output has another suffix.
    """
    _check(outputs)
    table = _read_layers(layers)
    lines = _lines(table, sentence_embedding, "test_score")
    best = next(row for row in table if row["best"])
    rows = [
        _row(row["representation"], "line", row["layer"], row["test_score"])
        | {"series": row["pooling"], "dot": True}
        for row in table
    ]
    rows += [_row(best["representation"], "circle", best["layer"], best["test_score"])]
    name = f"{best['representation']}.{best['pooling']}, layer {best['layer']}"
    ring = f"{_GLYPHS['circle']} Best layer on validation: {name}: test {best['test_score']:.3f}"
    scores = [row["test_score"] for row in table]
    always = [best["test_score"], *lines.values()]
    y, below = _score_axis(f"Test {_name(metric)}", scores, always, reach=1.5)
    x = _layer_axis([row["layer"] for row in table])
    _draw(_Figure(title, [ring, *below], "Pooling", rows, lines, x, y, "linear"), outputs)


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
    _check(outputs)
    points = _points(grids)
    lines = _lines(_read_layers(layers), sentence_embedding, "validation_score")
    marked = _marked(scores, grids)
    fronts = {slug: pareto_front(_of(slug, points), depth=False) for slug in grids}
    on_fronts = [point.score for front in fronts.values() for point in front]
    always = [entry["score"] for entry in marked] + list(lines.values())
    # Where there are many, the lowest quarter are the classifiers of a handful of neurons.
    reach = 0.0 if len(on_fronts) >= _MANY else 1.5
    y, below = _score_axis(f"Validation {_name(metric)}", on_fronts, always, reach)
    shown = [point for point in points if point.score >= y.domain[0]]
    x, place = _neuron_axis({p.neurons for p in shown} | {entry["neurons"] for entry in marked})
    panels = {_place(slug)[0] for slug in grids}
    rows = []
    for slug, front in fronts.items():
        panel, series = _place(slug)
        cloud = sorted({(place(p.neurons), p.score) for p in _of(slug, shown)})
        for at in _thinned(cloud, _CLOUD // len(grids)):
            rows.append(_row(panel, "cloud", *at, series=series))
        # The last corner below the panel is where the line comes in.
        below_panel = sum(p.score < y.domain[0] for p in front)
        corners = [(place(p.neurons), p.score) for p in front[max(0, below_panel - 1) :]]
        corners = _apart(corners, x, y, _width(len(panels)), 1.0)
        dots = _apart(corners, x, y, _width(len(panels)), _SPACING)
        rows += [_row(panel, "line", *at, series=series, dot=at in dots) for at in corners]
    for entry in marked:
        panel, _ = _place(entry["slug"])
        rows.append(_row(panel, entry["shape"], place(entry["neurons"]), entry["score"]))
    notes = [
        f"{_GLYPHS[entry['shape']]} {entry['name']}: {entry['slug']}, {entry['neurons']:,} "
        f"neurons, depth {entry['depth']}: validation {entry['score']:.3f}, "
        f"test {entry['test']:.3f}"
        for entry in marked
    ]
    legend = "Pooling or combination" if "combined" in panels else "Pooling"
    _draw(_Figure(title, notes + below, legend, rows, lines, x, y, "step-after"), outputs)


def tradeoff_table(grids: Mapping[str, str | os.PathLike]) -> pa.Table:
    """Return the points of all grids that are Pareto-optimal in neurons, depth and score.

    No other point has as few neurons, as low a depth and as high a score, and is better in one of
    the three. Of points equal in all three the first slug's, then the lowest eta's, is kept.

    Returns
    -------
    pyarrow.Table
        slug (string), neurons, depth (int64), eta, score (float64, on validation); fewest neurons
        first, then the lowest depth.

    Raises
    ------
    ProbelineError
        If a grid is missing or unreadable, or there is none.
    """
    front = pareto_front(_points(grids))
    columns = zip(*front, strict=True)
    types = (pa.string(), pa.int64(), pa.int64(), pa.float64(), pa.float64())
    arrays = [pa.array(values, kind) for values, kind in zip(columns, types, strict=True)]
    return pa.table(arrays, names=Point._fields)


def write_tradeoff(grids: Mapping[str, str | os.PathLike], out: str | os.PathLike) -> None:
    """Write `tradeoff_table(grids)` as CSV."""
    table = tradeoff_table(grids)
    with replacing(out) as temporary, temporary.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, table.column_names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table.to_pylist())


def pareto_front(points: Iterable[Point], depth: bool = True) -> list[Point]:
    """Return the Pareto-optimal points, fewest neurons first.

    Parameters
    ----------
    depth : bool
        Whether a low depth counts, beside few neurons and a high score.
    """

    def order(point: Point) -> tuple:
        return (point.neurons, point.depth * depth, -point.score, point.depth)

    front: list[Point] = []
    best: dict[int, float] = {}
    for point in sorted(points, key=order):  # whatever beats a point comes before it
        level = point.depth * depth
        if all(point.score > score for other, score in best.items() if other <= level):
            best[level] = point.score
            front.append(point)
    return front


# Reading


def _points(grids: Mapping[str, str | os.PathLike]) -> list[Point]:
    found = [
        Point(slug, candidate.step.neurons, candidate.depth, candidate.eta, candidate.step.score)
        for slug, path in grids.items()
        for candidate in sorted(read_grid(path)[0], key=lambda candidate: candidate.eta)
    ]
    if not found:
        raise ProbelineError("the trade-off has no grid to read; expected one per slug at least")
    return found


def _of(slug: str, points: Iterable[Point]) -> list[Point]:
    return [point for point in points if point.slug == slug]


def _read_layers(path: str | os.PathLike) -> list[dict]:
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise ProbelineError(f"{path}: no such table of layers") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise ProbelineError(f"{path}: not a readable Parquet file: {error}") from None
    missing = [name for name in _LAYER_COLUMNS if name not in table.column_names]
    if missing:
        raise ProbelineError(f"{path}: not a table of layers: no column {', '.join(missing)}")
    rows = table.select(_LAYER_COLUMNS).to_pylist()
    for row in rows:
        for key in ("test_score", "validation_score"):
            _number(path, row, key)
    if not (any(row["best"] for row in rows) and any(row["last"] for row in rows)):
        raise ProbelineError(f"{path}: not a table of layers: no row is marked best, or none last")
    return rows


def _lines(table: list[dict], embedding: str | os.PathLike | None, key: str) -> dict[str, float]:
    """Heights of the horizontal lines by name."""
    lines = {"last layer": next(row for row in table if row["last"])[key]}
    if embedding is not None:
        lines["sentence embedding"] = _number(embedding, read_json(embedding), key)
    return {f"{name} {value:.3f}": value for name, value in lines.items()}


def _marked(path: str | os.PathLike, slugs: Iterable[str]) -> list[dict]:
    """The selected and the smallest classifier; once where they are the same."""
    scores, found = read_json(path), []
    for variant, shape in (("selected", "circle"), ("smallest", "square")):
        entry = _value(path, scores, variant, dict, "an object")
        slug = _value(path, entry, "slug", str, "a text")
        if slug not in slugs:
            raise ProbelineError(f"{path}: {variant}: slug {one_of(slug, slugs)}")
        found.append(
            {
                "name": variant.capitalize(),
                "shape": shape,
                "slug": slug,
                "neurons": int(_number(path, entry, "neurons")),
                "depth": int(_number(path, entry, "depth")),
                "score": _number(path, entry, "validation_score"),
                "test": _number(path, entry, "test_score"),
            }
        )
    selected, smallest = found
    if selected == smallest | {"name": "Selected", "shape": "circle"}:
        return [selected | {"name": "Selected and smallest"}]
    return found


def _number(path: str | os.PathLike, entry: Mapping, key: str) -> float:
    value = _value(path, entry, key, (int, float), "a finite number")
    if isinstance(value, bool) or not math.isfinite(value):
        raise ProbelineError(f"{path}: key '{key}': expected a finite number, found {value!r}")
    return value


def _value(path: str | os.PathLike, entry: object, key: str, kind, expected: str):
    value = entry.get(key) if isinstance(entry, Mapping) else None
    if not isinstance(value, kind):
        raise ProbelineError(f"{path}: key '{key}': expected {expected}, found {value!r}")
    return value


def _check(outputs: Sequence[str | os.PathLike]) -> None:
    for path in outputs:
        if Path(path).suffix not in _FORMATS:
            raise ProbelineError(f"{path}: suffix {one_of(Path(path).suffix, _FORMATS)}")


# Panels, series, axes


def _row(panel: str, kind: str, x: float, y: float, **more) -> dict:
    return {"panel": panel, "kind": kind, "x": x, "y": y} | more


def _place(slug: str) -> tuple[str, str]:
    """(panel, series) of a slug."""
    representation, _, pooling = slug.partition(".")
    if representation in REPRESENTATIONS and pooling in POOLINGS:
        return representation, pooling
    # A combination may be called 'mean'.
    return "combined", f"{slug} (combination)" if slug in POOLINGS else slug


def _looks(rows: Iterable[dict]) -> dict[str, tuple[str, str]]:
    """(colour, shape) by series, poolings first."""
    series = list(dict.fromkeys(row["series"] for row in rows if "series" in row))
    poolings = [name for name in _LOOKS if name in series]
    numbers = {name: _LOOKS.index(name) for name in poolings}
    others = [name for name in series if name not in poolings]
    numbers |= {name: i for i, name in enumerate(others, len(_LOOKS))}
    return {
        name: (_COLOURS[i % len(_COLOURS)], _SHAPES[i % len(_SHAPES)])
        for name, i in numbers.items()
    }


def _apart(
    corners: Sequence[tuple[float, float]], x: _Axis, y: _Axis, width: int, pixels: float
) -> list[tuple[float, float]]:
    """The last corner of a line, and from it back those at least `pixels` from one another."""
    kept: list[tuple[float, float]] = []
    last = None
    for corner in reversed(corners):
        at = (width * x.share(corner[0]), _HEIGHT * y.share(corner[1]))
        if last is None or math.dist(at, last) >= pixels:
            kept.append(corner)
            last = at
    return kept[::-1]


def _thinned(values: Sequence, most: int) -> list:
    """At most `most` values, evenly spaced in their order, first and last among them."""
    if len(values) <= most:
        return list(values)
    return [values[i] for i in np.linspace(0, len(values) - 1, max(most, 2)).astype(int)]


def _width(panels: int) -> int:
    return _WIDTHS.get(panels, _NARROWEST)


def _name(metric: str) -> str:
    return _METRICS.get(metric, metric)


def _score_axis(
    title: str, scores: Sequence[float], always: Sequence[float], reach: float
) -> tuple[_Axis, list[str]]:
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
    return _Axis(title, domain, ticks, f"format(datum.value, '.{digits}f')"), note


def _nice(step: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is at least `step`."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= step * (1 - 1e-9))


def _layer_axis(layers: Sequence[int]) -> _Axis:
    low, high = min(layers), max(layers)
    step = int(max(1, _nice((high - low) / 13 or 1)))
    margin = max(0.3, 0.03 * (high - low))
    ticks = [layer for layer in range(0, high + 1, step) if layer >= low]
    title = "Layer (0 = embeddings)" if low == 0 else "Layer"
    return _Axis(title, (low - margin, high + margin), ticks, "format(datum.value, 'd')")


def _neuron_axis(counts: set[int]) -> tuple[_Axis, Callable[[int], float]]:
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
    axis = _Axis("Neurons kept (log scale)", (start * 0.8, high * 1.25), ticks, labels, "log")
    return axis, lambda count: count or zero


# Drawing


def _draw(figure: _Figure, outputs: Sequence[str | os.PathLike]) -> None:
    import vl_convert

    buffer = io.StringIO()
    _chart(figure).save(buffer, format="svg")
    svg = _stable(buffer.getvalue())
    for path in outputs:
        with replacing(path) as temporary:
            if Path(path).suffix == ".svg":
                temporary.write_text(svg, encoding="utf-8")
            else:
                temporary.write_bytes(vl_convert.svg_to_png(svg, scale=_PNG_SCALE))


def _stable(svg: str) -> str:
    """Number clip paths from 0, since the renderer counts them through the life of the process, and
    round coordinates to hundredths of a pixel."""
    seen: dict[str, str] = {}
    svg = re.sub(r"\bclip\d+\b", lambda m: seen.setdefault(m[0], f"clip{len(seen)}"), svg)

    def rounded(attribute: re.Match) -> str:
        return re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", attribute[0])

    return re.sub(r'\b(?:transform|d)="[^"]*"', rounded, svg)


def _chart(figure: _Figure):
    import altair as alt

    panels = [panel for panel in _PANELS if any(row["panel"] == panel for row in figure.rows)]
    rows = [row | {"panel": _PANELS[row["panel"]]} for row in figure.rows]
    rows += [
        {"panel": _PANELS[panel], "kind": "reference", "y": value, "name": name}
        for panel in panels
        for name, value in figure.lines.items()
    ]
    base = alt.Chart(alt.Data(values=rows))
    cloud, *drawn = _series(base, figure)
    # In this order the series' legend comes first, and their lines lie above the baselines'.
    marks = [cloud, _references(base, figure), *drawn, *_rings(base, figure)]
    return (
        alt.layer(*marks)
        .properties(width=_width(len(panels)), height=_HEIGHT)
        .facet(column=alt.Column("panel:N", sort=[_PANELS[panel] for panel in panels], title=None))
        .properties(title=alt.Title(figure.title, subtitle=figure.notes))
        .configure(**_THEME)
    )


def _encoded(chart, figure: _Figure, **channels):
    import altair as alt

    def axis(spec: _Axis, grid: bool):
        return {
            "title": spec.title,
            "scale": alt.Scale(type=spec.scale, domain=spec.domain, nice=False, zero=False),
            "axis": alt.Axis(values=spec.ticks, labelExpr=spec.labels, grid=grid),
        }

    if "x" not in channels:
        channels["x"] = alt.X("x:Q", **axis(figure.x, grid=False))
    return chart.encode(y=alt.Y("y:Q", **axis(figure.y, grid=True)), **channels)


def _series(base, figure: _Figure) -> list:
    """Faint clouds, lines, and the lines' points; one legend for colour and shape."""
    import altair as alt

    looks = _looks(figure.rows)
    legend = alt.Legend(title=figure.legend, columns=_legend_columns(looks), symbolOpacity=1)
    colours, shapes = zip(*looks.values(), strict=True)
    domain = list(looks)
    colour = alt.Color("series:N", scale=alt.Scale(domain=domain, range=colours), legend=legend)
    shape = alt.Shape("series:N", scale=alt.Scale(domain=domain, range=shapes), legend=legend)
    line = base.transform_filter("datum.kind == 'line'")
    cloud = base.transform_filter("datum.kind == 'cloud'")
    marks = [
        cloud.mark_circle(size=9, opacity=0.25, clip=True).encode(color=colour),
        line.mark_line(strokeWidth=1.8, interpolate=figure.interpolate, clip=True).encode(
            color=colour
        ),
        line.transform_filter("datum.dot")
        .mark_point(size=42, opacity=1, filled=True, clip=True)
        .encode(color=colour, shape=shape),
    ]
    return [_encoded(mark, figure) for mark in marks]


def _legend_columns(names: Iterable[str]) -> int:
    return max(1, min(5, 120 // (8 + max(map(len, names)))))


def _references(base, figure: _Figure):
    """Horizontal lines over the whole width."""
    import altair as alt

    legend = alt.Legend(title="Baseline", symbolType="stroke", symbolSize=400, columns=1)
    dashes = ([7, 4], [2, 3])[: len(figure.lines)]
    scale = alt.Scale(domain=list(figure.lines), range=dashes)
    rule = base.transform_filter("datum.kind == 'reference'").mark_rule(
        color=_GREY, strokeWidth=1.6
    )
    return _encoded(
        rule,
        figure,
        x=alt.value(0),
        x2=alt.value("width"),
        strokeDash=alt.StrokeDash("name:N", scale=scale, legend=legend),
    )


def _rings(base, figure: _Figure) -> list:
    marks = [
        base.transform_filter(f"datum.kind == '{shape}'").mark_point(
            shape=shape, size=240, stroke="black", strokeWidth=2, fill=None, opacity=1
        )
        for shape in _GLYPHS
    ]
    return [_encoded(mark, figure) for mark in marks]


_THEME = {
    "aria": False,  # else every point carries a sentence for screen readers
    "background": "white",
    "font": "Liberation Sans, Arial, Helvetica, sans-serif",
    "padding": 12,
    "title": {
        "anchor": "start",
        "fontSize": 16,
        "subtitleFontSize": 12,
        "subtitleColor": "#333333",
        "subtitlePadding": 6,
        "subtitleLineHeight": 16,
        "offset": 14,
    },
    "view": {"stroke": "#BBBBBB"},
    "axis": {
        "labelFontSize": 12,
        "titleFontSize": 13,
        "titleFontWeight": "normal",
        "titlePadding": 8,
        "gridColor": "#E6E6E6",
        "domain": False,
        "tickColor": "#888888",
        "labelColor": "#222222",
        "labelOverlap": True,
    },
    "header": {"labelFontSize": 13, "labelFontWeight": "bold", "labelPadding": 6},
    "legend": {
        "orient": "bottom",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "labelLimit": 0,
        "symbolSize": 80,
        "symbolStrokeColor": _GREY,
        "columnPadding": 18,
        "padding": 8,
        "offset": 14,
    },
    "facet": {"spacing": 18},
}
