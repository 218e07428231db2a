"""Per-text predictions of one method: what intervals, reranking and figures read.

HDF5: `row` int64 (n,), `split` int8 (n,) indexing the attribute `splits`, `logits` float32 (n, K)
with columns in the order of the attribute `labels`. A binary task has two columns, z and 0 shifted
to sum to zero, so that softmax and argmax hold for every single-label task; multi-label logits go
through a sigmoid, a label being predicted above 0.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

import h5py
import numpy as np

from probeline.errors import ProbelineError
from probeline.files import replacing
from probeline.probe.task import SPLITS, TaskData

PREDICTIONS_FORMAT = 1


@dataclass(frozen=True)
class Predictions:
    """Logits of the rows of all splits.

    Attributes
    ----------
    rows : ndarray of int64, shape (n,)
        Row numbers in the dataset's Parquet.
    split : ndarray of str, shape (n,)
    logits : ndarray of float32, shape (n, K)
    labels : list of str
    meta : dict
    """

    rows: np.ndarray
    split: np.ndarray
    logits: np.ndarray
    labels: list[str]
    meta: dict

    def of(self, split: str) -> np.ndarray:
        """Logits of one split."""
        return self.logits[self.split == split]


def two_columns(logits: np.ndarray) -> np.ndarray:
    """Spread one binary logit z over two columns, -z/2 and z/2; others are returned as given."""
    if logits.shape[1] != 1:
        return logits
    return np.concatenate([-logits, logits], axis=1) / 2


def write_predictions(
    path: str | os.PathLike, task: TaskData, logits: Mapping[str, np.ndarray], meta: Mapping
) -> None:
    """Write the logits of every split, whole or not at all.

    Parameters
    ----------
    logits : mapping of split to ndarray, shape (n, 1 or K), on the task's rows
    meta : mapping
        Plain values: dataset, model, method, variant, ...
    """
    rows = np.concatenate([task.rows[split] for split in SPLITS])
    codes = np.concatenate([np.full(len(task.rows[s]), i, np.int8) for i, s in enumerate(SPLITS)])
    values = [logits[split] if task.multilabel else two_columns(logits[split]) for split in SPLITS]
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file["row"], file["split"] = rows, codes
        file.create_dataset("logits", data=np.concatenate(values).astype(np.float32))
        file.attrs.update(meta)
        file.attrs["labels"] = json.dumps(list(task.labels))
        file.attrs["splits"] = json.dumps(list(SPLITS))
        file.attrs.update(
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
        If the file is missing, truncated or not one of ours.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            meta = dict(file.attrs)
            if not meta.get("complete") or meta.get("format") != PREDICTIONS_FORMAT:
                raise ProbelineError(f"{path}: not complete predictions of this version; delete it")
            splits = np.array(json.loads(meta.pop("splits")))
            labels = json.loads(meta.pop("labels"))
            return Predictions(
                file["row"][:], splits[file["split"][:]], file["logits"][:], labels, meta
            )
    except FileNotFoundError:
        raise ProbelineError(f"{path}: no such predictions") from None
    except (OSError, KeyError) as error:
        raise ProbelineError(
            f"{path}: not readable predictions ({error}); delete it and run again"
        ) from None
