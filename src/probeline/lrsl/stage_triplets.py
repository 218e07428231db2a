"""The triplets stage of a run: options resolved, hard texts found by validation's threshold."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import numpy as np

from probeline.data.store import read_dataset
from probeline.lrsl.hardness import certainty, is_hard
from probeline.lrsl.mining import mine_triplets
from probeline.lrsl.rerank import TakenOff
from probeline.lrsl.stage_data import (
    answered,
    taken_off,
    top_labels,
    validation_temperature,
    validation_threshold,
)
from probeline.probe.task import TaskData


def make_triplets(
    dataset_folder: str | os.PathLike,
    task_name: str,
    source: str,
    predictions: str | os.PathLike,
    crossfit: str | os.PathLike | None,
    out: str | os.PathLike,
    settings: Mapping,
) -> None:
    """Mine triplets from what a classifier says of the training texts.

    Parameters
    ----------
    source : str
        File name of the predictions.
    predictions : path
        The classifier's.
    crossfit : path or None
        Logits of the training texts that were not made by a classifier that saw them; without, its
        own are read.
    out : path
        Parquet, see `probeline.lrsl.triplets`.
    settings : mapping
        `options` (`triplets`; with its `hard_only` also `k`, `hardness`, `threshold`,
        `temperature`), `label_texts`, `seed`, `metric`.

    Raises
    ------
    ProbelineError
        If the files are of other data, `k` is above the number of labels, or no triplet is found.
    """
    options = settings["options"]
    found, task = answered(
        predictions, read_dataset(dataset_folder, texts=False), task_name, settings["metric"]
    )
    triplets = dict(options["triplets"])
    triplets["k"] = top_labels(triplets["k"], task.classes)
    hard = None
    if triplets["hard_only"]:
        validation = found.logits[task.rows["validation"]]
        hard = _hardness(task, validation, options, taken_off(found, task))
    mine_triplets(
        dataset_folder,
        task_name,
        source,
        crossfit or predictions,
        out,
        triplets,
        settings["seed"],
        crossfitted=crossfit is not None,
        given=settings["label_texts"],
        is_hard=hard,
        metric=settings["metric"],
    )


def _hardness(
    task: TaskData, logits: np.ndarray, options: Mapping, off: TakenOff
) -> Callable[[np.ndarray], np.ndarray]:
    temperature = validation_temperature(task, logits, options, off)
    threshold = validation_threshold(task, logits, options, temperature)
    k = top_labels(options["k"], task.classes)

    def hard(values: np.ndarray) -> np.ndarray:
        found = certainty(values, options["hardness"], k, task.multilabel, temperature)
        return is_hard(found, threshold)

    return hard
