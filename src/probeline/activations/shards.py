"""Shards: one HDF5 file per (representation, layer, pooling), rows in the dataset's order.

A shard holds one dataset `activations` (rows, width) of float16 or float32 and attributes that say
what it is. The dataset is contiguous, so that the file is its bytes and a header of a few kB, a
range of rows is one read, and blocks of rows can be written to their final place while the file is
never open for HDF5: a process killed at any moment cannot leave broken HDF5 metadata behind.

Beside it lies `checksums` (blocks,) uint32, the CRC-32 of every `block` rows; a seal covers all of
the file but the rows. The seal is compared on opening, rows whenever they are read, each block once
per opening: a flipped bit is an error, never a wrong number.

A part of a shard is the same file with some of the rows; `probeline.activations.parts` says how
parts make one shard.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import h5py
import numpy as np

from probeline import __version__, hdf5
from probeline.activations.checksums import blocks_crc
from probeline.errors import ProbelineError, one_of
from probeline.files import explained, replacing
from probeline.sealed import BLOCK, check_seal, opened, seal, understood, unfinished, use_locks
from probeline.versions import SHARD_FORMAT

FORMAT = "probeline-shard"
PART = "probeline-shard-part"
INDEX = "probeline-shard-index"
STORAGE = ("float16", "float32")
_DATASET, _CHECKSUMS = "activations", "checksums"
_READ_BYTES = 16 << 20
_BLOCK_BYTES = 1 << 20
_HASHED_ROWS = 1 << 20
_AS_JSON = ("offsets", "files")
REMEDY = "delete it and run the same command again"


@lru_cache(maxsize=1024)  # an index asks for those of all its parts, again and again
def row_hash(rows: int, first: int = 0) -> str:
    """16 hexadecimal digits of the SHA-256 over `rows` row ids from `first` on (int64)."""
    found = hashlib.sha256()
    for start in range(first, first + rows, _HASHED_ROWS):
        stop = min(start + _HASHED_ROWS, first + rows)
        found.update(np.arange(start, stop, dtype="<i8").tobytes())
    return found.hexdigest()[:16]


class ShardWriter:
    """Writes blocks of rows into a shard that stays marked incomplete until `finish`.

    Use `create` for a new file, the constructor to go on with one after an interruption.

    Raises
    ------
    ProbelineError
        If `path` is not an unfinished shard of `rows` x `width`.
    """

    def __init__(self, path: Path):
        self.path = path
        with _opened(path) as file:  # no seal yet
            dataset = file[_DATASET]
            self.rows, self.width = dataset.shape
            self.dtype = dataset.dtype
            self._offset = dataset.id.get_offset()
            self._block = int(file.attrs["block"])
            self._checksums = file[_CHECKSUMS].id.get_offset()
        # HDF5 reserves no place for a part without rows; then it names one in the user block.
        if self.rows and min(self._offset or 0, self._checksums or 0) < BLOCK:
            raise ProbelineError(f"{path}: no room is reserved in this shard; {REMEDY}")

    @classmethod
    def create(
        cls,
        path: Path,
        rows: int,
        width: int,
        storage_dtype: str,
        meta: Mapping,
        block: int | None = None,
    ) -> ShardWriter:
        """Create an incomplete shard with room for `rows` x `width` values.

        Parameters
        ----------
        storage_dtype : {"float16", "float32"}
        meta : mapping of str to str, int, bool or a JSON-like value
            Attributes; mappings and lists are stored as JSON. With a key `part` this is a part of
            a shard, whose first row is row `start` of the dataset.
        block : int, optional
            Rows that share a checksum; by default about 1 MiB.
        """
        if storage_dtype not in STORAGE:
            raise ProbelineError(f"storage_dtype {one_of(storage_dtype, STORAGE)}")
        if block is None:
            block = max(1, _BLOCK_BYTES // max(1, width * np.dtype(storage_dtype).itemsize))
        attributes = {
            **meta,
            "format": PART if "part" in meta else FORMAT,
            "format_version": SHARD_FORMAT,
            "library_version": __version__,
            "rows": rows,
            "width": width,
            "storage_dtype": storage_dtype,
            "row_hash": row_hash(rows, meta.get("start", 0)),
            "block": block,
            "complete": False,
        }
        made = h5py.File(path, "w", locking=use_locks(), userblock_size=BLOCK)
        with _writing(path), made as file:
            hdf5.put_attributes(file, attributes)
            _reserve(file, _CHECKSUMS, (-(-rows // block),), "<u4")
            _reserve(file, _DATASET, (rows, width), storage_dtype)
        unfinished(path)
        return cls(path)

    def write(self, start: int, values: np.ndarray) -> None:
        """Write `values`, whole blocks of rows (n, width) of the storage dtype, at row `start`."""
        if values.dtype != self.dtype or values.shape[1:] != (self.width,):
            raise ValueError(f"expected {self.dtype} rows of {self.width}, got {values.dtype}")
        if start < 0 or start + len(values) > self.rows:
            raise ValueError(f"rows {start}..{start + len(values)} do not lie in 0..{self.rows}")
        if start % self._block or (len(values) % self._block and start + len(values) < self.rows):
            raise ValueError(f"rows {start}..{start + len(values)} are no blocks of {self._block}")
        if not len(values):
            return
        place = self._offset + start * self.width * self.dtype.itemsize
        sums = self._checksums + start // self._block * 4
        with explained(self.path), self.path.open("r+b", buffering=0) as handle:
            _write_at(handle, place, values)
            _write_at(handle, sums, blocks_crc(values, self._block))

    def sync(self) -> None:
        """Wait until everything written so far is on the disk."""
        with explained(self.path), self.path.open("rb") as handle:
            os.fsync(handle.fileno())

    def finish(self) -> None:
        """Mark the shard complete."""
        with _writing(self.path), h5py.File(self.path, "r+", locking=use_locks()) as file:
            file.attrs["complete"] = True
        if self.rows:
            seal(self.path, self._offset, self.rows * self.width * self.dtype.itemsize)
        else:
            seal(self.path)
        self.sync()


def _reserve(file: h5py.File, name: str, shape: tuple[int, ...], dtype: str) -> None:
    """Make a dataset whose place in the file is known from now on, and which is not filled."""
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.CONTIGUOUS)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    layout.set_obj_track_times(False)  # same content, same bytes
    kind = h5py.h5t.py_create(np.dtype(dtype))
    h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create_simple(shape), layout)


def _write_at(handle, place: int, values: np.ndarray) -> None:
    handle.seek(place)
    data = memoryview(np.ascontiguousarray(values)).cast("B")
    while data:
        data = data[handle.write(data) :]


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Name a full disk also when HDF5 notices it only on closing, as a RuntimeError."""
    with explained(path):
        try:
            yield
        except RuntimeError as error:
            raise OSError(str(error)) from error


def write_shard(path: Path, values: np.ndarray, meta: Mapping) -> None:
    """Write a whole shard at once: `values` (rows, width) float16 or float32."""
    with replacing(path) as temporary:
        writer = ShardWriter.create(temporary, *values.shape, str(values.dtype), meta)
        writer.write(0, values)
        writer.finish()


class Shard:
    """A shard that is open for reading; a context manager. Made by `open_shard`.

    Attributes
    ----------
    path : Path
    meta : dict
        The attributes; `offsets` as {split: [start, stop]}.
    rows, width : int
    """

    def __init__(self, path: Path, file: h5py.File, meta: dict):
        self.path = path
        self.meta = meta
        self._file = file
        self._data = file[_DATASET]
        self.rows, self.width = self._data.shape
        self._block = int(meta["block"])
        self._checksums = file[_CHECKSUMS][:]
        self._checked = np.zeros(len(self._checksums), dtype=bool)

    def __enter__(self) -> Shard:
        return self

    def __exit__(self, *_) -> None:
        self._file.close()

    def read(self, rows: slice | None = None, columns: np.ndarray | None = None) -> np.ndarray:
        """Read `rows` (default all) and `columns` (default all, any order) as float32.

        Memory beside the result is bounded (16 MiB), however large the shard is.

        Returns
        -------
        ndarray of float32, shape (rows, columns), C order
        """
        start, stop, step = (rows or slice(None)).indices(self.rows)
        if step != 1:
            raise ValueError("rows must be contiguous")
        stop = max(start, stop)
        if columns is not None:
            columns = np.asarray(columns, dtype=np.int64)
            if len(columns) and (columns.min() < 0 or columns.max() >= self.width):
                raise ProbelineError(
                    f"{self.path}: columns {columns.min()}..{columns.max()} are asked for, it has "
                    f"{self.width}"
                )
        result = np.empty(
            (stop - start, self.width if columns is None else len(columns)), dtype=np.float32
        )
        self._fill(result, start, columns)
        return result

    def _fill(self, result: np.ndarray, start: int, columns: np.ndarray | None) -> None:
        """Read rows from `start` on into all of `result`."""
        for first, part in self._parts(start, start + len(result)):
            place = slice(first - start, first - start + len(part))
            result[place] = part if columns is None else part[:, columns]

    def check(self, advance: Callable[[int], object] = lambda rows: None) -> None:
        """Read everything and compare it with its checksums; `advance` gets the rows of each step.

        Raises
        ------
        ProbelineError
            Naming the first rows that are damaged.
        """
        for _, part in self._parts(0, self.rows):
            advance(len(part))

    def _parts(self, start: int, stop: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the rows of a range in parts: (first row, rows), valid until the next.

        Blocks are read whole the first time, since their checksums are of all their rows.
        """
        size = self._block * max(1, self.width * self._data.dtype.itemsize)
        step = self._block * max(1, _READ_BYTES // size)
        buffer = np.empty((min(step, self.rows), self.width), dtype=self._data.dtype)
        for first in range(start - start % self._block, stop, step):
            last = min(first + step, self.rows)
            blocks = slice(first // self._block, -(-last // self._block))
            low, high = max(first, start), min(last, stop)
            if self._checked[blocks].all():
                yield low, self._stored(low, high, buffer)
                continue
            part = self._stored(first, last, buffer)
            self._compare(blocks, part)
            yield low, part[low - first : high - first]

    def _stored(self, first: int, last: int, buffer: np.ndarray) -> np.ndarray:
        part = buffer[: last - first]
        if part.size:
            try:
                self._data.read_direct(part, np.s_[first:last])
            except OSError as error:
                raise ProbelineError(
                    f"{self.path}: rows {first} to {last - 1} cannot be read ({error}); {REMEDY}"
                ) from None
        return part

    def _compare(self, blocks: slice, part: np.ndarray) -> None:
        wrong = blocks_crc(part, self._block) != self._checksums[blocks]
        if wrong.any():
            first = (blocks.start + int(wrong.argmax())) * self._block
            raise ProbelineError(
                f"{self.path}: damaged: rows {first} to {min(first + self._block, self.rows) - 1} "
                f"are not what was written (checksum); {REMEDY}"
            )
        self._checked[blocks] = True


def open_shard(path: str | os.PathLike, expect: Mapping | None = None) -> Shard:
    """Open a finished shard for reading, one file or the index of several parts.

    Parameters
    ----------
    expect : mapping, optional
        Attributes the shard must have, such as `dataset_fingerprint`, `model`, `layer`.

    Raises
    ------
    ProbelineError
        If the file is missing, truncated, not a shard, of another format version, incomplete, or
        about something else than `expect`; with the path and what to do. The same of each part.
    """
    return _open(Path(path), FORMAT, expect or {})


def open_part(path: str | os.PathLike, expect: Mapping | None = None) -> Shard:
    """Open one part of a shard by itself; as `open_shard` otherwise."""
    return _open(Path(path), PART, expect or {})


def _open(path: Path, kind: str, expect: Mapping) -> Shard:
    if not path.is_file():
        raise ProbelineError(f"{path}: no such shard; run the extraction first")
    rows = check_seal(path, "a whole shard", REMEDY)
    if rows is None:
        raise ProbelineError(
            f"{path}: an HDF5 file, but not a probeline shard of format {SHARD_FORMAT}; {REMEDY}"
        )
    with understood(path, "a whole shard", REMEDY):
        file = _opened(path)
    try:
        with understood(path, "a whole shard", REMEDY):
            meta = _read_meta(file)
            _refuse_kind(path, meta, kind)
            _refuse_others(path, meta, expect)
            if meta["format"] != INDEX:
                _refuse_size(path, file, meta, rows)
                return Shard(path, file, meta)
    except BaseException:
        file.close()
        raise
    file.close()

    # It is made of what stands here.
    from probeline.activations.parts import PartedShard

    with understood(path, "a whole shard", REMEDY):
        return PartedShard(path, meta)


def _opened(path: Path) -> h5py.File:
    try:
        return opened(path)
    except OSError as error:
        if "truncated" in str(error) or "signature" in str(error):
            raise ProbelineError(f"{path}: truncated or not an HDF5 file; {REMEDY}") from None
        raise


def _read_meta(file: h5py.File) -> dict:
    meta = hdf5.attributes(file)
    for name in _AS_JSON:
        if isinstance(meta.get(name), str):
            meta[name] = json.loads(meta[name])
    return meta


def _refuse_kind(path: Path, meta: dict, kind: str) -> None:
    """Refuse what is neither a shard nor a part, and one in place of the other."""
    found = meta.get("format")
    if found == PART and kind == FORMAT:
        raise ProbelineError(
            f"{path}: part {meta.get('part')} of {meta.get('parts')} of a shard; open the shard, "
            f"{path.parent.parent / path.name}"
        )
    if found in (FORMAT, INDEX) and kind == PART:
        raise ProbelineError(f"{path}: a shard, not a part of a shard; {REMEDY}")
    if found not in (FORMAT, PART, INDEX):
        raise ProbelineError(f"{path}: an HDF5 file, but not a probeline shard; {REMEDY}")


def _refuse_others(path: Path, meta: dict, expect: Mapping) -> None:
    """Refuse a file of another format version, an unfinished one and one about something else."""
    if meta.get("format_version") != SHARD_FORMAT:
        raise ProbelineError(
            f"{path}: shard format {meta.get('format_version')}, this version of probeline reads "
            f"{SHARD_FORMAT}; {REMEDY}"
        )
    if not meta.get("complete"):
        raise ProbelineError(
            f"{path}: incomplete, its extraction was interrupted; run the extraction again"
        )
    for name, value in expect.items():
        if meta.get(name) != value:
            raise ProbelineError(
                f"{path}: about another run: its {name} is '{meta.get(name)}', expected "
                f"'{value}'; {REMEDY}"
            )


def _refuse_size(path: Path, file: h5py.File, meta: dict, rows: tuple[int, int]) -> None:
    """Refuse a file whose rows are not where its seal leaves them out."""
    data, sums = hdf5.dataset(file, _DATASET, "f", 2), hdf5.dataset(file, _CHECKSUMS, "u", 1)
    place = (data.id.get_offset(), data.size * data.dtype.itemsize) if data.size else (BLOCK, 0)
    blocks = -(-len(data) // int(meta["block"]))
    if (
        data.shape != (meta["rows"], meta["width"])
        or data.dtype != meta["storage_dtype"]
        or rows != place
        or sums.shape != (blocks,)
    ):
        raise ProbelineError(f"{path}: its size and its attributes disagree; {REMEDY}")
