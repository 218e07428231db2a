"""Labels as tokens beside the regular classifier: what first embeddings and ways to read change."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from probeline.config import LABEL_TOKENS
from probeline.files import read_json, replacing
from probeline.results.seeds import named_mean

# What scores files of multi-label tasks tell of test beside the metric that decides.
_MULTILABEL = ("micro-f1", "macro-f1", "roc-auc-micro", "subset-accuracy")

COLUMNS = (
    *("dataset", "task", "model", "method", "variant", "seeds", "metric"),
    *("validation", "test", "std", "ci_low", "ci_high"),
    *(name.replace("-", "_") for name in _MULTILABEL),
    *("minus_regular", "difference_low", "difference_high", "p_holm"),
    *("seconds_per_epoch", "order_changes", "order_difference", "chunk_difference"),
    *("labels_read", "recall_test"),
)


def write_label_tokens(
    summary: str | os.PathLike,
    comparisons: str | os.PathLike,
    entries: Sequence[Mapping],
    out: str | os.PathLike,
) -> None:
    """Write the table of `label_tokens_table` as CSV (six significant digits), whole or not at all.

    Parameters
    ----------
    summary, comparisons : path
        Parquet.
    entries
        As in `label_tokens_table`.
    """
    table = label_tokens_table(pd.read_parquet(summary), pd.read_parquet(comparisons), entries)
    with replacing(out) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")


def label_tokens_table(
    summary: pd.DataFrame, comparisons: pd.DataFrame, entries: Sequence[Mapping]
) -> pd.DataFrame:
    """A row per cell and series of runs, that of the regular classifier among them.

    Parameters
    ----------
    summary : DataFrame
        As `probeline.results.summary` makes it.
    comparisons : DataFrame
        As `probeline.results.comparisons` makes it, with the regular classifier against each
        series where both were trained.
    entries : sequence of mapping
        dataset, task, model, method, series (None: the method has one) and scores, the scores files
        of all seeds.

    Returns
    -------
    DataFrame
        `COLUMNS`. Scores are means over seeds and `std` their standard deviation, intervals are
        over texts and seeds. Micro- and macro-F1, ROC-AUC over all (text, label) pairs and subset
        accuracy are of test, and empty for single-label tasks. `minus_regular` is the paired
        difference on the same test texts. Of the mean over seeds: seconds of an epoch; what another
        order of the labels changes on validation, as a share of the texts and as the largest
        difference of a logit, and what chunks do; how many labels are read of a text, and how often
        the true one is among them.
    """
    return pd.DataFrame([_row(summary, comparisons, entry) for entry in entries], columns=COLUMNS)


def _row(summary: pd.DataFrame, comparisons: pd.DataFrame, entry: Mapping) -> dict:
    names = {key: entry[key] for key in ("dataset", "task", "model", "method")}
    found = [read_json(path) for path in entry["scores"]]
    seeds, series = len(found), entry["series"]
    variant = series if seeds == 1 else named_mean(seeds, series)
    rows = _where(summary, seeds=seeds, **names)
    if variant is not None:
        rows = rows[rows["variant"] == variant]
    of = {row["split"]: row for row in rows.to_dict("records")}
    return {
        **names,
        "variant": series or "",
        "seeds": seeds,
        "metric": of["test"]["metric"],
        "validation": of["validation"]["score"],
        **{key: of["test"][key] for key in ("std", "ci_low", "ci_high")},
        "test": of["test"]["score"],
        **{
            name.replace("-", "_"): _mean(found, "multilabel", "test", name) for name in _MULTILABEL
        },
        **_difference(comparisons, names, variant),
        "seconds_per_epoch": _mean(found, "seconds_per_epoch"),
        "order_changes": _mean(found, "order", "changed"),
        "order_difference": _mean(found, "order", "difference"),
        "chunk_difference": _mean(found, "chunk_difference"),
        "labels_read": _mean(found, "shortlist", "labels"),
        "recall_test": _mean(found, "shortlist", "recall", "test"),
    }


def _difference(comparisons: pd.DataFrame, names: Mapping, variant: str | None) -> dict:
    """How far a series is above the regular classifier; nothing of that one itself."""
    if names["method"] != LABEL_TOKENS:
        return {}
    cell = {key: names[key] for key in ("dataset", "task", "model")}
    rows = _where(comparisons, against=LABEL_TOKENS, against_variant=variant, **cell)
    rows = rows[rows["method"].isin(["regular", "finetune"])]
    if rows.empty:
        return {}
    row = rows.iloc[0]
    return {
        "minus_regular": 0.0 - row["difference"],
        "difference_low": 0.0 - row["ci_high"],
        "difference_high": 0.0 - row["ci_low"],
        "p_holm": row["p_holm"],
    }


def _where(frame: pd.DataFrame, **values) -> pd.DataFrame:
    kept = np.ones(len(frame), bool)
    for column, value in values.items():
        kept &= (frame[column] == value).to_numpy()
    return frame[kept]


def _mean(found: Sequence[Mapping], *keys: str) -> float | None:
    """The mean of a value in all scores files; None where one has it not."""
    values = []
    for scores in found:
        for key in keys:
            scores = None if scores is None else scores.get(key)
        values.append(scores)
    return None if None in values else float(np.mean(values))
