"""What artifacts hold outside timing fields, so that those of two runs can be compared."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from safetensors.numpy import load_file

TIMES = {
    "seconds",
    "train_seconds",
    "seconds_per_epoch",
    "extraction_seconds",
    "texts_per_second",
    "predict_seconds",
}
# How an extraction went: what it did again after a kill is checked apart.
_HOW = {"timing.json"}


def content(path: Path) -> object:
    """What a file or folder holds; raises if it is not whole.

    Returns
    -------
    object
        Equal for equal content. Of a kind of file that is not known, its bytes.
    """
    if path.is_dir():
        return {one.name: content(one) for one in sorted(path.iterdir())}
    if path.name == "journal.log":
        return _trials(path)
    if path.name in _HOW:
        return sorted(json.loads(path.read_text(encoding="utf-8")))
    return _READERS.get(path.suffix, _digest)(path)


def _trials(path: Path) -> list:
    """Of a search: what was tried, and how it ended."""
    storage = JournalStorage(JournalFileBackend(str(path)))
    return [
        (trial.number, trial.params, trial.state.name, trial.values, trial.intermediate_values)
        for study in storage.get_all_studies()
        for trial in storage.get_all_trials(study._study_id)
    ]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _json(path: Path) -> object:
    return _timeless(json.loads(path.read_text(encoding="utf-8")))


def _timeless(value: object) -> object:
    if isinstance(value, dict):
        return {key: _timeless(one) for key, one in value.items() if key not in TIMES}
    if isinstance(value, list):
        return [_timeless(one) for one in value]
    return value


def _hdf5(path: Path) -> dict:
    found = {}
    with h5py.File(path, "r") as file:

        def visit(name: str, item) -> None:
            found[f"{name}@"] = {
                key: _plain(value) for key, value in item.attrs.items() if key not in TIMES
            }
            if isinstance(item, h5py.Dataset):
                found[name] = _array(item[()])

        visit("/", file)
        file.visititems(visit)
    return found


def _plain(value: object) -> object:
    return _array(value) if isinstance(value, np.ndarray) else (type(value).__name__, str(value))


def _array(values) -> tuple:
    values = np.asarray(values)
    kept = values.tolist() if values.dtype == object else values.tobytes()
    return str(values.dtype), values.shape, kept


def _safetensors(path: Path) -> dict:
    return {name: _array(values) for name, values in load_file(path).items()}


def _frame(frame: pd.DataFrame) -> dict:
    kept = [name for name in frame.columns if name not in TIMES]
    return {name: (str(frame[name].dtype), frame[name].to_json()) for name in kept}


def _parquet(path: Path) -> dict:
    table = pq.read_table(path)
    return {
        name: (str(table.schema.field(name).type), table[name].to_pylist().__repr__())
        for name in table.column_names
        if name not in TIMES
    }


_READERS = {
    ".csv": lambda path: _frame(pd.read_csv(path)),
    ".h5": _hdf5,
    ".json": _json,
    ".parquet": _parquet,
    ".safetensors": _safetensors,
}
