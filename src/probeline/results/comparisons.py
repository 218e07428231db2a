"""Differences of two methods on the same texts: who is better, by a paired bootstrap.

The texts of the test split are resampled with replacement, both methods are scored on every
resample, and the difference of the two scores is what varies (paired bootstrap: Koehn 2004,
Berg-Kirkpatrick et al. 2012). Texts that are hard for both methods move both scores alike, so this
interval is narrower than the two intervals of single scores suggest.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests

from probeline.config import PATH_TASK
from probeline.data.store import Dataset, read_dataset
from probeline.errors import ProbelineError
from probeline.probe.task import TaskData, task_data
from probeline.results.frames import write_frame
from probeline.results.hierarchy import path_task, paths_of
from probeline.results.intervals import bootstrap_p, percentile_interval
from probeline.results.predictions import Predictions, read_predictions
from probeline.results.resamples import resampled_scores

COLUMNS = (
    "dataset",
    "task",
    "model",
    "metric",
    "split",
    "method",
    "variant",
    "against",
    "against_variant",
    "difference",
    "ci_low",
    "ci_high",
    "p",
    "p_holm",
    "verdict",
)
SPLIT = "test"
# The level of the verdict, over all comparisons of the table together.
ALPHA = 0.05
# The smallest p-value is 2 / (resamples + 1), and Holm multiplies it by the comparisons.
_LEAST, _PER_COMPARISON = 10_000, 200

log = logging.getLogger(__name__)


def write_comparisons(
    entries: Sequence[Mapping], csv: str | os.PathLike, parquet: str | os.PathLike, seed: int
) -> None:
    """Write the comparisons of all cells as CSV and Parquet; columns `COLUMNS`.

    Parameters
    ----------
    entries, seed
        As in `comparisons`.
    """
    write_frame(comparisons(entries, seed), csv, parquet)


def comparisons(entries: Sequence[Mapping], seed: int) -> pd.DataFrame:
    """Compare the first method of every cell with each other one, on the test texts.

    Parameters
    ----------
    entries : sequence of mapping
        One per (dataset, task, model): those three names, the dataset's `folder`, and `methods`:
        mappings with `method`, `path` (predictions) and `variant` (None: the one in the file).
    seed : int
        Cells with equally many test texts get the same resamples.

    Returns
    -------
    DataFrame
        A row per comparison. `difference` is the score of `method` minus that of `against`, which
        `ci_low` to `ci_high` is the 95 % percentile interval of; `p` is two-sided. `p_holm` is `p`
        adjusted by Holm (1979) over all rows: with probability 95 % no verdict but 'not separated'
        is wrong. `verdict` goes by `p_holm`, not by the interval, which is of one comparison alone:
        'better' or 'worse' below 0.05, else 'not separated'.

    Raises
    ------
    ProbelineError
        If predictions are missing, truncated, or not of the cell's labels and texts.

    Notes
    -----
    Where two methods differ on a handful of texts only, a bootstrap is optimistic: with 4 texts
    that one method alone has right and none the other way, p is about 0.04, a sign test's 0.125.
    """
    pairs = sum(len(entry["methods"]) - 1 for entry in entries)
    resamples = max(_LEAST, _PER_COMPARISON * pairs)
    rows = [row for entry in entries for row in _rows(entry, seed, resamples)]
    for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row |= {"p_holm": p, "verdict": verdict(row["difference"], p)}
    return pd.DataFrame(rows, columns=list(COLUMNS))


def holm(p: Sequence[float]) -> list[float]:
    """P-values adjusted for the family they form (Holm 1979)."""
    return multipletests(p, method="holm")[1].tolist() if p else []


def verdict(difference: float, p_holm: float) -> str:
    """What a comparison says of its first method."""
    if p_holm >= ALPHA or difference == 0:
        return "not separated"
    return "better" if difference > 0 else "worse"


def _rows(entry: Mapping, seed: int, resamples: int) -> list[dict]:
    methods = entry["methods"]
    found = [read_predictions(method["path"]) for method in methods]
    dataset = read_dataset(entry["folder"], texts=False)
    task = _task(dataset, entry["task"], found[0].meta["metric"])
    for method, predictions in zip(methods, found, strict=True):
        _check(method["path"], predictions, dataset, task)
    logits = [predictions.of(SPLIT) for predictions in found]
    scores = np.array([task.score(SPLIT, values) for values in logits])
    drawn = resampled_scores(task.metric, task.y[SPLIT], logits, task.classes, seed, resamples)
    names = [_name(*pair) for pair in zip(methods, found, strict=True)]
    base = {key: entry[key] for key in ("dataset", "task", "model")}
    base |= {"metric": task.metric, "split": SPLIT}
    rows = []
    for other in range(1, len(methods)):
        differences = drawn[0] - drawn[other]
        low, high = percentile_interval(differences)
        rows.append(
            base
            | dict(zip(("method", "variant"), names[0], strict=True))
            | dict(zip(("against", "against_variant"), names[other], strict=True))
            | {"difference": float(scores[0] - scores[other]), "ci_low": low, "ci_high": high}
            | {"p": bootstrap_p(differences)}
        )
    log.info("%s, %s, %s: %d comparisons", *list(base.values())[:3], len(rows))
    return rows


def _name(method: Mapping, predictions: Predictions) -> tuple[str, str]:
    return method["method"], method["variant"] or predictions.meta["variant"]


def _task(dataset: Dataset, name: str, metric: str) -> TaskData:
    if name == PATH_TASK:
        return path_task(dataset, paths_of(dataset), metric)
    return task_data(dataset, name, metric)


def _check(path: str, found: Predictions, dataset: Dataset, task: TaskData) -> None:
    """A pair of predictions must be of the same texts, and of those whose labels are at hand."""
    of_task = (found.meta["dataset_fingerprint"], found.meta["task"], found.meta["metric"])
    if (of_task, found.labels) != ((dataset.fingerprint, task.name, task.metric), [*task.labels]):
        raise ProbelineError(
            f"{path}: not predictions of task '{task.name}' of dataset {dataset.name} as it is "
            "now; delete it and run again"
        )
    if not np.array_equal(found.rows_of(SPLIT), task.rows[SPLIT]):
        raise ProbelineError(
            f"{path}: not of all {SPLIT} texts of task '{task.name}', so it cannot be compared; "
            "delete it and run again"
        )
