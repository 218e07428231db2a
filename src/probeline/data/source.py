"""Rows as they were read, which can tell where each of them stands."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from probeline.errors import ProbelineError


class Place(NamedTuple):
    """Something rows were read from: a table, or (`single`) a file that is one row."""

    name: str
    rows: int
    single: bool = False


@dataclass(frozen=True)
class Source:
    """Rows of one split, or of several one after the other.

    Attributes
    ----------
    texts : pyarrow.Table
        Column ``text`` and, for pairs, ``text_pair``; large_string, no nulls.
    labels : pyarrow.Table
        One column per task, named like it: large_string, int64, boolean, or a list of those.
    declared : dict
        {task: class names in order}, where the data themselves name their classes.
    places : tuple of Place
        What the rows were read from, in order.
    index : numpy.ndarray
        int64 (rows,): where in `places` each row stands, which `where` needs after `take`.
    revision : str, optional
        The hub's commit, where it is known.
    """

    texts: pa.Table
    labels: pa.Table
    declared: dict[str, list[str]]
    places: tuple[Place, ...]
    index: np.ndarray
    revision: str | None = None

    @property
    def rows(self) -> int:
        return len(self.index)

    def where(self, row: int) -> str:
        """Return the file and the row (counted from 1, header not counted) for a message."""
        original = int(self.index[row])
        part = bisect.bisect_right(self._ends, original)
        place = self.places[part]
        if place.single:
            return place.name
        return f"{place.name}: row {original - (self._ends[part] - place.rows) + 1}"

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(place.rows for place in self.places))

    def take(self, rows: np.ndarray) -> Source:
        """Return the rows with these numbers, in this order."""
        chosen = pa.array(rows)
        return replace(
            self,
            texts=self.texts.take(chosen),
            labels=self.labels.take(chosen),
            index=self.index[rows],
        )


def concatenate(sources: Sequence[Source]) -> Source:
    """Put sources one after the other; their label columns must be of one type."""
    first = sources[0]
    if len(sources) == 1:
        return first
    for other in sources[1:]:
        here_name, there_name = first.places[0].name, other.places[0].name
        for task in first.labels.column_names:
            here, there = first.labels[task].type, other.labels[task].type
            if here != there:
                raise ProbelineError(
                    f"{there_name}: labels of '{task}' are of type {there}, in {here_name} of "
                    f"type {here}; expected one type"
                )
            if first.declared.get(task) != other.declared.get(task):
                raise ProbelineError(
                    f"{there_name}: names other classes for '{task}' than {here_name}"
                )
    starts = accumulate((sum(place.rows for place in s.places) for s in sources), initial=0)
    return Source(
        pa.concat_tables([source.texts for source in sources]),
        pa.concat_tables([source.labels for source in sources]),
        first.declared,
        tuple(place for source in sources for place in source.places),
        np.concatenate([s.index + start for s, start in zip(sources, starts, strict=False)]),
        first.revision,
    )
