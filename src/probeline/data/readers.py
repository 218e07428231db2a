"""Files to Arrow tables: delimited text, JSON lines, Parquet, one folder per class."""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from probeline.data.encoding import codec_name, is_unicode, pick_encoding
from probeline.data.paths import class_files
from probeline.errors import ProbelineError, nearest
from probeline.files import refuse_special

_ROWS = 50_000


def require_columns(path: object, columns: Sequence[str], present: Sequence[str]) -> None:
    """Raise a `ProbelineError` that names the first of `columns` that is not in `present`."""
    for column in columns:
        if column not in present:
            raise ProbelineError(
                f"{path}: has no column '{column}'{nearest(column, present)}; "
                f"it has: {', '.join(map(str, present)) or 'none'}"
            )
        if list(present).count(column) > 1:
            raise ProbelineError(f"{path}: has {list(present).count(column)} columns '{column}'")


def read_delimited(
    path: Path, columns: Sequence[str] | None, delimiter: str, encodings: Sequence[str]
) -> pa.Table:
    """Read the named columns, or with None all, of a CSV or TSV file with a header line.

    Every cell is text; nothing is taken for a missing value ("NA" is a text). Blank lines are
    skipped. A TSV is read with quoting (as spreadsheets and pandas write it) when the whole file
    is consistent with it, and otherwise with quotes as ordinary characters (as GLUE's files are).

    Returns
    -------
    pyarrow.Table
        `columns`, all large_string.

    Raises
    ------
    ProbelineError
        Undecodable bytes, an empty file, a missing column, a row of another length, broken
        quoting; with the row or line.
    """
    refuse_special(path)
    encoding = pick_encoding(path, encodings)
    modes = [csv.QUOTE_MINIMAL] if delimiter == "," else [csv.QUOTE_MINIMAL, csv.QUOTE_NONE]
    for mode in modes:
        try:
            with path.open(encoding=encoding, newline="") as handle, _long_fields():
                reader = csv.reader(handle, delimiter=delimiter, quoting=mode, strict=True)
                return _delimited_rows(path, reader, columns)
        except csv.Error as error:
            if mode == modes[-1]:
                raise ProbelineError(f"{path}: line {reader.line_num}: {error}") from None
        except _Ragged as error:
            if mode == modes[-1]:
                raise ProbelineError(str(error)) from None
    raise AssertionError("unreachable: the last mode returns or raises")


class _Ragged(Exception):
    """A row with more or fewer fields than the header."""


@contextmanager
def _long_fields() -> Iterator[None]:
    """Lift the csv module's limit of 128 KiB per field, which is global, for a while."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _delimited_rows(path: Path, reader, columns: Sequence[str] | None) -> pa.Table:
    header = next((row for row in reader if row), None)
    if header is None:
        raise ProbelineError(f"{path}: is empty; expected a header line with the column names")
    columns = header if columns is None else columns
    require_columns(path, columns, header)
    places = [header.index(column) for column in columns]
    cells: list[list[str]] = [[] for _ in columns]
    chunks: list[list[pa.Array]] = [[] for _ in columns]
    count = 0
    for row in reader:
        if not row:
            continue
        count += 1
        if len(row) != len(header):
            raise _Ragged(
                f"{path}: row {count} (line {reader.line_num}) has {len(row)} fields, the header "
                f"has {len(header)}; quote texts that hold the separator"
            )
        for column, place in zip(cells, places, strict=True):
            column.append(row[place])
        if count % _ROWS == 0:
            _flush(cells, chunks)
    _flush(cells, chunks)
    return pa.table(
        {
            column: pa.chunked_array(parts, pa.large_string())
            for column, parts in zip(columns, chunks, strict=True)
        }
    )


def refuse_lists(path: Path, table: pa.Table, labels: Sequence[str]) -> None:
    """Refuse labels that are all written as lists: in a CSV each would be a class of its own.

    Raises
    ------
    ProbelineError
        With the first label.
    """
    for name in labels:
        column = table[name]
        if len(column) and pc.all(pc.match_substring_regex(column, r"^\s*\[.*\]\s*$")).as_py():
            raise ProbelineError(
                f"{path}: row 1: label '{column[0].as_py()}' in '{name}' is written like a list, "
                "but a cell holds one label; store multi-label data as JSON lines or Parquet"
            )


def _flush(cells: list[list[str]], chunks: list[list[pa.Array]]) -> None:
    """Move the collected cells into Arrow arrays, which take far less room than str objects."""
    for column, parts in zip(cells, chunks, strict=True):
        parts.append(pa.array(column, pa.large_string()))
        column.clear()


def read_json_lines(
    path: Path, texts: Sequence[str], labels: Sequence[str], encodings: Sequence[str]
) -> pa.Table:
    """Read the named keys of a file with one JSON object per line.

    A key that a row lacks is null there. The values of one label key must be of one type.

    Returns
    -------
    pyarrow.Table
        `texts` as large_string, then `labels` as text, int64, boolean or a list of those.

    Raises
    ------
    ProbelineError
        Undecodable bytes, a broken line, a key no row has, values of mixed types; with the row.
    """
    columns = [*texts, *labels]
    values: dict[str, list] = {column: [] for column in columns}
    chunks: dict[str, list[pa.Array]] = {column: [] for column in texts}
    seen: dict[str, None] = {}
    rows = 0
    for row in _json_objects(path, encodings):
        rows += 1
        seen.update(dict.fromkeys(row))
        for column in columns:
            values[column].append(row.get(column))
        for column in texts:
            _require_text(row.get(column), column, f"{path}: row {rows}")
            if rows % _ROWS == 0:
                chunks[column].append(pa.array(values[column], pa.large_string()))
                values[column].clear()
    if not rows:
        raise ProbelineError(f"{path}: is empty; expected one JSON object per line")
    require_columns(path, columns, list(seen))
    for column in texts:
        chunks[column].append(pa.array(values[column], pa.large_string()))
    arrays = {column: pa.chunked_array(chunks[column], pa.large_string()) for column in texts}
    for column in labels:
        arrays[column] = pa.chunked_array([_label_array(values[column], column, path)])
    return pa.table(arrays)


def _json_objects(path: Path, encodings: Sequence[str]) -> Iterator[dict]:
    refuse_special(path)
    with path.open(encoding=pick_encoding(path, encodings)) as handle:
        for number, line in enumerate(handle, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                kind = " (a JSON array? expected one object per line)" if line[0] == "[" else ""
                raise ProbelineError(f"{path}: line {number}: not JSON{kind}: {error}") from None
            if not isinstance(row, dict):
                raise ProbelineError(
                    f"{path}: line {number}: holds {_kind(row)}; expected one JSON object per "
                    'line, such as {"text": ..., "label": ...}'
                )
            yield row


def _require_text(value: object, column: str, where: str) -> None:
    if value is not None and not isinstance(value, str):
        raise ProbelineError(f"{where}: '{column}' holds {_kind(value)}; expected a text")
    if isinstance(value, str) and not is_unicode(value):
        raise ProbelineError(f"{where}: '{column}' holds half a character (a lone surrogate)")


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "a boolean"
    names = {int: "a whole number", float: "a decimal number", str: "a text", list: "a list"}
    return "null" if value is None else names.get(type(value), "an object")


def _label_array(values: list, column: str, path: Path) -> pa.Array:
    """Build the Arrow array of a label key, whose rows must agree in type."""
    first = _one_kind(enumerate(values, start=1), column, path)
    if first == "a list":
        items = ((row, item) for row, value in enumerate(values, start=1) for item in (value or ()))
        _one_kind(items, column, path, inside="the list of ")
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
        raise ProbelineError(f"{path}: '{column}' cannot be read as labels: {error}") from None


def _one_kind(rows: Iterator[tuple[int, object]], column: str, path: Path, inside: str = "") -> str:
    kind, first = "", 0
    for row, value in rows:
        if value is None:
            continue
        if not kind:
            kind, first = _kind(value), row
        elif _kind(value) != kind:
            raise ProbelineError(
                f"{path}: row {row}: {inside}'{column}' holds {_kind(value)}, row {first} "
                f"{kind}; labels of one column must be of one type"
            )
    return kind


def read_parquet(path: Path, columns: Sequence[str]) -> tuple[pa.Table, dict]:
    """Read the named columns of a Parquet file.

    Returns
    -------
    table : pyarrow.Table
    features : dict
        What the `datasets` library noted about the columns (class names), empty without it.

    Raises
    ------
    ProbelineError
        A broken file or a missing column.
    """
    refuse_special(path)
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            require_columns(path, columns, schema.names)
            table = file.read(columns=list(dict.fromkeys(columns)))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ProbelineError(f"{path}: not a complete Parquet file: {error}") from None
    return table.replace_schema_metadata(None), _noted_features(path, schema)


def _noted_features(path: Path, schema: pa.Schema) -> dict:
    noted = (schema.metadata or {}).get(b"huggingface")
    try:
        return dict(json.loads(noted).get("info", {}).get("features", {})) if noted else {}
    except (ValueError, RecursionError, TypeError, AttributeError) as error:
        raise ProbelineError(
            f"{path}: what the datasets library noted about its columns cannot be read "
            f"({type(error).__name__}: {error}); write the file again, or without its metadata"
        ) from None


def read_folder(
    folder: Path, text: str, label: str, encodings: Sequence[str]
) -> tuple[pa.Table, list[str]]:
    """Read a folder that holds one folder of text files per class, in name order.

    Returns
    -------
    table : pyarrow.Table
        Columns `text` and `label` (the class folder's name), large_string.
    files : list of str
        The file of each row.
    """
    texts, labels, files = [], [], []
    for name, path in class_files(folder):
        if not is_unicode(name):
            raise ProbelineError(
                f"{path.parent}: the folder's name is the label, and it is not UTF-8; rename it"
            )
        content = path.read_bytes()
        texts.append(content.decode(_encoding_of(content, path, encodings)))
        labels.append(name)
        files.append(str(path))
    columns = {text: pa.array(texts, pa.large_string()), label: pa.array(labels, pa.large_string())}
    return pa.table(columns), files


def _encoding_of(content: bytes, path: Path, encodings: Sequence[str]) -> str:
    """Spare the second reading of a file when it is plain UTF-8, as most are."""
    if codec_name(encodings[0]) == "utf-8-sig" and not content.startswith(codecs.BOM_UTF8):
        try:
            content.decode()
            return "utf-8"
        except UnicodeDecodeError:
            pass
    return pick_encoding(path, encodings)
