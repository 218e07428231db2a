"""The figure of the score against the share of texts that are reranked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from statistics import mean

from probeline.results.figures.axes import metric_name, score_axis
from probeline.results.figures.drawing import GLYPHS, THEME, check_outputs, render
from probeline.results.figures.panels import HEIGHT, panel_width
from probeline.results.figures.reading import read_rerank_report

_COLOURS = {"validation": "#0072B2", "test": "#D55E00"}
# All scores are shown: none of them is of no use.
_REACH = float("inf")


def reranked_figure(
    reports: Sequence[str | os.PathLike], title: str, outputs: Sequence[str | os.PathLike]
) -> None:
    """Draw the score on validation and test by the share of texts reranked, least certain first.

    A dashed line is the score without reranking, a ring what the chosen threshold reranks.

    Parameters
    ----------
    reports : sequence of path
        report.json, one per seed: `metric`; `curve`, the rows of `probeline.lrsl.curve.share_curve`
        on validation and test; and `chosen_share`, {split: share of texts that the chosen threshold
        reranks}.
    title : str
    outputs : sequence of path
        `.svg` or `.png`.

    Raises
    ------
    ProbelineError
        If a report is missing, unreadable or not one, or an output has another suffix.
    """
    check_outputs(outputs)
    found = [read_rerank_report(path) for path in reports]
    lines = [
        {**row, "kind": "line", "seed": seed}
        for seed, report in enumerate(found)
        for row in report["curve"]
    ]
    render(_chart(lines + _marks(found), found[0]["metric"], title), outputs)


def _marks(reports: Sequence[dict]) -> list[dict]:
    """Where no text is reranked, and the point of the curve nearest to the chosen share."""
    rows = []
    for report in reports:
        for split, share in report["chosen_share"].items():
            own = [row for row in report["curve"] if row["split"] == split]
            start = min(own, key=lambda row: row["share"])
            chosen = min(own, key=lambda row: abs(row["share"] - share))
            rows += [start | {"kind": "before"}, chosen | {"kind": "chosen"}]
    return rows


def _notes(rows: Sequence[dict], metric: str) -> list[str]:
    """What the ring stands for, by split; of several seeds the means."""
    notes = []
    for split in _COLOURS:
        own = [row for row in rows if row["split"] == split]
        before = [row["score"] for row in own if row["kind"] == "before"]
        chosen = [row for row in own if row["kind"] == "chosen"]
        if chosen:
            share, score = (mean(row[key] for row in chosen) for key in ("share", "score"))
            seeds = f" (mean of {len(chosen)} seeds)" if len(chosen) > 1 else ""
            notes.append(
                f"{GLYPHS['circle']} Chosen, on {split}: {share:.1%} of the texts reranked, "
                f"{metric_name(metric)} {mean(before):.3f} to {score:.3f}{seeds}"
            )
    return notes


def _chart(rows: list[dict], metric: str, title: str):
    import altair as alt

    score, _ = score_axis(metric_name(metric), [row["score"] for row in rows], [], _REACH)
    furthest = max(row["share"] for row in rows)
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y(
            "score:Q",
            title=score.title,
            scale=alt.Scale(domain=score.domain, nice=False, zero=False),
            axis=alt.Axis(values=score.ticks, labelExpr=score.labels),
        ),
        color=alt.Color(
            "split:N",
            scale=alt.Scale(domain=list(_COLOURS), range=list(_COLOURS.values())),
            legend=alt.Legend(title=None),
        ),
    )
    x = alt.X(
        "share:Q",
        title="Share of texts reranked, least certain first",
        scale=alt.Scale(domain=(0, furthest or 1), nice=False),
        axis=alt.Axis(format="%", grid=False),
    )
    line = base.transform_filter("datum.kind == 'line'").mark_line(
        strokeWidth=1.8, interpolate="step-after", clip=True
    )
    before = base.transform_filter("datum.kind == 'before'").mark_rule(
        strokeWidth=1.2, strokeDash=[6, 4]
    )
    ring = base.transform_filter("datum.kind == 'chosen'").mark_point(
        shape="circle", size=240, strokeWidth=2, fill=None, opacity=1
    )
    layers = [
        before.encode(x=alt.value(0), x2=alt.value("width")),
        line.encode(x=x, detail="seed:N"),
        ring.encode(x=x, color=alt.value("black")),
    ]
    return (
        alt.layer(*layers)
        .properties(
            width=panel_width(1),
            height=HEIGHT,
            title=alt.Title(title, subtitle=_notes(rows, metric)),
        )
        .configure(**THEME)
    )
