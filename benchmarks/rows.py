"""Rows of the table: a target, what was measured, and whether that is enough."""

from __future__ import annotations

import importlib
import json
import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from benchmarks.bench import Bench

_LONGEST_ERROR = 300


@dataclass(frozen=True)
class Outcome:
    """What a measurement found.

    Attributes
    ----------
    measured : float or None
        In the target's terms; None if nothing was measured.
    met : bool or None
        None if the measurement does not decide it.
    note : str
        What was run, the parts of the figure, how far from the floor it is.
    floor : float or None
        What no implementation can be better than, in the terms of `measured`.
    """

    measured: float | None
    met: bool | None
    note: str
    floor: float | None = None


@dataclass(frozen=True)
class Row:
    """A line of the table: an outcome and the target it is about."""

    id: str
    target: str
    measured: float | None
    met: bool | None
    note: str
    floor: float | None = None

    def as_json(self) -> dict:
        """Plain values; `floor` only where there is one."""
        values = asdict(self)
        if self.floor is None:
            del values["floor"]
        return values


@dataclass(frozen=True)
class Benchmark:
    """A target and the function that measures it.

    Attributes
    ----------
    id, target : str
    place : str or callable
        `module:function`, imported when its turn comes; called with the `Bench`.
    """

    id: str
    target: str
    place: str | Callable[[Bench], Outcome]

    def measure(self, bench: Bench) -> Outcome:
        """Import the function and call it."""
        if not isinstance(self.place, str):
            return self.place(bench)
        module, function = self.place.split(":")
        return getattr(importlib.import_module(module), function)(bench)


@dataclass(frozen=True)
class Part:
    """One of several figures that a target names.

    Attributes
    ----------
    name : str
    measured, limit : float
    least : bool
        Whether `limit` is the least that is enough, rather than the most.
    """

    name: str
    measured: float
    limit: float
    least: bool = False

    @property
    def met(self) -> bool:
        """Whether the limit is kept."""
        return self.measured >= self.limit if self.least else self.measured <= self.limit

    @property
    def strain(self) -> float:
        """1 at the limit, more beyond it."""
        if self.least:
            return self.limit / self.measured if self.measured > 0 else float("inf")
        return self.measured / self.limit


def combined(
    parts: Sequence[Part],
    note: Iterable[str],
    floor: float | None = None,
    conditions: Sequence[bool] = (),
) -> Outcome:
    """Make one outcome of several parts: the one nearest to its limit, or farthest beyond, counts.

    Parameters
    ----------
    note : iterable of str
        Joined by semicolons, after the parts' own figures where there are several.
    conditions : sequence of bool
        What must hold beside the parts' limits.
    """
    worst = max(parts, key=lambda part: part.strain)
    names = [f"{part.name} {shown(part.measured)}" for part in parts if len(parts) > 1]
    met = all(part.met for part in parts) and all(conditions)
    return Outcome(worst.measured, met, "; ".join([*names, *filter(None, note)]), floor)


def run(benchmark: Benchmark, bench: Bench) -> Row:
    """Measure one row; what goes wrong stands in its note, and the next row can follow."""
    began = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = benchmark.measure(bench)
    except Exception as error:  # a row must not take the others with it
        found = Outcome(None, None, f"failed: {one_line(error)}")
    note = f"{found.note}; took {time.perf_counter() - began:.0f} s"
    met = None if found.met is None else bool(found.met)
    figures = _rounded(found.measured), _rounded(found.floor)
    return Row(benchmark.id, benchmark.target, figures[0], met, note, figures[1])


def _rounded(value: float | None) -> float | None:
    """Plain and with six digits; what is not finite was not measured."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.6g}")


def run_all(benchmarks: Iterable[Benchmark], bench: Bench) -> Iterator[Row]:
    """Measure the rows in order, each handed out as it finishes."""
    for benchmark in benchmarks:
        yield run(benchmark, bench)


def one_line(error: BaseException) -> str:
    """An error's kind and message on one line of bounded length."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= _LONGEST_ERROR else text[: _LONGEST_ERROR - 3] + "..."


def shown(value: float | None) -> str:
    """A figure with three digits that matter."""
    return "-" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def write_json(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows as a JSON list, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    values = [row.as_json() for row in rows]
    temporary.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    temporary.replace(path)


def line(row: Row) -> str:
    """A finished row on one line, for those who wait."""
    return f"{row.id:4} {shown(row.measured):>8}  met: {_word(row.met):3}  {row.note}"


def table(rows: Sequence[Row]) -> Table:
    """The rows as a table to print."""
    names = ("id", "target", "measured", "floor", "of the floor", "met", "note")
    made = Table(*names, box=None, padding=(0, 1))
    for row in rows:
        figures = shown(row.measured), shown(row.floor), _share(row)
        values = (row.id, row.target, *figures, _word(row.met))
        # As text, since a note may hold what rich would read as markup.
        made.add_row(*map(Text, (*values, row.note)))
    return made


def _share(row: Row) -> str:
    """How many times the floor was measured: above 1 for costs, below for times faster."""
    if row.measured is None or not row.floor:
        return "-"
    return f"{row.measured / row.floor:.2f} x"


def _word(met: bool | None) -> str:
    return {None: "-", True: "yes", False: "no"}[met]
