"""The figure of a learning curve: losses and the validation score by step."""

from __future__ import annotations

import os
from collections.abc import Sequence

from probeline.finetune.curve import read_curve
from probeline.results.figures.axes import metric_name
from probeline.results.figures.drawing import GLYPHS, THEME, check_outputs, render
from probeline.results.figures.panels import HEIGHT, panel_width

_COLOURS = {"train": "#999999", "validation": "#0072B2"}


def training_figure(
    curve: str | os.PathLike, metric: str, title: str, outputs: Sequence[str | os.PathLike]
) -> None:
    """Draw the losses of train and validation in one panel and the validation score in another.

    The best evaluation, the one whose weights are kept by default, is ringed in both.

    Parameters
    ----------
    curve : path
        learning_curve.parquet of a fine-tuned model's folder.
    metric : str
        Name of the score, as in the configuration.
    outputs : sequence of path
        `.svg` or `.png`.

    Raises
    ------
    ProbelineError
        If the curve is missing, unreadable or not one, or an output has another suffix.
    """
    check_outputs(outputs)
    rows = read_curve(curve)
    render(_chart(rows, metric, title), outputs)


def best_row(rows: Sequence[dict]) -> dict | None:
    """The evaluation with the highest score, of equal ones that with the lowest loss."""
    evaluations = [row for row in rows if row["split"] == "validation"]
    return max(evaluations, key=lambda row: (row["score"], -row["loss"]), default=None)


def _chart(rows: list[dict], metric: str, title: str):
    import altair as alt

    best = best_row(rows)
    notes = []
    if best is not None:
        found = f"step {best['step']:,}, validation {metric_name(metric)} {best['score']:.3f}"
        notes = [f"{GLYPHS['circle']} Best on validation: {found}"]
    rows = [row | {"best": row is best} for row in rows]
    scores = [row for row in rows if row["score"] is not None]
    panels = [
        _panel(rows, "loss", "Loss"),
        _panel(scores, "score", f"Validation {metric_name(metric)}"),
    ]
    return (
        alt.hconcat(*panels, spacing=40)
        .properties(title=alt.Title(title, subtitle=notes))
        .configure(**THEME)
    )


def _panel(rows: list[dict], field: str, title: str):
    import altair as alt

    x = alt.X("step:Q", title="Step", scale=alt.Scale(nice=False), axis=alt.Axis(grid=False))
    y = alt.Y(f"{field}:Q", title=title, scale=alt.Scale(zero=False))
    colour = alt.Color(
        "split:N",
        scale=alt.Scale(domain=list(_COLOURS), range=list(_COLOURS.values())),
        legend=alt.Legend(title=None),
    )
    base = alt.Chart(alt.Data(values=rows)).encode(x=x, y=y)
    line = base.mark_line(strokeWidth=1.8).encode(color=colour)
    dots = base.transform_filter("datum.split == 'validation'").mark_point(
        size=42, filled=True, opacity=1
    )
    ring = base.transform_filter("datum.best").mark_point(
        shape="circle", size=240, stroke="black", strokeWidth=2, fill=None, opacity=1
    )
    layers = alt.layer(line, dots.encode(color=colour), ring)
    return layers.properties(width=panel_width(2), height=HEIGHT)
