"""The figure of a hyperparameter search: scores by trial, and what mattered."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pandas as pd

from probeline.errors import ProbelineError
from probeline.results.figures.axes import metric_name
from probeline.results.figures.drawing import GLYPHS, THEME, check_outputs, render
from probeline.results.figures.panels import HEIGHT, panel_width

_COLOURS = {"complete": "#0072B2", "pruned": "#999999"}
_TICKS = 10


def search_figure(
    trials: str | os.PathLike,
    importance: str | os.PathLike,
    metric: str,
    title: str,
    outputs: Sequence[str | os.PathLike],
) -> None:
    """Draw the validation score of each trial with the best so far, and the settings' importance.

    The best trial is ringed. Pruned trials stand at their last evaluation's score. Without
    importances, for which trials were too few, there is one panel.

    Parameters
    ----------
    trials, importance : path
        CSV; see `probeline.search.report`.
    metric : str
        Name of the score, as in the configuration.
    outputs : sequence of path
        `.svg` or `.png`.

    Raises
    ------
    ProbelineError
        If a table is missing or not one, or an output has another suffix.
    """
    check_outputs(outputs)
    table = _read(trials, ("trial", "state", "score", "best"))
    mattered = _read(importance, ("setting", "importance"))
    render(_chart(table, mattered, metric, title), outputs)


def _read(path: str | os.PathLike, columns: Sequence[str]) -> pd.DataFrame:
    try:
        table = pd.read_csv(path)
    except FileNotFoundError:
        raise ProbelineError(f"{path}: no such table of a search") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise ProbelineError(f"{path}: not a readable CSV file: {error}") from None
    if not set(columns) <= set(table.columns):
        raise ProbelineError(f"{path}: not a table of a search: expected {', '.join(columns)}")
    return table


def _chart(table: pd.DataFrame, mattered: pd.DataFrame, metric: str, title: str):
    import altair as alt

    complete = table[table["state"] == "complete"]
    notes, ringed = [], None
    if len(complete):
        best = complete.loc[complete["score"].idxmax()]
        ringed = int(best["trial"])
        name = metric_name(metric)
        notes = [f"{GLYPHS['circle']} Best: trial {ringed}, validation {name} {best['score']:.3f}"]
    rows = [
        {
            "trial": int(row.trial),
            "state": row.state,
            "score": float(row.score),
            "best": None if pd.isna(row.best) else float(row.best),
            "ringed": row.trial == ringed,
        }
        for row in table[table["score"].notna()].itertuples()
    ]
    panels = [_history(rows, f"Validation {metric_name(metric)}")]
    if len(mattered):
        panels.append(_importance(mattered.to_dict("records")))
    return (
        alt.hconcat(*panels, spacing=40)
        .properties(title=alt.Title(title, subtitle=notes))
        .configure(**THEME)
    )


def _history(rows: list[dict], title: str):
    import altair as alt

    last = max((row["trial"] for row in rows), default=0)
    x = alt.X(
        "trial:Q",
        title="Trial",
        scale=alt.Scale(domain=[-0.5, last + 0.5], nice=False),
        axis=alt.Axis(grid=False, values=list(range(0, last + 1, last // _TICKS + 1))),
    )
    scale = alt.Scale(zero=False)
    colour = alt.Color(
        "state:N",
        scale=alt.Scale(domain=list(_COLOURS), range=list(_COLOURS.values())),
        legend=alt.Legend(title=None),
    )
    base = alt.Chart(alt.Data(values=rows)).encode(x=x)
    best = base.mark_line(interpolate="step-after", strokeWidth=1.6, color="#0072B2", opacity=0.6)
    dots = base.mark_point(size=42, filled=True, opacity=1)
    ring = base.transform_filter("datum.ringed").mark_point(
        shape="circle", size=240, stroke="black", strokeWidth=2, fill=None, opacity=1
    )
    y = alt.Y("score:Q", title=title, scale=scale)
    layers = alt.layer(
        best.transform_filter("datum.best != null").encode(
            y=alt.Y("best:Q", title=title, scale=scale)
        ),
        dots.encode(y=y, color=colour),
        ring.encode(y=y),
    )
    return layers.properties(width=panel_width(2), height=HEIGHT)


def _importance(rows: list[dict]):
    import altair as alt

    return (
        alt.Chart(alt.Data(values=rows))
        .mark_bar(color="#0072B2")
        .encode(
            x=alt.X("importance:Q", title="Importance", scale=alt.Scale(domain=[0, 1])),
            y=alt.Y("setting:N", title=None, sort=[row["setting"] for row in rows]),
        )
        .properties(width=panel_width(2) // 2, height=28 * len(rows))
    )
