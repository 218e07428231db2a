"""The dataset artifact: texts, labels and a manifest in one folder. NumPy and pyarrow only.

``results/datasets/{dataset}/`` holds

- ``texts.parquet``: columns split, text and, for pairs, text_pair; rows are train, then
  validation, then test; a row's number is its id everywhere;
- ``texts.json``: what the manifest says of the texts alone, the same whatever the labels are;
- ``labels.parquet``: one column per task, int32 codes with -1 where a level is undefined, or
  lists of int32 codes;
- ``dataset.json``: the manifest, written last.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from probeline.data.paths import SPLITS
from probeline.errors import ProbelineError, one_of
from probeline.files import read_json, refused

FORMAT = 1
MANIFEST = "dataset.json"
TEXTS = "texts.parquet"
TEXTS_MANIFEST = "texts.json"
LABELS = "labels.parquet"
TEXTS_KEYS = ("name", "fingerprint", "rows", "offsets", "pair")
_KEYS = (*TEXTS_KEYS, "labels_fingerprint", "tasks")
MARK = b"probeline"


@dataclass
class Texts:
    """The texts of a stored dataset, for those who need no label.

    Attributes
    ----------
    name, fingerprint : str
    rows : int
    offsets : dict of str to (int, int)
        First row and one past the last of train, validation and test.
    pair : bool
        Whether there are second texts.
    folder : Path
    """

    name: str
    fingerprint: str
    rows: int
    offsets: dict[str, tuple[int, int]]
    pair: bool
    folder: Path


@dataclass
class Dataset(Texts):
    """A stored dataset: what `Texts` has, and

    Attributes
    ----------
    tasks : dict
        {task: {kind: "single" or "multi", labels, counts, ...}} as in the manifest.
    texts : list of str or None
        None if they were not read.
    pairs : list of str or None
        The second texts; None if there are none, or they were not read.
    manifest : dict
    """

    tasks: dict[str, dict]
    texts: list[str] | None
    pairs: list[str] | None
    manifest: dict
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
        labels, multi = self.tasks[task]["labels"], self.tasks[task]["kind"] == "multi"
        if pa.types.is_list(column.type) != multi:
            raise ProbelineError(f"{self.folder}: '{task}' holds {column.type}; {_AGAIN}")
        codes = np.from_dlpack(column.flatten() if multi else column).astype(np.int64)
        if len(codes) and not (0 if multi else -1) <= codes.min() <= codes.max() < len(labels):
            raise ProbelineError(f"{self.folder}: '{task}' has labels it does not name; {_AGAIN}")
        if not multi:
            return codes
        has = np.zeros((self.rows, len(labels)), dtype=np.uint8)
        lengths = np.diff(np.from_dlpack(column.offsets))
        has[np.repeat(np.arange(self.rows), lengths), codes] = 1
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
    manifest = _read_manifest(folder, MANIFEST, _KEYS)
    _check_table(folder / TEXTS, manifest["rows"], manifest["fingerprint"])
    _check_table(folder / LABELS, manifest["rows"], manifest["labels_fingerprint"])
    first = second = None
    if texts:
        table = _read(folder / TEXTS, ["text", "text_pair"][: 1 + manifest["pair"]])
        first = table["text"].to_pylist()
        second = table["text_pair"].to_pylist() if manifest["pair"] else None
    return Dataset(
        **_about_texts(manifest, folder),
        tasks=manifest["tasks"],
        texts=first,
        pairs=second,
        manifest=manifest,
    )


def read_texts(folder: str | Path) -> Texts:
    """Open the texts of a dataset folder after checking that they are whole.

    Raises
    ------
    ProbelineError
        As `read_dataset`.
    """
    folder = Path(folder)
    manifest = _read_manifest(folder, TEXTS_MANIFEST, TEXTS_KEYS)
    _check_table(folder / TEXTS, manifest["rows"], manifest["fingerprint"], TEXTS_MANIFEST)
    return Texts(**_about_texts(manifest, folder))


_AGAIN = "delete the folder and run the dataset's job again"


def _read_manifest(folder: Path, name: str, keys: tuple[str, ...]) -> dict:
    path = folder / name
    if not path.is_file():
        raise ProbelineError(f"{folder}: no dataset here ({name} is missing); {_AGAIN}")
    manifest = read_json(path)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else None
        raise ProbelineError(f"{path}: of format {found}, expected {FORMAT}; {_AGAIN}")
    missing = [key for key in keys if key not in manifest]
    if missing:
        raise ProbelineError(f"{path}: has no '{missing[0]}'; {_AGAIN}")
    try:
        _check_manifest(manifest)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProbelineError(
            f"{path}: damaged ({type(error).__name__}: {error}); {_AGAIN}"
        ) from None
    return manifest


_KINDS = {"name": str, "fingerprint": str, "rows": int, "pair": bool, "labels_fingerprint": str}


def _check_manifest(manifest: dict) -> None:
    for key, kind in _KINDS.items():
        if key in manifest and type(manifest[key]) is not kind:
            raise TypeError(f"{key} is {manifest[key]!r}")
    end = 0
    for split in SPLITS:
        start, stop = manifest["offsets"][split]
        if start != end or type(stop) is not int or stop < start:
            raise ValueError(f"{split} is rows {start} to {stop}, behind row {end}")
        end = stop
    if end != manifest["rows"]:
        raise ValueError(f"{manifest['rows']} rows, and the splits end at {end}")
    for task, about in manifest.get("tasks", {}).items():
        labels = about["labels"]
        if about["kind"] not in ("single", "multi") or not isinstance(labels, list) or not labels:
            raise ValueError(f"task {task} is no list of labels")
        if not all(isinstance(label, str) for label in labels):
            raise TypeError(f"a label of task {task} is no text")


def _about_texts(manifest: dict, folder: Path) -> dict:
    """The fields of `Texts`."""
    offsets = {split: tuple(ends) for split, ends in manifest["offsets"].items()}
    fields = {key: manifest[key] for key in TEXTS_KEYS}
    return fields | {"offsets": offsets, "folder": folder}


def _read(path: Path, columns: list[str]) -> pa.Table:
    # pq.read_table and Array.to_numpy would import pandas, which costs more than the reading.
    try:
        with refused(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read(columns=columns).select(columns)
    except (pa.ArrowException, OSError, KeyError, UnicodeDecodeError) as error:
        raise ProbelineError(f"{path}: cannot be read: {error}; {_AGAIN}") from None


def _check_table(path: Path, rows: int, fingerprint: str, manifest: str = MANIFEST) -> None:
    try:
        with refused(path), pq.ParquetFile(path) as file:
            found, mark = file.metadata.num_rows, (file.metadata.metadata or {}).get(MARK)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ProbelineError(f"{path}: cannot be read: {error}; {_AGAIN}") from None
    if found != rows:
        raise ProbelineError(f"{path}: {found} rows, {manifest} says {rows}; {_AGAIN}")
    if mark != fingerprint.encode():
        raise ProbelineError(f"{path}: of another build than {manifest}; {_AGAIN}")


def build_dataset(
    name: str,
    spec: dict,
    out_folder: str | Path,
    data_root: str | None = None,
    seed: int = 42,
    parts: tuple[str, ...] = ("texts", "labels"),
) -> dict:
    """Run the whole dataset stage; see `probeline.data.build.build`."""
    # Imported here: most users of this module only read.
    from probeline.data.build import build

    return build(name, spec, out_folder, data_root, seed, parts)
