"""Writing the dataset artifact; what it holds is said in `store`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from probeline.data.paths import SPLITS
from probeline.data.store import (
    FORMAT,
    LABELS,
    MANIFEST,
    MARK,
    TEXTS,
    TEXTS_KEYS,
    TEXTS_MANIFEST,
    read_texts,
)
from probeline.errors import ProbelineError
from probeline.files import replacing, write_json


def write_texts(folder: str | Path, about: dict, texts: pa.Table) -> None:
    """Write the texts of a dataset and, last, what the manifest says of them.

    Parameters
    ----------
    folder : path
    about : dict
        `about_texts` of `texts`.
    texts : pyarrow.Table
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # Without a manifest the folder counts as empty while its files are replaced.
    (folder / TEXTS_MANIFEST).unlink(missing_ok=True)
    sizes = [stop - start for start, stop in about["offsets"].values()]
    names = pa.DictionaryArray.from_arrays(
        np.repeat(np.arange(len(SPLITS)), sizes).astype(np.int8), list(SPLITS)
    )
    _write(folder / TEXTS, texts.add_column(0, "split", names), about["fingerprint"])
    write_json(folder / TEXTS_MANIFEST, about)


def write_labels(
    folder: str | Path, manifest: dict, about: dict, codes: dict[str, np.ndarray]
) -> dict:
    """Write the labels of texts that stand in the folder and, last, the manifest.

    Parameters
    ----------
    folder : path
    manifest : dict
        Everything but what `about` says and the labels' fingerprint, which are added here.
    about : dict
        `about_texts` of the texts that the labels are of.
    codes : dict
        {task: int64 (rows,) or bool (rows, K)}.

    Returns
    -------
    dict
        The manifest as written.

    Raises
    ------
    ProbelineError
        If the folder holds other texts: what the dataset is read from has changed in between.
    """
    folder = Path(folder)
    (folder / MANIFEST).unlink(missing_ok=True)
    stored = read_texts(folder)
    if stored.fingerprint != about["fingerprint"]:
        raise ProbelineError(
            f"{folder / TEXTS}: holds other texts than the dataset's source does now; delete the "
            "folder and run again"
        )
    manifest = {
        **about,
        **manifest,
        "labels_fingerprint": _fingerprint_labels(codes, manifest["tasks"]),
    }
    labels = pa.table({task: _label_column(values) for task, values in codes.items()})
    _write(folder / LABELS, labels, manifest["labels_fingerprint"])
    write_json(folder / MANIFEST, manifest)
    return manifest


def write_dataset(
    folder: str | Path,
    manifest: dict,
    texts: pa.Table,
    sizes: dict[str, int],
    codes: dict[str, np.ndarray],
) -> dict:
    """Write texts, then labels: `write_texts` and `write_labels`."""
    about = about_texts(manifest["name"], texts, sizes)
    write_texts(folder, about, texts)
    return write_labels(folder, manifest, about, codes)


def about_texts(name: str, texts: pa.Table, sizes: dict[str, int]) -> dict:
    """Return what the manifests say of the texts, their fingerprint among it.

    Parameters
    ----------
    name : str
        Of the dataset.
    texts : pyarrow.Table
        ``text`` and perhaps ``text_pair``, in the order train, validation, test.
    sizes : dict
        {split: rows}.
    """
    ends = np.cumsum([sizes[split] for split in SPLITS]).tolist()
    values = {
        "name": name,
        "fingerprint": fingerprint_texts(texts, sizes),
        "rows": texts.num_rows,
        "offsets": {s: list(e) for s, *e in zip(SPLITS, [0, *ends[:-1]], ends, strict=True)},
        "pair": "text_pair" in texts.column_names,
    }
    return {"format": FORMAT} | {key: values[key] for key in TEXTS_KEYS}


def _label_column(codes: np.ndarray) -> pa.Array:
    if codes.ndim == 1:
        return pa.array(codes.astype(np.int32))
    rows, columns = np.nonzero(codes)
    offsets = np.searchsorted(rows, np.arange(len(codes) + 1)).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(columns.astype(np.int32)))


def _write(path: Path, table: pa.Table, mark: str) -> None:
    with replacing(path) as temporary:
        pq.write_table(
            table.replace_schema_metadata({MARK: mark.encode()}),
            temporary,
            compression="zstd",
            write_page_checksum=True,
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
