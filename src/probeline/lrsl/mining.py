"""The triplets stage: a classifier's logits of the training texts in, triplets out."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from probeline.data.label_text import label_texts
from probeline.data.store import Dataset, read_dataset
from probeline.errors import ProbelineError
from probeline.lrsl.crossfit import read_crossfit
from probeline.lrsl.embedding import texts_to_embed
from probeline.lrsl.triplets import mine, write_triplets
from probeline.probe.task import TaskData, task_data
from probeline.results.predictions import read_predictions

log = logging.getLogger(__name__)


def mine_triplets(
    dataset_folder: str | os.PathLike,
    task_name: str,
    source: str,
    logits: str | os.PathLike,
    out: str | os.PathLike,
    options: Mapping,
    seed: int,
    *,
    crossfitted: bool,
    given: Mapping[str, str | Sequence[str]] | None = None,
    is_hard: Callable[[np.ndarray], np.ndarray] | None = None,
    metric: str | None = None,
) -> None:
    """Mine triplets from the training texts and write them as Parquet.

    Parameters
    ----------
    source : str
        Whose logits they are, for the file's metadata.
    logits : path
        Cross-fitted logits, or without `crossfitted` the classifier's own predictions, as in the
        paper.
    options : mapping
        See `probeline.lrsl.triplets.mine`.
    given : mapping, optional
        Texts of labels, see `probeline.data.label_text.label_texts`.
    is_hard : callable, optional
        Logits (n, K) -> bool (n,): which texts `hard_only` keeps beside the wrong ones.

    Raises
    ------
    ProbelineError
        If the logits are of other data, or no triplet is found.
    """
    dataset = read_dataset(dataset_folder)
    task = task_data(dataset, task_name, metric)
    values = _crossfitted(logits, dataset, task) if crossfitted else _own(logits, dataset, task)
    rows = task.rows["train"]
    found = mine(
        rows,
        texts_to_embed(dataset, rows),
        task.y["train"],
        values,
        task.labels,
        label_texts(task.labels, given),
        options,
        seed,
        is_hard(values) if is_hard is not None and options["hard_only"] else None,
    )
    if found.num_rows == 0:
        raise ProbelineError(
            f"{logits}: gives no triplets: no wrong label is ranked near a true one; raise "
            "lrsl.triplets.k, set lrsl.triplets.hard_only: false, or lrsl.crossfit to 2 or more"
        )
    write_triplets(
        out,
        found,
        {
            "dataset": dataset.name,
            "dataset_fingerprint": dataset.fingerprint,
            "task": task.name,
            "source": source,
            "crossfitted": crossfitted,
            "options": dict(options),
            "seed": seed,
        },
    )
    log.info(
        "%d triplets of %d of %d training texts",
        found.num_rows,
        len(np.unique(found["row"].to_numpy())),
        len(rows),
    )


def _crossfitted(path: str | os.PathLike, dataset: Dataset, task: TaskData) -> np.ndarray:
    return read_crossfit(path, dataset, task).logits


def _own(path: str | os.PathLike, dataset: Dataset, task: TaskData) -> np.ndarray:
    """A classifier's own logits of the training rows, float32 (n, K); NaN of those unanswered."""
    found = read_predictions(path)
    about = (found.meta["dataset_fingerprint"], found.meta["task"], found.labels)
    if about != (dataset.fingerprint, task.name, list(task.labels)):
        raise ProbelineError(
            f"{path}: predictions of another dataset, task or labels than '{task.name}' of "
            f"{dataset.name}; delete it and run again"
        )
    answered = np.where(found.defined[:, None], found.logits, np.float32(np.nan))
    return answered[task.rows["train"]]
