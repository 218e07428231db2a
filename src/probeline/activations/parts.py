"""Shards in parts: files that hold a range of rows each, and an index that makes them one shard.

    hidden.mean.03.h5                  the index: what the shard is, and its parts in order
    part-1-of-2/hidden.mean.03.h5      a shard of some rows, which says which ones
    part-2-of-2/hidden.mean.03.h5

Nothing is copied. The index names its parts relative to itself, so that a folder may be moved, and
parts may be links to files that lie elsewhere. Names start in the folder where the index is opened,
not where a link to it leads. (Virtual datasets of HDF5 bear neither.)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from probeline import hdf5
from probeline.activations.shards import (
    INDEX,
    REMEDY,
    Shard,
    open_part,
    open_shard,
    row_hash,
)
from probeline.errors import ProbelineError
from probeline.sealed import sealing

# What a part says of itself and not of the shard that it belongs to.
_OWN = ("part", "parts", "start", "stop", "total_rows", "whole")


@dataclass(frozen=True)
class Part:
    """One of several jobs that extract a dataset together.

    Attributes
    ----------
    number : int
        1 to `parts`.
    parts : int
    """

    number: int
    parts: int

    def rows(self, rows: int, block: int) -> tuple[int, int]:
        """Return (first row, row after the last) of this part of `rows` rows.

        Whole blocks of `block` rows, so that a text has the same neighbours in its block whatever
        the number of parts. Parts differ by one block at most, and where they outnumber the blocks
        some are empty.
        """
        blocks = -(-rows // block)
        ends = (number * blocks // self.parts for number in (self.number - 1, self.number))
        start, stop = (min(end * block, rows) for end in ends)
        return start, stop


class _Piece(NamedTuple):
    """A part's file and the rows from `start` to `stop` that it holds."""

    path: Path
    start: int
    stop: int


class PartedShard(Shard):
    """A shard of several parts, open for reading; made by `open_shard`.

    Parts are opened one at a time, however many there are.

    Parameters
    ----------
    path : Path
        The index.
    meta : dict
        Its attributes.

    Raises
    ------
    ProbelineError
        If a part is missing, damaged, unfinished, of other rows or about something else.
    """

    def __init__(self, path: Path, meta: dict):
        self.path = path
        self.meta = meta
        self._pieces = _pieces(path, meta)
        self.rows, self.width = meta["rows"], meta["width"]
        self._open: Shard | None = None
        self._checked: dict[int, np.ndarray] = {}
        for number in range(len(self._pieces)):
            self._opened(number).__exit__()

    def __exit__(self, *_) -> None:
        if self._open is not None:
            self._open.__exit__()
            self._open = None

    def check(self, advance: Callable[[int], object] = lambda rows: None) -> None:
        """As `Shard.check`, part by part."""
        for number in range(len(self._pieces)):
            self._held(number).check(advance)

    def _fill(self, result: np.ndarray, start: int, columns: np.ndarray | None) -> None:
        for number, (_, begin, end) in enumerate(self._pieces):
            first, last = max(start, begin), min(start + len(result), end)
            if first < last:
                own = result[first - start : last - start]
                self._held(number)._fill(own, first - begin, columns)

    def _held(self, number: int) -> Shard:
        """The part, open; the one before is closed."""
        if self._open is None or self._open.path != self._pieces[number].path:
            self.__exit__()
            self._open = self._opened(number)
            # Blocks that were compared once are not again when their part is opened anew.
            self._open._checked = self._checked.setdefault(number, self._open._checked)
        return self._open

    def _opened(self, number: int) -> Shard:
        path, start, stop = self._pieces[number]
        parts = len(self._pieces)
        _refuse_missing(path, number + 1, parts)
        own = {"part": number + 1, "parts": parts, "start": start, "stop": stop}
        part = open_part(path, own | {"rows": stop - start})
        try:
            _refuse_unlike(part, _about(self.meta), self.meta["extraction"], "the shard")
            # Of rows that there are: hashing those that an index claims might never end.
            _refuse_other_rows(part, row_hash(stop - start, start))
        except BaseException:
            part.__exit__()
            raise
        return part


def part_files(path: str | os.PathLike) -> list[Path]:
    """Return the files that the shard at `path` consists of: itself, then its parts if it has some.

    Whoever copies, stages or verifies a shard needs all of them.

    Raises
    ------
    ProbelineError
        As `open_shard`.
    """
    with open_shard(path) as shard:
        pieces = shard._pieces if isinstance(shard, PartedShard) else []
        return [shard.path, *(piece.path for piece in pieces)]


def write_index(path: Path, parts: Sequence[str]) -> dict:
    """Check the parts of a shard against each other and write their index.

    Parameters
    ----------
    path : Path
        The shard to be.
    parts : sequence of str
        Files of the parts in the order of their rows, relative to the folder of `path`.

    Returns
    -------
    dict
        The shard's attributes.

    Raises
    ------
    ProbelineError
        If a part is missing, damaged, unfinished, about another run than the first, or if their
        rows are not all rows of the dataset, each once.
    """
    metas = list(_metas(path, parts))
    if metas[-1]["stop"] != metas[0]["total_rows"]:
        raise ProbelineError(
            f"{path.parent / parts[-1]}: the last part ends at row {metas[-1]['stop']} of "
            f"{metas[0]['total_rows']}; {REMEDY}"
        )
    rows = metas[0]["total_rows"]
    held = sum(found["rows"] for found in metas)
    if held != rows:
        raise ProbelineError(
            f"{path.parent / parts[-1]}: all parts hold {held} rows, expected {rows}; delete them "
            "and run the same command again"
        )
    meta = {key: value for key, value in metas[0].items() if key not in _OWN} | {
        "format": INDEX,
        "rows": rows,
        "row_hash": row_hash(rows),
        "extraction": metas[0]["whole"],
        "files": [
            {"name": name, "start": found["start"], "stop": found["stop"]}
            for name, found in zip(parts, metas, strict=True)
        ],
    }
    with sealing(path) as file:
        hdf5.put_attributes(file, meta)
    return meta


def _metas(path: Path, parts: Sequence[str]) -> Iterator[dict]:
    """Attributes of every part, each checked against the first and the one before."""
    first, row = None, 0
    for number, name in enumerate(parts, start=1):
        file = path.parent / name
        _refuse_missing(file, number, len(parts))
        own = {"part": number, "parts": len(parts), "start": row}
        with open_part(file, own) as part:
            meta = part.meta
            _refuse_untold(part)
            first = first or meta
            _refuse_unlike(part, _about(first), first["whole"], "part 1")
        row = meta["stop"]
        yield meta


def _pieces(path: Path, meta: Mapping) -> list[_Piece]:
    found, row = [], 0
    for entry in _entries(path, meta):
        name = PurePosixPath(entry["name"])
        if name.is_absolute() or ".." in name.parts:
            raise ProbelineError(
                f"{path}: names a part outside its folder, '{entry['name']}'; {REMEDY}"
            )
        if entry["start"] != row or entry["stop"] < row:
            raise ProbelineError(
                f"{path}: its part '{entry['name']}' begins at row {entry['start']}, expected "
                f"{row}; {REMEDY}"
            )
        row = entry["stop"]
        found.append(_Piece(path.parent / name, entry["start"], row))
    if row != meta["rows"]:
        raise ProbelineError(f"{path}: its parts hold {row} of {meta['rows']} rows; {REMEDY}")
    return found


def _entries(path: Path, meta: Mapping) -> list[dict]:
    """What an index says of its parts, each value of the type that it should be."""
    whole = all(type(meta.get(name)) is int and meta[name] > 0 for name in ("rows", "width"))
    files = meta.get("files")
    plain = isinstance(files, list) and all(
        isinstance(entry, dict)
        and isinstance(entry.get("name"), str)
        and all(type(entry.get(end)) is int for end in ("start", "stop"))
        for entry in files
    )
    if not (whole and plain and isinstance(meta.get("extraction"), str)):
        raise ProbelineError(
            f"{path}: not a whole shard: its rows, width, extraction or files are missing or no "
            f"such values; {REMEDY}"
        )
    return files


def _refuse_missing(path: Path, number: int, parts: int) -> None:
    if not path.is_file():
        raise ProbelineError(
            f"{path}: part {number} of {parts} of this shard is missing; run the same command again"
        )


def _about(meta: Mapping) -> dict:
    """What all parts of a shard have in common."""
    left_out = (*_OWN, "format", "rows", "row_hash", "extraction", "files", "library_version")
    return {key: value for key, value in meta.items() if key not in left_out}


def _refuse_untold(part: Shard) -> None:
    """Refuse a part that does not say where its rows end, or of which shard it is."""
    told = all(type(part.meta.get(name)) is int for name in ("stop", "total_rows"))
    told = told and isinstance(part.meta.get("whole"), str)
    if not told:
        raise ProbelineError(
            f"{part.path}: not a whole part: its stop, total_rows or whole are missing or no such "
            f"values; {REMEDY}"
        )


def _refuse_other_rows(part: Shard, expected: str) -> None:
    found = part.meta.get("row_hash")
    if found != expected:
        raise ProbelineError(
            f"{part.path}: about another run: its row_hash is '{found}', expected '{expected}'; "
            f"{REMEDY}"
        )


def _refuse_unlike(part: Shard, about: Mapping, whole: str, of_what: str) -> None:
    for key, value in about.items():
        if part.meta.get(key) != value:
            raise ProbelineError(
                f"{part.path}: its {key} is '{part.meta.get(key)}', that of {of_what} '{value}'; "
                "delete the one that is wrong and run the same command again"
            )
    if part.meta.get("whole") != whole:
        raise ProbelineError(
            f"{part.path}: made with other settings than {of_what} (batch_tokens, block_texts or "
            "the model's config.json); delete the one that is wrong and run the same command again"
        )
