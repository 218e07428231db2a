"""Points of the grids, those that are Pareto-optimal, and the table of them."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import pyarrow as pa

from probeline.aggregate.stage import read_grid
from probeline.errors import ProbelineError
from probeline.files import replacing


class Point(NamedTuple):
    """A classifier of a grid: `score` on validation with `neurons` neurons of layers 0..`depth`."""

    slug: str
    neurons: int
    depth: int
    eta: float
    score: float


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
    front = pareto_front(read_points(grids))
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


def read_points(grids: Mapping[str, str | os.PathLike]) -> list[Point]:
    found = [
        Point(slug, candidate.step.neurons, candidate.depth, candidate.eta, candidate.step.score)
        for slug, path in grids.items()
        for candidate in sorted(read_grid(path)[0], key=lambda candidate: candidate.eta)
    ]
    if not found:
        raise ProbelineError("the trade-off has no grid to read; expected one per slug at least")
    return found
