"""What each part of a reranker is worth: embedding tuned or not, hard texts or all, power, k."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from probeline.files import replacing
from probeline.lrsl.ablation_settings import (
    THRESHOLD,
    Hardness,
    Setting,
    Similarities,
    settings_of,
)
from probeline.lrsl.choice import choose
from probeline.lrsl.decision import Decision
from probeline.lrsl.hardness import is_hard
from probeline.lrsl.report import changes, paired_differences
from probeline.lrsl.rerank import Form
from probeline.lrsl.reranking import Reranking
from probeline.lrsl.trial import Trial

if TYPE_CHECKING:
    from probeline.probe.task import TaskData

__all__ = ["Hardness", "Setting", "Similarities", "ablations", "decided", "write_ablations"]

_SPLITS = ("validation", "test")
_SCHEMA = pa.schema(
    [
        ("embedding", pa.string()),
        ("crossfit", pa.bool_()),
        ("rerank", pa.string()),
        ("k", pa.int64()),
        ("form", pa.string()),
        ("power", pa.float64()),
        ("weight", pa.float64()),
        ("threshold", pa.float64()),
        *(
            (f"{split}_{name}", kind)
            for split in _SPLITS
            for name, kind in (
                ("score", pa.float64()),
                ("flagged", pa.int64()),
                ("changed", pa.int64()),
                ("fixed", pa.int64()),
                ("broken", pa.int64()),
            )
        ),
        ("difference", pa.float64()),
        ("ci_low", pa.float64()),
        ("ci_high", pa.float64()),
        ("best_on_validation", pa.bool_()),
        ("chosen", pa.bool_()),
    ]
)
# Logits of the test split kept for the bootstrap at a time.
_AT_ONCE = 32


def ablations(
    task: TaskData,
    logits: Mapping[str, np.ndarray],
    similarities: Sequence[Similarities],
    forms: Sequence[Form],
    ks: Sequence[int],
    hardness: Hardness,
    seed: int,
    top_k: bool = True,
    combiner: bool = False,
    chosen: Setting | None = None,
) -> pa.Table:
    """Rerank validation and test under every setting, whatever validation says of it.

    Parameters
    ----------
    logits : mapping of split to ndarray of float32, shape (n, K)
        Of 'validation' and 'test', in the order of `task.rows`.
    forms : sequence of Form
        Their `candidates` are set here. One that does nothing is left out.
    ks : sequence of int
        Numbers of top logits; each is `candidates` too where `top_k`, else all labels are.
    hardness : Hardness
        The threshold comes from validation.
    seed : int
        Of the bootstrap, and of the combiner's folds and first weights.
    combiner : bool
        Whether the learned form is one of the settings; what validation says of it is of texts it
        was not fitted on.
    chosen : Setting, optional
        What the reranker does. It has a row of its own where it is none of the grid.

    Returns
    -------
    Table
        The first row does nothing; then a row per setting: embedding, crossfit, rerank ('hard' or
        'all'), k, form, power, weight (of `mix` alone), threshold. In a multi-label task the form
        'threshold' leaves the hard texts' labels in their order, and chooses their threshold again,
        as every form does: what a form is worth is what it has above that. Of validation and test
        the task's score and how many texts were flagged, changed, fixed and broken; of test the
        difference of the score to doing nothing with its paired 95 % bootstrap interval.
        `best_on_validation` marks the row with the best validation score, of equal ones that which
        changes fewest; `chosen` what the reranker does, whose choice is not by score alone.
    """
    grid = settings_of(
        task, logits["validation"], similarities, forms, ks, hardness, top_k, combiner
    )
    tried = list(grid)
    own = [chosen is not None and chosen.equals(setting) for setting in tried]
    if chosen is not None and not any(own):
        tried.append(chosen)
        own.append(True)
    rows, kept = [], []
    for setting in tried:
        found, after = _reranked(task, logits, setting, hardness, seed)
        rows.append(setting.columns() | found)
        kept.append(after)
        if len(kept) == _AT_ONCE:
            _add_intervals(task, logits["test"], rows, kept, seed)
            kept.clear()
    _add_intervals(task, logits["test"], rows, kept, seed)
    best = max(rows, key=lambda row: (row["validation_score"], -row["validation_changed"]))
    for row, mark in zip(rows, own, strict=True):
        row |= {"best_on_validation": row is best, "chosen": mark}
    return pa.Table.from_pylist(rows, schema=_SCHEMA)


def decided(
    task: TaskData, logits: np.ndarray, setting: Setting, hardness: Hardness, seed: int
) -> tuple[Trial, Decision]:
    """Fit on validation what a setting leaves open: a combiner, the threshold of several labels.

    Parameters
    ----------
    logits : ndarray of float32, shape (n, K)
        Of validation.
    """
    given = setting.validation(task, logits, hardness)
    forms, combiners = [], []
    if isinstance(setting.way, Form):
        forms.append(setting.way)
    elif setting.way is not None:
        combiners.append(setting.way)
    choice = choose(given, forms, [setting.threshold], combiners, seed, fixed=True)
    trial, reranking = choice.trial, choice.reranking
    if setting.form == THRESHOLD:
        # No choice of its own: it is tried so that others are compared with it.
        trial = choice.trials[-1]
        scale = hardness.temperature, hardness.taken_off
        reranking = Reranking(setting.way, trial.threshold, None, trial.offset, True, *scale)
    return trial, Decision(reranking, hardness.measure, setting.k)


def write_ablations(
    table: pa.Table, path: str | os.PathLike, csv: str | os.PathLike | None = None
) -> None:
    """Write the table as Parquet, and as CSV for people to look at; whole or not at all."""
    with replacing(path) as temporary:
        pq.write_table(table, temporary)
    if csv is not None:
        frame = pd.DataFrame(table.to_pylist(), columns=table.column_names)
        whole = [field.name for field in table.schema if pa.types.is_integer(field.type)]
        frame = frame.astype(dict.fromkeys(whole, "Int64"))
        with replacing(csv) as temporary:
            frame.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")


def _reranked(
    task: TaskData,
    logits: Mapping[str, np.ndarray],
    setting: Setting,
    hardness: Hardness,
    seed: int,
) -> tuple[dict, np.ndarray]:
    """A row's results, and the reranked logits of test."""
    trial, decision = decided(task, logits["validation"], setting, hardness, seed)
    found = {
        "validation_score": trial.score,
        "validation_flagged": trial.hard,
        "validation_changed": trial.changed,
        "validation_fixed": trial.fixed,
        "validation_broken": trial.broken,
    }
    before = after = logits["test"]
    flagged = is_hard(decision.certainty(before), decision.reranking.threshold)
    if flagged.any():
        after = decision.apply(before, flagged, setting.similarity("test", before)[flagged])
    found |= {"test_score": task.score("test", after), "test_flagged": int(flagged.sum())}
    for name, count in changes(task, "test", before, after).items():
        found[f"test_{name}"] = count
    return found, after


def _add_intervals(
    task: TaskData, before: np.ndarray, rows: list[dict], after: Sequence[np.ndarray], seed: int
) -> None:
    """Complete the last rows, whose reranked logits of test are `after`."""
    if after:
        found = paired_differences(task, task.y["test"], before, after, seed)
        for row, more in zip(rows[-len(after) :], found, strict=True):
            row |= more
