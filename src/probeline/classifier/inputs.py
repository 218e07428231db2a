"""Texts to classify, from arguments, files or standard input, in bounded batches."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from probeline.errors import ProbelineError, nearest

# Several of the blocks that are tokenized at once: while one is computed, the next is.
_BATCH = 4096
# Python's own limit, 131,072, is shorter than some texts.
_LONGEST_FIELD = 2**31 - 1
Batch = tuple[list[str], list[str] | None]


def read_inputs(
    texts: Sequence[str] | None, source: str | None, columns: Sequence[str]
) -> Iterator[Batch]:
    """Yield (texts, second texts or None) in batches.

    Parameters
    ----------
    texts : sequence of str or None
        Given on the command line.
    source : str or None
        A path ending in .csv, .tsv, .jsonl or .txt, or '-' for lines on standard input.
    columns : sequence of str
        One or two names of columns (CSV, TSV) or keys (JSON lines).

    Raises
    ------
    ProbelineError
        If there is nothing to read, or a line cannot be read: with file and line.
    """
    if bool(texts) == bool(source):
        raise ProbelineError("give texts as arguments, or a file with --input, and not both")
    if len(columns) > 2:
        raise ProbelineError("--text-column: at most two columns, separated by a comma")
    if texts:
        return iter([(list(texts), None)])
    batches = _batched(_rows(source, columns))
    # Read now: a wrong file should be said before a model is loaded for seconds.
    first = list(islice(batches, 1))
    return chain(first, batches)


def _batched(rows: Iterable[tuple[str, ...]]) -> Iterator[Batch]:
    rows = iter(rows)
    while batch := list(islice(rows, _BATCH)):
        first = [row[0] for row in batch]
        yield first, [row[1] for row in batch] if len(batch[0]) == 2 else None


def _rows(source: str, columns: Sequence[str]) -> Iterator[tuple[str, ...]]:
    path = Path(source)
    if source == "-":
        try:
            yield from _lines(_standard_input(), path, columns)
        except UnicodeDecodeError as error:
            raise ProbelineError(f"standard input: not UTF-8: {error}") from None
        return
    readers = {".csv": _delimited, ".tsv": _delimited, ".jsonl": _json_lines, ".txt": _lines}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ProbelineError(
            f"{path}: cannot tell its format; expected a name ending in {', '.join(readers)}"
        )
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            yield from reader(handle, path, columns)
    except FileNotFoundError:
        raise ProbelineError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise ProbelineError(f"{path}: not UTF-8: {error}; convert it first") from None
    except OSError as error:
        raise ProbelineError(f"{path}: cannot be read: {error.strerror or error}") from None


def _standard_input() -> io.TextIOWrapper:
    """UTF-8 whatever the locale says, which would else replace or keep broken bytes."""
    return io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", newline="")


def _lines(handle, path, columns) -> Iterator[tuple[str, ...]]:
    yield from ((line.rstrip("\r\n"),) for line in handle)


def _delimited(handle, path, columns) -> Iterator[tuple[str, ...]]:
    csv.field_size_limit(_LONGEST_FIELD)
    reader = csv.DictReader(handle, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
    try:
        yield from _records(reader, path, columns)
    except csv.Error as error:
        raise ProbelineError(f"{path}, line {reader.line_num}: {error}") from None


def _records(reader: csv.DictReader, path, columns) -> Iterator[tuple[str, ...]]:
    names = reader.fieldnames or []
    for column in columns:
        if column not in names:
            raise ProbelineError(
                f"{path}: no column '{column}'; it has {', '.join(names) or 'none'}"
                f"{nearest(column, names)}"
            )
    for row in reader:
        values = tuple(row[column] for column in columns)
        if None in values:
            raise ProbelineError(f"{path}, line {reader.line_num}: too few columns")
        yield values


def _json_lines(handle, path, columns) -> Iterator[tuple[str, ...]]:
    for number, line in enumerate(handle, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            values = tuple(record[column] for column in columns)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ProbelineError(
                f"{path}, line {number}: expected a JSON object with key "
                f"{' and '.join(repr(c) for c in columns)} ({type(error).__name__}: {error})"
            ) from None
        if not all(isinstance(value, str) for value in values):
            raise ProbelineError(f"{path}, line {number}: the text is not a string")
        yield values
