"""Scores of whole paths through a hierarchy, from one method's predictions of each level.

A level is trained and scored where it is defined, so the levels' own scores leave rows out, and
their answers may contradict each other. Here every row is scored on one consistent answer, the most
probable path (a classifier per level, see Silla and Freitas 2011, joined by the chain rule):

    P(path) = product over its labels of P(label | the label above), times P(end | its last label)
    P(label | above) = (1 - P(end | above)) * softmax of the level's logits over above's children

P(end | label) is the share of the training texts with that label that have no finer one: 0 where
all go on and 1 for a label without children, so for most hierarchies it drops out. In between, no
level is trained on where a text ends, and a constant is what can be known. The start of all paths
counts as a label, for texts without even the coarsest one. All paths together have probability 1.

The most probable path is the answer that is right as a whole most often, as far as the levels'
probabilities are right (classes weighted alike in training tilt them). It is a careful one: among
many fine labels none may be as probable as a path that ends early, even where the coarse level by
itself says to go on.

A path that only validation or test has (its text ends where no training text does) has probability
0, a logit of minus infinity: it is never predicted and such rows count as wrong.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from probeline.config import PATH_TASK
from probeline.data.store import Dataset, read_dataset
from probeline.errors import ProbelineError
from probeline.probe.task import SPLITS, TaskData, task_data
from probeline.results.predictions import (
    Predictions,
    every_row,
    read_predictions,
    write_predictions,
)

_ARROW = " > "
_NOWHERE = "(none)"


@dataclass(frozen=True)
class Paths:
    """The paths that the rows of a dataset take.

    Attributes
    ----------
    labels : tuple of str, P of them
        Such as 'sexist > derogation'; '(none)' without even a coarsest label.
    steps : ndarray of int64, shape (P, levels)
        Label codes, -1 below the path's end; in lexical order.
    counts : ndarray of int64, shape (P,)
        Training rows of each.
    truth : ndarray of int64, shape (rows,)
        Each row's path.
    """

    labels: tuple[str, ...]
    steps: np.ndarray
    counts: np.ndarray
    truth: np.ndarray


def levels_of(dataset: Dataset) -> list[str]:
    """Tasks of a hierarchy, coarse to fine.

    Raises
    ------
    ProbelineError
        If the dataset has no hierarchy.
    """
    levels = dataset.manifest.get("hierarchy")
    if not levels:
        raise ProbelineError(f"dataset {dataset.name}: has one label column, so there are no paths")
    return levels


def paths_of(dataset: Dataset) -> Paths:
    """Collect the paths of a hierarchy."""
    levels = levels_of(dataset)
    codes = np.stack([dataset.labels(level) for level in levels], axis=1)
    steps, truth = np.unique(codes, axis=0, return_inverse=True)
    truth = truth.reshape(-1)
    names = [dataset.tasks[level]["labels"] for level in levels]
    labels = tuple(
        _ARROW.join(names[level][code] for level, code in enumerate(step) if code >= 0) or _NOWHERE
        for step in steps
    )
    counts = np.bincount(truth[dataset.split("train")], minlength=len(steps))
    return Paths(labels, steps, counts, truth)


def path_task(dataset: Dataset, paths: Paths, metric: str | None = None) -> TaskData:
    """Whole paths as a task, defined on every row; `metric` is accuracy by default."""
    parts = {split: dataset.split(split) for split in SPLITS}
    return TaskData(
        PATH_TASK,
        paths.labels,
        multilabel=False,
        metric=metric or "accuracy",
        rows={split: np.arange(part.start, part.stop) for split, part in parts.items()},
        y={split: paths.truth[part] for split, part in parts.items()},
    )


def path_logits(paths: Paths, levels: Sequence[np.ndarray]) -> np.ndarray:
    """Log probability of every path.

    Parameters
    ----------
    levels : sequence of ndarray, shape (n, labels of the level)
        Logits of each level, coarse to fine, of the same rows.

    Returns
    -------
    ndarray of float32, shape (n, P)
    """
    total = np.zeros((len(levels[0]), len(paths.steps)))
    for level, logits in enumerate(levels):
        codes = paths.steps[:, level]
        for below in _nodes(paths.steps, level):
            ends, goes = below[codes[below] < 0], below[codes[below] >= 0]
            share = paths.counts[ends].sum() / paths.counts[below].sum()
            with np.errstate(divide="ignore"):
                total[:, ends] += np.log(share)
            if len(goes):
                children, place = np.unique(codes[goes], return_inverse=True)
                known = _log_softmax(logits[:, children].astype(np.float64)) + np.log1p(-share)
                total[:, goes] += known[:, place]
    return total.astype(np.float32)


def _nodes(steps: np.ndarray, level: int) -> Iterator[np.ndarray]:
    """Numbers of the paths through each label of the level above, ended ones left out."""
    if level == 0:
        yield np.arange(len(steps))
        return
    above = steps[:, level - 1]  # each label has one parent, so it tells all of the path to it
    for label in np.unique(above[above >= 0]):
        yield np.flatnonzero(above == label)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def combine_levels(
    levels: Sequence[str | os.PathLike],
    dataset_folder: str | os.PathLike,
    model_name: str,
    out: str | os.PathLike,
    metric: str | None = None,
) -> None:
    """Write the predictions of whole paths, on all rows of the splits that the levels answer.

    Parameters
    ----------
    levels : sequence of path
        One method's predictions of each level, coarse to fine.
    out : path
        Predictions of the task 'path': labels are paths, logits are log P(path). `variant` and
        `seed` are the levels'; a variant that differs from level to level names them all.
    metric : str, optional

    Raises
    ------
    ProbelineError
        If the dataset has no hierarchy, or the predictions are not those of its levels, of
        different seeds, or of a part of a split.
    """
    dataset = read_dataset(dataset_folder, texts=False)
    paths = paths_of(dataset)
    found = [
        _read_level(path, dataset, level)
        for path, level in zip(levels, levels_of(dataset), strict=True)
    ]
    logits = every_row(
        dataset, lambda rows: path_logits(paths, [level.logits[rows] for level in found])
    )
    variants = [level.meta["variant"] for level in found]
    meta = {
        "model": model_name,
        "method": found[0].meta["method"],
        "variant": variants[0] if len(set(variants)) == 1 else _ARROW.join(variants),
        **_seed_of(levels, found),
        **_source_of(found),
    }
    task = path_task(dataset, paths, metric)
    answered = _answered(levels, found, dataset)
    task = replace(
        task,
        rows={split: rows if answered[split] else rows[:0] for split, rows in task.rows.items()},
    )
    write_predictions(out, dataset, task, logits, meta)


def _read_level(path: str | os.PathLike, dataset: Dataset, level: str) -> Predictions:
    found = read_predictions(path)
    expected = (dataset.fingerprint, level, dataset.tasks[level]["labels"])
    if (found.meta["dataset_fingerprint"], found.meta["task"], found.labels) != expected:
        raise ProbelineError(
            f"{path}: not predictions of level '{level}' of dataset {dataset.name} as it is now; "
            "delete it and run again"
        )
    return found


def _seed_of(paths: Sequence[str | os.PathLike], levels: Sequence[Predictions]) -> dict:
    """The seed that the levels share; nothing where there is none."""
    seeds = {level.meta.get("seed") for level in levels}
    if len(seeds) > 1:
        raise ProbelineError(
            f"{', '.join(map(str, paths))}: levels of different seeds; expected those of one"
        )
    (seed,) = seeds
    return {} if seed is None else {"seed": seed}


def _source_of(levels: Sequence[Predictions]) -> dict:
    """What was reranked; nothing of other methods."""
    return {"source": levels[0].meta["source"]} if "source" in levels[0].meta else {}


def _answered(
    paths: Sequence[str | os.PathLike], levels: Sequence[Predictions], dataset: Dataset
) -> dict[str, bool]:
    """Whether the levels are predicted in a split: in-context learning may leave one out."""
    found = dict.fromkeys(SPLITS, True)
    for path, level in zip(paths, levels, strict=True):
        rows = task_data(dataset, level.meta["task"]).rows
        for split in SPLITS:
            own = level.rows_of(split)
            if 0 < len(own) < len(rows[split]):
                raise ProbelineError(
                    f"{path}: predictions of {len(own)} of {len(rows[split])} {split} texts; whole "
                    "paths need all of them, or none (for icl: icl.max_texts)"
                )
            found[split] &= len(own) > 0
    return found
