"""The labels that predictions are scored against, which may be of a part of a task's texts."""

from __future__ import annotations

import os

import numpy as np

from probeline.config import PATH_TASK
from probeline.data.store import Dataset
from probeline.errors import ProbelineError
from probeline.probe.task import TaskData, task_data
from probeline.results.hierarchy import path_task, paths_of
from probeline.results.predictions import Predictions, read_predictions


def task_of(dataset: Dataset, name: str, metric: str) -> TaskData:
    """A task of a dataset by name, 'path' being the whole paths of a hierarchy."""
    if name == PATH_TASK:
        return path_task(dataset, paths_of(dataset), metric)
    return task_data(dataset, name, metric)


def checked_predictions(path: str | os.PathLike, dataset: Dataset, task: TaskData) -> Predictions:
    """Read predictions that must be of a task's texts, of all or of some of them.

    Raises
    ------
    ProbelineError
        If they are missing, truncated, of another task, metric or dataset, of texts that the task
        does not apply to, or of no text of validation or test.
    """
    found = read_predictions(path)
    of_task = (found.meta["dataset_fingerprint"], found.meta["task"], found.meta["metric"])
    if (of_task, found.labels) != ((dataset.fingerprint, task.name, task.metric), [*task.labels]):
        raise ProbelineError(
            f"{path}: not predictions of task '{task.name}' of dataset {dataset.name} as it is "
            "now; delete it and run again"
        )
    for split in ("validation", "test"):
        rows = found.rows_of(split)
        if len(rows) == 0 or not np.isin(rows, task.rows[split]).all():
            wrong = "some that the task does not apply to" if len(rows) else "none"
            raise ProbelineError(
                f"{path}: expected predictions of {split} texts of task '{task.name}', found "
                f"{wrong}; delete it and run again"
            )
    return found


def labels_of(task: TaskData, split: str, rows: np.ndarray) -> np.ndarray:
    """Labels (n,) or (n, K) of some rows of a split, by their numbers in the dataset, ascending."""
    return task.y[split][np.searchsorted(task.rows[split], rows)]
