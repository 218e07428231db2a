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
    return manifest


def _about_texts(manifest: dict, folder: Path) -> dict:
    """The fields of `Texts`."""
    offsets = {split: tuple(ends) for split, ends in manifest["offsets"].items()}
    fields = {key: manifest[key] for key in TEXTS_KEYS}
    return fields | {"offsets": offsets, "folder": folder}


def _read(path: Path, columns: list[str]) -> pa.Table:
    # pq.read_table and Array.to_numpy would import pandas, which costs more than the reading.
    try:
        with refused(path), pq.ParquetFile(path) as file:
            return file.read(columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise ProbelineError(f"{path}: cannot be read: {error}; {_AGAIN}") from None


def _check_table(path: Path, rows: int, fingerprint: str, manifest: str = MANIFEST) -> None:
    try:
        with refused(path), pq.ParquetFile(path) as file:
            found, mark = file.metadata.num_rows, (file.metadata.metadata or {}).get(MARK)
    except (pa.ArrowException, OSError) as error:
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
