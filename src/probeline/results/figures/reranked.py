"""The figure of the score against the share of texts that are reranked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from statistics import mean

from probeline.results.figures.axes import metric_name, score_axis
from probeline.results.figures.drawing import GLYPHS, THEME, check_outputs, render
from probeline.results.figures.panels import HEIGHT, panel_width
from probeline.results.figures.reading import read_curve, read_rerank_report

_COLOURS = {"validation": "#0072B2", "test": "#D55E00"}
# All scores are shown: none of them is of no use.
_REACH = float("inf")


def reranked_figure(
    reports: Sequence[str | os.PathLike],
    title: str,
    outputs: Sequence[str | os.PathLike],
    curves: Sequence[str | os.PathLike] = (),
) -> None:
    """Draw the score on validation and test by the share of texts reranked, least certain first.

    A dashed line is the score without reranking, a ring what the chosen threshold reranks. Where
    nothing was chosen the curve is of the best that was tried, and a note says so.

    Parameters
    ----------
    reports : sequence of path
        report.json, one per seed: `metric`; `curve`, the rows of `probeline.lrsl.curve.share_curve`
        on validation and test; `shown`, what the curve is of (`variant`) and whether that was
        chosen; `chosen_share` and `hard_share`, {split: share of texts that are reranked, or hard
        by the threshold of what is shown}.
    title : str
    outputs : sequence of path
        `.svg` or `.png`.
    curves : sequence of path, optional
        JSON, one per report, with a `curve` of all texts to draw in the place of the report's.

    Raises
    ------
    ProbelineError
        If a report or curve is missing, unreadable or not one, or an output has another suffix.
    """
    check_outputs(outputs)
    found = [read_rerank_report(path) for path in reports]
    for report, path in zip(found, curves, strict=bool(curves)):
        report["curve"] = read_curve(path)
    lines = [
        {**row, "kind": "line", "seed": seed}
        for seed, report in enumerate(found)
        for row in report["curve"]
    ]
    marks, metric = _marks(found), found[0]["metric"]
    render(_chart(lines + marks, metric, title, _notes(found, marks, metric)), outputs)


def _marks(reports: Sequence[dict]) -> list[dict]:
    """Where no text is reranked, and the point of the curve nearest to the chosen share."""
    rows = []
    for report in reports:
        for split, share in report["chosen_share"].items():
            own = [row for row in report["curve"] if row["split"] == split]
            rows.append(min(own, key=lambda row: row["share"]) | {"kind": "before"})
            if report["shown"]["chosen"]:
                chosen = min(own, key=lambda row: abs(row["share"] - share))
                rows.append(chosen | {"kind": "chosen", "before": rows[-1]["score"]})
    return rows


def _notes(reports: Sequence[dict], marks: Sequence[dict], metric: str) -> list[str]:
    """What the ring stands for, by split; of several seeds the means. Then where there is none."""
    notes = []
    for split in _COLOURS:
        chosen = [row for row in marks if row["split"] == split and row["kind"] == "chosen"]
        if chosen:
            share, before, score = (
                mean(row[key] for row in chosen) for key in ("share", "before", "score")
            )
            seeds = f" (mean of {len(chosen)} seeds)" if len(chosen) > 1 else ""
            notes.append(
                f"{GLYPHS['circle']} Chosen, on {split}: {share:.1%} of the texts reranked, "
                f"{metric_name(metric)} {before:.3f} to {score:.3f}{seeds}"
            )
    return notes + _idle_notes(reports)


def _idle_notes(reports: Sequence[dict]) -> list[str]:
    """What is drawn where doing nothing was chosen."""
    idle = [report for report in reports if not report["shown"]["chosen"]]
    if not idle:
        return []
    seeds = f" for {len(idle)} of {len(reports)} seeds" if len(reports) > 1 else ""
    tried = dict.fromkeys(report["shown"]["variant"] for report in idle)
    if list(tried) == ["nothing"]:
        return [f"Nothing was chosen{seeds}: no text is hard"]
    hard = [
        f"{mean(report['hard_share'][split] for report in idle):.1%} of {split}"
        for split in _COLOURS
        if all(split in report["hard_share"] for report in idle)
    ]
    return [
        f"Nothing was chosen{seeds}: drawn is the best that was tried ({'; '.join(tried)})",
        f"Hard by its threshold, though not reranked: {', '.join(hard)}",
    ]


def _chart(rows: list[dict], metric: str, title: str, notes: Sequence[str]):
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
            title=alt.Title(title, subtitle=list(notes)),
        )
        .configure(**THEME)
    )
