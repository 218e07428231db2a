"""Tables of several rerankings' reports, for people to look at."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import pandas as pd

from probeline.files import read_json, replacing

_SPLITS = ("validation", "test")
_PARTS = ("all", "hard")
_COUNTS = ("changed", "fixed", "broken")
_SCORES = ("before", "after", "difference", "ci_low", "ci_high", "accuracy_before")
_SCORES += ("accuracy_after",)


def write_report_tables(
    reports: Sequence[str | os.PathLike], changes: str | os.PathLike, classes: str | os.PathLike
) -> None:
    """Write what reports say as CSV, whole or not at all.

    Parameters
    ----------
    reports : sequence of path
        JSON of `probeline.lrsl.stage_report.report`, one per seed, with its `seed`.
    changes : path
        A row per seed, split, and texts (all of them, or the hard ones, reranked or not): how many
        there are, how many are hard, reranked, changed, fixed and broken; scores before and after.
    classes : path
        A row per seed, split and label, see `probeline.lrsl.report.by_class`.
    """
    found = [read_json(path) for path in reports]
    _write(changes, [row for report in found for row in change_rows(report)])
    _write(classes, [row for report in found for row in class_rows(report)])


def change_rows(report: Mapping) -> list[dict]:
    """Rows of the table of changes, of one report."""
    rows = []
    for split in _SPLITS:
        own = report[split]
        for part in _PARTS:
            rows.append(
                {
                    "seed": report["seed"],
                    "split": split,
                    "variant": report["variant"],
                    "of": part,
                    "texts": own["texts"] if part == "all" else report["hard_texts"][split],
                    # What is not hard is as it was, so that the counts are those of both.
                    "hard": report["hard_texts"][split],
                    "reranked": own["flagged"],
                    **{name: own[name] for name in _COUNTS},
                    "metric": report["metric"],
                    **{name: own[part][name] for name in _SCORES},
                }
            )
    return rows


def class_rows(report: Mapping) -> list[dict]:
    """Rows of the table of classes, of one report."""
    return [
        {"seed": report["seed"], "split": split, **row}
        for split in _SPLITS
        for row in report["by_class"][split]
    ]


def _write(path: str | os.PathLike, rows: list[dict]) -> None:
    with replacing(path) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
