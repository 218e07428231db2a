"""Read a dataset's texts block by block, so that memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from probeline.data.store import TEXTS
from probeline.errors import ProbelineError
from probeline.files import refused

_AGAIN = "delete the folder and run the dataset's job again"


def blocks_of_texts(
    folder: Path, pair: bool, blocks: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int, list[str], list[str] | None]]:
    """Yield (start, stop, texts, second texts or None) for each block of rows.

    Parameters
    ----------
    folder : Path
        A dataset folder.
    pair : bool
        Whether the dataset has second texts.
    blocks : sequence of (start, stop)
        Ascending and without gaps; the first may begin anywhere.

    Raises
    ------
    ProbelineError
        If the texts are damaged, or fewer than the blocks have rows.
    """
    if not blocks:
        return
    first, size = blocks[0][0], max(stop - start for start, stop in blocks)
    stream = _batches(folder / TEXTS, ["text", "text_pair"] if pair else ["text"], first, size)
    waiting: list[pa.RecordBatch] = []  # rows not handed out yet, from `first` on
    held = 0
    for start, stop in blocks:
        while held < stop - start:
            batch = next(stream, None)
            if batch is None:
                raise ProbelineError(
                    f"{folder / TEXTS}: {start + held} rows, expected {blocks[-1][1]}; {_AGAIN}"
                )
            waiting.append(batch)
            held += batch.num_rows
        table = pa.Table.from_batches(waiting)
        block, rest = table.slice(0, stop - start), table.slice(stop - start)
        waiting, held = rest.to_batches(), rest.num_rows
        second = block["text_pair"].to_pylist() if pair else None
        yield start, stop, block["text"].to_pylist(), second


def _batches(path: Path, columns: list[str], first: int, size: int) -> Iterator[pa.RecordBatch]:
    """Rows from `first` on, at most `size` at a time."""
    try:
        with refused(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
            row, groups = _groups_from(file, first)
            for batch in file.iter_batches(batch_size=size, row_groups=groups, columns=columns):
                skipped = min(max(first - row, 0), batch.num_rows)
                row += batch.num_rows
                yield batch.slice(skipped)
    except (pa.ArrowException, OSError, KeyError, UnicodeDecodeError) as error:
        raise ProbelineError(f"{path}: cannot be read: {error}; {_AGAIN}") from None


def _groups_from(file: pq.ParquetFile, row: int) -> tuple[int, list[int]]:
    """The row groups from that of `row` on, and the first one's first row.

    What lies before is not read: the last part of a large dataset begins as fast as the first.
    """
    start = 0
    for group in range(file.num_row_groups):
        stop = start + file.metadata.row_group(group).num_rows
        if row < stop:
            return start, list(range(group, file.num_row_groups))
        start = stop
    return start, []
