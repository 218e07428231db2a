"""Out-of-fold logits of the training texts: what a classifier says of texts it has not seen.

A classifier that was fitted to the training texts ranks their true labels first and has no hard
negatives there. Each fold's logits come from a head that was fitted to the other folds.

HDF5: `row` int64 (n,), `fold` int8 (n,), `logits` float32 (n, K), of the rows of train where the
task is defined, ascending; attributes as in predictions.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from probeline import hdf5
from probeline.data.splits import group_copies
from probeline.data.store import Dataset, read_dataset
from probeline.errors import ProbelineError, one_of
from probeline.lrsl.folds import folds_of, held_out
from probeline.lrsl.heads import SOURCES
from probeline.probe.metrics import score
from probeline.probe.task import TaskData, task_data
from probeline.sealed import reading, sealing

log = logging.getLogger(__name__)
CROSSFIT_FORMAT = 1


@dataclass(frozen=True)
class CrossFit:
    """Out-of-fold logits.

    Attributes
    ----------
    rows : ndarray of int64, shape (n,)
        Row numbers in the dataset, ascending.
    fold : ndarray of int8, shape (n,)
    logits : ndarray of float32, shape (n, K)
    labels : list of str
    meta : dict
    """

    rows: np.ndarray
    fold: np.ndarray
    logits: np.ndarray
    labels: list[str]
    meta: dict


def crossfit(
    source: str,
    dataset_folder: str | os.PathLike,
    task_name: str,
    model_name: str,
    out: str | os.PathLike,
    folds: int,
    seed: int,
    inputs: Mapping,
    options: Mapping,
    metric: str | None = None,
) -> None:
    """Fit a source's head without each fold of the training texts, and write the logits.

    Parameters
    ----------
    source : one of `probeline.lrsl.heads.SOURCES`
    out : path
        HDF5 that is written whole or not at all.
    folds, seed : int
        See `folds_of`; copies of a text are of one fold.
    inputs : mapping
        The source's files: keyword arguments of its function in `probeline.lrsl.heads`.
    options : mapping
        `probe`, `aggregate`, `tfidf`: sections of the configuration, those the source needs.
    """
    started = time.perf_counter()
    if source not in SOURCES:
        raise ProbelineError(f"lrsl.crossfit: source {one_of(source, SOURCES)}")
    dataset = read_dataset(dataset_folder)
    task = task_data(dataset, task_name, metric)
    fold = folds_of(task.y["train"], folds, seed, task.multilabel, copies(dataset, task))
    logits = out_of_fold(source, dataset, task, fold, inputs, options)
    reached = score(task.metric, task.y["train"], logits, task.classes)
    seconds = time.perf_counter() - started
    meta = {
        "model": model_name,
        "source": source,
        "folds": folds,
        "seed": seed,
        "score": reached,
        "seconds": seconds,
    }
    write_crossfit(out, dataset, task, fold, logits, meta)
    log.info(
        "%s: %d folds, %d training texts: out-of-fold %s %.4f, %.1f s",
        source,
        folds,
        len(fold),
        task.metric,
        reached,
        seconds,
    )


def out_of_fold(
    source: str,
    dataset: Dataset,
    task: TaskData,
    fold: np.ndarray,
    inputs: Mapping,
    options: Mapping,
) -> np.ndarray:
    """Logits float32 (n, K) of the training rows, each by the head fitted without its fold.

    A label that the other folds never have is below all others, or far below 0 in a multi-label
    task.
    """
    parts = held_out(task, fold)
    result = np.empty((len(fold), task.classes), dtype=np.float32)
    found = SOURCES[source](parts, dataset, options, **inputs)
    for part, logits in zip(parts, found, strict=True):
        result[np.searchsorted(task.rows["train"], part.held)] = part.spread(logits)
    return result


def copies(dataset: Dataset, task: TaskData) -> np.ndarray:
    """Number the distinct texts among the task's training rows, int64 (n,)."""
    columns = {"text": dataset.texts, "text_pair": dataset.pairs}
    table = pa.table(
        {
            name: pa.array([texts[row] for row in task.rows["train"]], pa.large_string())
            for name, texts in columns.items()
            if texts is not None
        }
    )
    return group_copies(table)


def write_crossfit(
    path: str | os.PathLike,
    dataset: Dataset,
    task: TaskData,
    fold: np.ndarray,
    logits: np.ndarray,
    meta: Mapping,
) -> None:
    """Write out-of-fold logits of the task's training rows, whole or not at all."""
    with sealing(path) as file:
        file["row"], file["fold"] = task.rows["train"], fold
        file.create_dataset("logits", data=logits)
        hdf5.put_attributes(file, {**meta, "labels": list(task.labels)})
        file.attrs.update(
            kind="crossfit",
            dataset=dataset.name,
            dataset_fingerprint=dataset.fingerprint,
            task=task.name,
            multilabel=task.multilabel,
            metric=task.metric,
            format=CROSSFIT_FORMAT,
            complete=True,
        )


def read_crossfit(path: str | os.PathLike, dataset: Dataset, task: TaskData) -> CrossFit:
    """Read out-of-fold logits.

    Raises
    ------
    ProbelineError
        If the file is missing, not whole, or of another dataset, task, rows or labels.
    """
    try:
        with reading(path, "readable cross-fitted logits") as file:
            meta = hdf5.attributes(file)
            kind, version = meta.get("kind"), meta.get("format")
            if not meta.get("complete") or (kind, version) != ("crossfit", CROSSFIT_FORMAT):
                raise ProbelineError(
                    f"{path}: not complete cross-fitted logits of this version; delete it"
                )
            labels = json.loads(meta.pop("labels"))
            row, fold = (hdf5.dataset(file, name, "i", 1)[:] for name in ("row", "fold"))
            logits = hdf5.dataset(file, "logits", "f", 2)[:]
            if not len(row) == len(fold) == len(logits):
                raise ValueError(f"{len(row)} rows, {len(fold)} folds, {len(logits)} logits")
            found = CrossFit(row, fold, logits, labels, meta)
    except FileNotFoundError:
        raise ProbelineError(f"{path}: no such cross-fitted logits") from None
    _check(path, found, dataset, task)
    return found


def _check(path, found: CrossFit, dataset: Dataset, task: TaskData) -> None:
    wanted = {"dataset_fingerprint": dataset.fingerprint, "task": task.name}
    for key, value in wanted.items():
        if found.meta.get(key) != value:
            raise ProbelineError(
                f"{path}: logits of another dataset or task: {key} is '{found.meta.get(key)}', "
                f"expected '{value}'; delete it and run again"
            )
    if found.labels != list(task.labels) or not np.array_equal(found.rows, task.rows["train"]):
        raise ProbelineError(
            f"{path}: logits of other labels or rows of '{task.name}'; delete it and run again"
        )
