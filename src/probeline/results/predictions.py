"""Per-text predictions of one method: what intervals, reranking and figures read.

HDF5: `row` int64 (n,), `split` int8 (n,) indexing the attribute `splits`, `logits` float32 (n, K)
with columns in the order of the attribute `labels`. A binary task has two columns, z and 0 shifted
to sum to zero, so that softmax and argmax hold for every single-label task. Of several labels those
above 0 are predicted: the attribute `threshold` was taken off, a number for all labels or a list of
one for each. The sigmoid of logit plus threshold is the probability.

Every row of the dataset stands there. `defined` bool (n,) is false where a level of a hierarchy
does not apply: such a row has logits, since the levels above may lead any text there, but no truth.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from probeline import hdf5
from probeline.activations.shards import open_shard
from probeline.data.store import Dataset
from probeline.errors import ProbelineError
from probeline.probe.task import SPLITS, TaskData
from probeline.sealed import reading, sealing

PREDICTIONS_FORMAT = 2


@dataclass(frozen=True)
class Predictions:
    """Logits of all rows of a dataset, train, then validation, then test.

    Attributes
    ----------
    rows : ndarray of int64, shape (n,)
        Row numbers in the dataset's Parquet.
    split : ndarray of str, shape (n,)
    defined : ndarray of bool, shape (n,)
        Whether the task applies to the row.
    logits : ndarray of float32, shape (n, K)
    labels : list of str
    meta : dict
        What was given on writing; `threshold` as a list where each label has its own.
    thresholds : ndarray of float32, shape (K,)
        What was taken off the logits of each label: 0 in a single-label task, and of scores that
        came without.
    """

    rows: np.ndarray
    split: np.ndarray
    defined: np.ndarray
    logits: np.ndarray
    labels: list[str]
    meta: dict
    thresholds: np.ndarray

    def of(self, split: str) -> np.ndarray:
        """Logits of the rows of one split where the task is defined: those that are scored."""
        return self.logits[(self.split == split) & self.defined]

    def rows_of(self, split: str) -> np.ndarray:
        """Row numbers of what `of` returns."""
        return self.rows[(self.split == split) & self.defined]


def two_columns(logits: np.ndarray) -> np.ndarray:
    """Spread one binary logit z over two columns, -z/2 and z/2; others are returned as given."""
    if logits.shape[1] != 1:
        return logits
    return np.concatenate([-logits, logits], axis=1) / 2


def every_row(dataset: Dataset, logits_of: Callable[[slice], np.ndarray]) -> np.ndarray:
    """Logits (rows, 1 or K) of all rows of a dataset; `logits_of` gets a split's rows at a time."""
    return np.concatenate([logits_of(dataset.split(split)) for split in SPLITS])


def shard_logits(
    path: str | os.PathLike, dataset: Dataset, logits_of: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Logits (rows, 1 or K) of all rows of a shard, whose activations are read split by split."""
    with open_shard(path, {"dataset_fingerprint": dataset.fingerprint}) as shard:
        return every_row(dataset, lambda rows: logits_of(shard.read(rows=rows)))


def write_predictions(
    path: str | os.PathLike,
    dataset: Dataset,
    task: TaskData,
    logits: np.ndarray,
    meta: Mapping,
    threshold: float | list[float] = 0.0,
) -> None:
    """Write the logits of a dataset, whole or not at all.

    Parameters
    ----------
    logits : ndarray, shape (rows, 1 or K)
        Of all rows, also of those where the task is not defined.
    meta : mapping
        Plain values: model, method, variant; lists and mappings are stored as JSON.
    threshold : float or list of float
        What was taken off the logits of a multi-label task, of all labels or of each.
    """
    defined = np.zeros(dataset.rows, dtype=bool)
    defined[np.concatenate([task.rows[split] for split in SPLITS])] = True
    codes = np.empty(dataset.rows, dtype=np.int8)
    for code, split in enumerate(SPLITS):
        codes[dataset.split(split)] = code
    values = logits if task.multilabel else two_columns(logits)
    with sealing(path) as file:
        file["row"], file["split"] = np.arange(dataset.rows), codes
        file["defined"] = defined
        file.create_dataset("logits", data=values.astype(np.float32, copy=False))
        about = {"threshold": threshold, "labels": list(task.labels), "splits": list(SPLITS)}
        hdf5.put_attributes(file, {**meta, **about})
        file.attrs.update(
            dataset=dataset.name,
            dataset_fingerprint=dataset.fingerprint,
            task=task.name,
            multilabel=task.multilabel,
            metric=task.metric,
            format=PREDICTIONS_FORMAT,
            complete=True,
        )


def read_predictions(path: str | os.PathLike) -> Predictions:
    """Read predictions.

    Raises
    ------
    ProbelineError
        If the file is missing, damaged or not one of ours.
    """
    try:
        with reading(path, "readable predictions") as file:
            meta = hdf5.attributes(file)
            if not meta.get("complete") or meta.get("format") != PREDICTIONS_FORMAT:
                raise ProbelineError(f"{path}: not complete predictions of this version; delete it")
            splits = np.array(json.loads(meta.pop("splits")), dtype=str)
            labels = list(map(str, json.loads(meta.pop("labels"))))
            # Some that were written where nothing was taken off do not say so.
            meta.setdefault("threshold", 0.0)
            if isinstance(meta["threshold"], str):
                meta["threshold"] = json.loads(meta["threshold"])
            found = Predictions(
                rows=hdf5.dataset(file, "row", "i", 1)[:],
                split=splits[hdf5.dataset(file, "split", "i", 1)[:]],
                defined=hdf5.dataset(file, "defined", "b", 1)[:],
                logits=hdf5.dataset(file, "logits", "f", 2)[:],
                labels=labels,
                meta=meta,
                thresholds=_thresholds(meta["threshold"], len(labels)),
            )
            rows = len(found.rows)
            if len(found.defined) != rows or len(found.split) != rows:
                raise ValueError("of rows, splits and defined rows there are different numbers")
            if found.logits.shape != (rows, len(labels)):
                raise ValueError(f"{rows} rows, {len(labels)} labels, logits {found.logits.shape}")
            return found
    except FileNotFoundError:
        raise ProbelineError(f"{path}: no such predictions") from None


def _thresholds(value: float | list, labels: int) -> np.ndarray:
    """The threshold of each label, float32 (labels,), of one for all or a list."""
    found = np.asarray(value)
    if found.dtype.kind not in "if" or found.shape not in ((), (labels,)):
        raise ValueError(f"its threshold is neither one number nor {labels}")
    if not np.isfinite(found).all():
        raise ValueError("its threshold is not finite")
    return np.broadcast_to(found.astype(np.float32), (labels,)).copy()
