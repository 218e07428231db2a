"""Drawing by Altair, and rendering by vl-convert: no browser, no network."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from probeline.errors import ProbelineError, one_of
from probeline.files import replacing
from probeline.results.figures.axes import Axis
from probeline.results.figures.panels import HEIGHT, PANELS, panel_width, series_looks

_FORMATS = (".svg", ".png")
_PNG_SCALE = 2
GREY = "#555555"
# The subtitle explains the marks.
GLYPHS = {"circle": "○", "square": "□"}


@dataclass(frozen=True)
class Figure:
    """What is drawn.

    A row of `rows` has panel, kind (cloud, line, circle, square), x and y; of a cloud or line, its
    series; of a line, whether the point gets a dot.
    """

    title: str
    notes: list[str]
    legend: str
    rows: list[dict]
    lines: dict[str, float]
    x: Axis
    y: Axis
    interpolate: str


def make_row(panel: str, kind: str, x: float, y: float, **more) -> dict:
    return {"panel": panel, "kind": kind, "x": x, "y": y} | more


def check_outputs(outputs: Sequence[str | os.PathLike]) -> None:
    for path in outputs:
        if Path(path).suffix not in _FORMATS:
            raise ProbelineError(f"{path}: suffix {one_of(Path(path).suffix, _FORMATS)}")


def draw(figure: Figure, outputs: Sequence[str | os.PathLike]) -> None:
    render(_chart(figure), outputs)


def render(chart, outputs: Sequence[str | os.PathLike]) -> None:
    """Write an Altair chart as `.svg` or `.png`."""
    import vl_convert

    buffer = io.StringIO()
    chart.save(buffer, format="svg")
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


def _chart(figure: Figure):
    import altair as alt

    panels = [panel for panel in PANELS if any(row["panel"] == panel for row in figure.rows)]
    rows = [row | {"panel": PANELS[row["panel"]]} for row in figure.rows]
    rows += [
        {"panel": PANELS[panel], "kind": "reference", "y": value, "name": name}
        for panel in panels
        for name, value in figure.lines.items()
    ]
    base = alt.Chart(alt.Data(values=rows))
    cloud, *drawn = _series(base, figure)
    # In this order the series' legend comes first, and their lines lie above the baselines'.
    marks = [cloud, _references(base, figure), *drawn, *_rings(base, figure)]
    return (
        alt.layer(*marks)
        .properties(width=panel_width(len(panels)), height=HEIGHT)
        .facet(column=alt.Column("panel:N", sort=[PANELS[panel] for panel in panels], title=None))
        .properties(title=alt.Title(figure.title, subtitle=figure.notes))
        .configure(**THEME)
    )


def _encoded(chart, figure: Figure, **channels):
    import altair as alt

    def axis(spec: Axis, grid: bool):
        return {
            "title": spec.title,
            "scale": alt.Scale(type=spec.scale, domain=spec.domain, nice=False, zero=False),
            "axis": alt.Axis(values=spec.ticks, labelExpr=spec.labels, grid=grid),
        }

    if "x" not in channels:
        channels["x"] = alt.X("x:Q", **axis(figure.x, grid=False))
    return chart.encode(y=alt.Y("y:Q", **axis(figure.y, grid=True)), **channels)


def _series(base, figure: Figure) -> list:
    """Faint clouds, lines, and the lines' points; one legend for colour and shape."""
    import altair as alt

    looks = series_looks(figure.rows)
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


def _references(base, figure: Figure):
    """Horizontal lines over the whole width."""
    import altair as alt

    legend = alt.Legend(title="Baseline", symbolType="stroke", symbolSize=400, columns=1)
    dashes = ([7, 4], [2, 3])[: len(figure.lines)]
    scale = alt.Scale(domain=list(figure.lines), range=dashes)
    rule = base.transform_filter("datum.kind == 'reference'").mark_rule(color=GREY, strokeWidth=1.6)
    return _encoded(
        rule,
        figure,
        x=alt.value(0),
        x2=alt.value("width"),
        strokeDash=alt.StrokeDash("name:N", scale=scale, legend=legend),
    )


def _rings(base, figure: Figure) -> list:
    marks = [
        base.transform_filter(f"datum.kind == '{shape}'").mark_point(
            shape=shape, size=240, stroke="black", strokeWidth=2, fill=None, opacity=1
        )
        for shape in GLYPHS
    ]
    return [_encoded(mark, figure) for mark in marks]


THEME = {
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
        "symbolStrokeColor": GREY,
        "columnPadding": 18,
        "padding": 8,
        "offset": 14,
    },
    "facet": {"spacing": 18},
}
