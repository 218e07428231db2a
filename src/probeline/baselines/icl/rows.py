"""Which texts of a dataset are scored: a language model is slow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from probeline.data.store import Dataset
from probeline.probe.task import SPLITS, TaskData


def scored_rows(
    dataset: Dataset, task: TaskData, most: Mapping[str, int | None], seed: int
) -> tuple[np.ndarray, TaskData]:
    """Choose the texts that are scored.

    Parameters
    ----------
    most : mapping of split to int or None
        A split with more texts that the task applies to gives a random part of them, one with as
        many or fewer all its texts, those included where a level of a hierarchy does not apply.

    Returns
    -------
    rows : ndarray of int64
        Row numbers, ascending.
    task : TaskData
        The task on those of them where it is defined.
    """
    chosen, kept, y = [], {}, {}
    for number, split in enumerate(SPLITS):
        defined, limit = task.rows[split], most.get(split)
        if limit is None or limit >= len(defined):
            places = np.arange(len(defined))
            part = dataset.split(split)
            chosen.append(np.arange(part.start, part.stop))
        else:
            generator = np.random.default_rng([seed, number])
            # The first of one permutation: a larger part holds every smaller one.
            places = np.sort(generator.permutation(len(defined))[:limit])
            chosen.append(defined[places])
        kept[split], y[split] = defined[places], task.y[split][places]
    return np.concatenate(chosen), replace(task, rows=kept, y=y)
