"""The learning curve of a run as a table."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from probeline.errors import ProbelineError
from probeline.files import replacing

CURVE = "learning_curve.parquet"
_SCHEMA = pa.schema(
    [
        ("step", pa.int64()),
        ("epoch", pa.float64()),
        ("split", pa.string()),
        ("loss", pa.float64()),
        ("score", pa.float64()),
    ]
)


def write_curve(history: Sequence[dict], path: str | os.PathLike) -> None:
    """Write a history as Parquet: step (int64), epoch, split, loss, score (null for train)."""
    with replacing(path) as temporary:
        pq.write_table(pa.Table.from_pylist(list(history), schema=_SCHEMA), temporary)


def read_curve(path: str | os.PathLike) -> list[dict]:
    """Read what `write_curve` wrote.

    Raises
    ------
    ProbelineError
        If the file is missing, unreadable, of other columns or empty.
    """
    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
    except FileNotFoundError:
        raise ProbelineError(f"{path}: no such learning curve") from None
    except (pa.ArrowException, OSError) as error:
        raise ProbelineError(f"{path}: not a readable Parquet file: {error}") from None
    if table.column_names != _SCHEMA.names or table.num_rows == 0:
        raise ProbelineError(f"{path}: not a learning curve: expected {', '.join(_SCHEMA.names)}")
    return table.to_pylist()
