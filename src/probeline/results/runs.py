"""Rows of the summary for the runs of one method, one per seed, and for the mean of the runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from probeline.probe.metrics import score
from probeline.probe.task import TaskData
from probeline.results.intervals import bootstrap_interval, interval_over_seeds
from probeline.results.predictions import Predictions
from probeline.results.seeds import named_mean
from probeline.results.truth import labels_of

SPLITS = ("validation", "test")
# What a run may have taken, which a mean row has the mean of.
_COSTS = ("seconds", "train_seconds", "texts_per_second")


@dataclass(frozen=True)
class Run:
    """What is known of one run.

    Attributes
    ----------
    row : mapping
        Columns of the summary.
    scores : mapping of split to float
    predictions : Predictions
    """

    row: Mapping
    scores: Mapping[str, float]
    predictions: Predictions


def scores_of(predictions: Predictions, task: TaskData) -> dict[str, float]:
    """Scores by split where no stage has stored them."""
    return {
        split: score(
            task.metric,
            labels_of(task, split, predictions.rows_of(split)),
            predictions.of(split),
            task.classes,
        )
        for split in SPLITS
    }


def run_rows(run: Run, task: TaskData, seed: int) -> Iterator[dict]:
    """A row per split, its interval over the texts that the run answers."""
    for split in SPLITS:
        labels = labels_of(task, split, run.predictions.rows_of(split))
        logits = run.predictions.of(split)
        low, high = bootstrap_interval(task.metric, labels, logits, task.classes, seed)
        yield {
            **run.row,
            "split": split,
            "score": run.scores[split],
            "ci_low": low,
            "ci_high": high,
            "seeds": 1,
        }


def mean_rows(runs: Sequence[Run], task: TaskData, seed: int) -> Iterator[dict]:
    """A row per split for the mean over seeds; none of a single run.

    `std` is the standard deviation of the runs' scores (divisor S - 1), the interval is over texts
    and seeds. Where seeds answer different texts, the texts of all are drawn from, and each seed is
    scored on those of its own.
    """
    if len(runs) < 2:
        return
    row = {
        **runs[0].row,
        **{key: _mean([run.row.get(key) for run in runs]) for key in _COSTS},
        "variant": named_mean(len(runs)),
        "seed": None,
        "seeds": len(runs),
    }
    for split in SPLITS:
        scores = [run.scores[split] for run in runs]
        every = [run.predictions.rows_of(split) for run in runs]
        rows = reduce(np.union1d, every)
        low, high = interval_over_seeds(
            task.metric,
            labels_of(task, split, rows),
            [run.predictions.logits[rows] for run in runs],
            task.classes,
            seed,
            [np.isin(rows, own) for own in every],
        )
        yield {
            **row,
            "split": split,
            "score": float(np.mean(scores)),
            "std": float(np.std(scores, ddof=1)),
            "ci_low": low,
            "ci_high": high,
        }


def _mean(values: Sequence[float | None]) -> float | None:
    return None if None in values else float(np.mean(values))
