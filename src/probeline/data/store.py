"""The dataset artifact: texts, labels and a manifest in one folder. NumPy and pyarrow only.

``results/datasets/{dataset}/`` holds

- ``texts.parquet``: columns split, text and, for pairs, text_pair; rows are train, then
  validation, then test; a row's number is its id everywhere;
- ``labels.parquet``: one column per task, int32 codes with -1 where a level is undefined, or
  lists of int32 codes;
- ``dataset.json``: the manifest, written last.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from probeline.data.paths import SPLITS
from probeline.errors import ProbelineError, one_of
from probeline.files import read_json, replacing, write_json

FORMAT = 1
MANIFEST = "dataset.json"
TEXTS = "texts.parquet"
LABELS = "labels.parquet"
_KEYS = ("name", "fingerprint", "labels_fingerprint", "rows", "offsets", "pair", "tasks")
_MARK = b"probeline"


@dataclass
class Dataset:
    """A stored dataset.

    Attributes
    ----------
    name, fingerprint : str
    rows : int
    offsets : dict of str to (int, int)
        First row and one past the last of train, validation and test.
    tasks : dict
        {task: {kind: "single" or "multi", labels, counts, ...}} as in the manifest.
    texts : list of str or None
        None if they were not read.
    pairs : list of str or None
        The second texts; None if there are none.
    manifest : dict
    folder : Path
    """

    name: str
    fingerprint: str
    rows: int
    offsets: dict[str, tuple[int, int]]
    tasks: dict[str, dict]
    texts: list[str] | None
    pairs: list[str] | None
    manifest: dict
    folder: Path
    _codes: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    def labels(self, task: str) -> np.ndarray:
        """Return int64 (rows,) codes, -1 where undefined, or uint8 (rows, K) when multi-label."""
        if task not in self.tasks:
            raise ProbelineError(f"{self.folder}: task {one_of(task, self.tasks)}")
        if task not in self._codes:
            self._codes[task] = self._read_codes(task)
        return self._codes[task]

    def _read_codes(self, task: str) -> np.ndarray:
        column = _read(self.folder / LABELS, [task])[task].combine_chunks()
        if self.tasks[task]["kind"] == "single":
            return np.from_dlpack(column).astype(np.int64)
        has = np.zeros((self.rows, len(self.tasks[task]["labels"])), dtype=np.uint8)
        lengths = np.diff(np.from_dlpack(column.offsets))
        has[np.repeat(np.arange(self.rows), lengths), np.from_dlpack(column.flatten())] = 1
        return has

    def defined(self, task: str) -> np.ndarray:
        """Return bool (rows,): where the task applies. Always true outside hierarchies."""
        codes = self.labels(task)
        return codes >= 0 if codes.ndim == 1 else np.ones(self.rows, dtype=bool)

    def split(self, name: str) -> slice:
        """Return the rows of train, validation or test."""
        if name not in self.offsets:
            raise ProbelineError(f"{self.folder}: split {one_of(name, self.offsets)}")
        return slice(*self.offsets[name])


def read_dataset(folder: str | Path, texts: bool = True) -> Dataset:
    """Open a dataset folder after checking that it is whole.

    Parameters
    ----------
    folder : path
    texts : bool
        Whether to read the texts; labels are read when asked for.

    Raises
    ------
    ProbelineError
        If it is missing, incomplete, of another format version, or its files are of two builds.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    if not path.is_file():
        raise ProbelineError(f"{folder}: no dataset here ({MANIFEST} is missing); {_AGAIN}")
    manifest = read_json(path)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else None
        raise ProbelineError(f"{path}: of format {found}, expected {FORMAT}; {_AGAIN}")
    missing = [key for key in _KEYS if key not in manifest]
    if missing:
        raise ProbelineError(f"{path}: has no '{missing[0]}'; {_AGAIN}")
    _check_table(folder / TEXTS, manifest["rows"], manifest["fingerprint"])
    _check_table(folder / LABELS, manifest["rows"], manifest["labels_fingerprint"])
    first = second = None
    if texts:
        table = _read(folder / TEXTS, ["text", "text_pair"][: 1 + manifest["pair"]])
        first = table["text"].to_pylist()
        second = table["text_pair"].to_pylist() if manifest["pair"] else None
    return Dataset(
        name=manifest["name"],
        fingerprint=manifest["fingerprint"],
        rows=manifest["rows"],
        offsets={split: tuple(ends) for split, ends in manifest["offsets"].items()},
        tasks=manifest["tasks"],
        texts=first,
        pairs=second,
        manifest=manifest,
        folder=folder,
    )


_AGAIN = "delete the folder and run the dataset's job again"


def _read(path: Path, columns: list[str]) -> pa.Table:
    # pq.read_table and Array.to_numpy would import pandas, which costs more than the reading.
    with pq.ParquetFile(path) as file:
        return file.read(columns=columns)


def _check_table(path: Path, rows: int, fingerprint: str) -> None:
    try:
        with pq.ParquetFile(path) as file:
            found, mark = file.metadata.num_rows, (file.metadata.metadata or {}).get(_MARK)
    except (pa.ArrowException, OSError) as error:
        raise ProbelineError(f"{path}: cannot be read: {error}; {_AGAIN}") from None
    if found != rows:
        raise ProbelineError(f"{path}: {found} rows, {MANIFEST} says {rows}; {_AGAIN}")
    if mark != fingerprint.encode():
        raise ProbelineError(f"{path}: of another build than {MANIFEST}; {_AGAIN}")


def write_dataset(
    folder: str | Path,
    manifest: dict,
    texts: pa.Table,
    sizes: dict[str, int],
    codes: dict[str, np.ndarray],
) -> dict:
    """Write a dataset folder, the manifest last.

    Parameters
    ----------
    folder : path
    manifest : dict
        Everything but format, fingerprints, rows, offsets and pair, which are added here.
    texts : pyarrow.Table
        ``text`` and perhaps ``text_pair``, in the order train, validation, test.
    sizes : dict
        {split: rows}.
    codes : dict
        {task: int64 (rows,) or bool (rows, K)}.

    Returns
    -------
    dict
        The manifest as written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # Without a manifest the folder counts as empty while its files are replaced.
    (folder / MANIFEST).unlink(missing_ok=True)
    ends = np.cumsum([sizes[split] for split in SPLITS]).tolist()
    starts = [0, *ends[:-1]]
    names = pa.DictionaryArray.from_arrays(
        np.repeat(np.arange(len(SPLITS)), [sizes[split] for split in SPLITS]).astype(np.int8),
        list(SPLITS),
    )
    labels = pa.table({task: _label_column(values) for task, values in codes.items()})
    manifest = {
        "format": FORMAT,
        **manifest,
        "fingerprint": fingerprint_texts(texts, sizes),
        "labels_fingerprint": _fingerprint_labels(codes, manifest["tasks"]),
        "rows": texts.num_rows,
        "offsets": {s: list(e) for s, *e in zip(SPLITS, starts, ends, strict=True)},
        "pair": "text_pair" in texts.column_names,
    }
    _write(folder / TEXTS, texts.add_column(0, "split", names), manifest["fingerprint"])
    _write(folder / LABELS, labels, manifest["labels_fingerprint"])
    write_json(folder / MANIFEST, manifest)
    return manifest


def _label_column(codes: np.ndarray) -> pa.Array:
    if codes.ndim == 1:
        return pa.array(codes.astype(np.int32))
    rows, columns = np.nonzero(codes)
    offsets = np.searchsorted(rows, np.arange(len(codes) + 1)).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(columns.astype(np.int32)))


def _write(path: Path, table: pa.Table, mark: str) -> None:
    with replacing(path) as temporary:
        pq.write_table(
            table.replace_schema_metadata({_MARK: mark.encode()}), temporary, compression="zstd"
        )


def fingerprint_texts(texts: pa.Table, sizes: dict[str, int]) -> str:
    """Return the SHA-256 of the texts, their order and their splits. Labels do not enter."""
    digest = hashlib.sha256(repr([(split, sizes[split]) for split in SPLITS]).encode())
    for name in texts.column_names:
        digest.update(name.encode())
        _digest_texts(digest, (text.as_py() for text in texts[name]))
    return digest.hexdigest()


def _digest_texts(digest, texts: Iterable[str]) -> None:
    for text in texts:
        content = text.encode()
        # With its length before it, a text cannot run into the next one.
        digest.update(len(content).to_bytes(8, "little") + content)


def _fingerprint_labels(codes: dict[str, np.ndarray], tasks: dict[str, dict]) -> str:
    digest = hashlib.sha256()
    for task, values in codes.items():
        digest.update(repr((task, tasks[task]["labels"], values.shape)).encode())
        digest.update(np.ascontiguousarray(values).astype(np.int32).tobytes())
    return digest.hexdigest()


def build_dataset(
    name: str,
    spec: dict,
    out_folder: str | Path,
    data_root: str | None = None,
    seed: int = 42,
) -> dict:
    """Run the whole dataset stage; see `probeline.data.build.build`."""
    # Imported here: most users of this module only read.
    from probeline.data.build import build

    return build(name, spec, out_folder, data_root, seed)
