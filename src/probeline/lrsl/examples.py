"""Texts whose answer reranking changed, for people to look at."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from probeline.files import replacing
from probeline.lrsl.hardness import misclassified
from probeline.lrsl.report import answers_differ
from probeline.lrsl.rerank import TakenOff, log_odds
from probeline.lrsl.temperature import probabilities

if TYPE_CHECKING:
    from probeline.probe.task import TaskData

COLUMNS = (
    "row",
    "split",
    "text",
    "true_label",
    "old_label",
    "new_label",
    "outcome",
    "true_similarity",
    "old_similarity",
    "new_similarity",
    "old_probability_before",
    "new_probability_before",
    "old_probability_after",
    "new_probability_after",
)
_OUTCOMES = ("fixed", "broken", "changed")
_JOINT = " | "


def examples(
    task: TaskData,
    split: str,
    texts: Sequence[str] | None,
    before: np.ndarray,
    after: np.ndarray,
    flagged: np.ndarray,
    similarity: np.ndarray,
    limit: int | None = None,
    temperature: float = 1.0,
    taken_off: TakenOff = None,
) -> pd.DataFrame:
    """Collect the texts whose answer changed, fixed ones first, then broken ones, then others.

    Parameters
    ----------
    texts : sequence of str or None
        Of the whole dataset, by row number; None leaves them out.
    before, after : ndarray of float32, shape (n, K)
        Of `task.rows[split]`.
    flagged : ndarray of bool, shape (n,)
    similarity : ndarray, shape (flagged texts, K)
    limit : int, optional
        Most texts of each outcome; the first by row number.
    temperature : float
        Divides the logits, before and after.
    taken_off : sequence of float, optional
        Of several labels: the thresholds that the logits come without.

    Returns
    -------
    DataFrame
        Columns `COLUMNS`. Probabilities are the softmax, of several labels the sigmoid of each,
        which are predicted above the probability of their threshold before and after. Of a
        multi-label text the labels are joined by ' | ', and so are the numbers, in the same order;
        empty where it has no label.
    """
    places = np.flatnonzero(answers_differ(before, after, task.multilabel) & flagged)
    where = np.cumsum(flagged) - 1
    wrong = [
        misclassified(v[places], task.y[split][places], task.multilabel) for v in (before, after)
    ]
    outcome = np.where(wrong[0] & ~wrong[1], 0, np.where(~wrong[0] & wrong[1], 1, 2))
    places, outcome = _ordered(places, outcome, limit)
    was, now = (
        probabilities(log_odds(values[places], taken_off), task.multilabel, temperature)
        for values in (before, after)
    )
    cosine = similarity[where[places]]
    rows = []
    for i, place in enumerate(places):
        true = _codes(task.y[split][place], task)
        old, new = (_codes(_answer(v[place], task), task) for v in (before, after))
        row = int(task.rows[split][place])
        rows.append(
            {
                "row": row,
                "split": split,
                "text": texts[row] if texts is not None else None,
                **{
                    f"{name}_label": _JOINT.join(task.labels[code] for code in codes)
                    for name, codes in (("true", true), ("old", old), ("new", new))
                },
                "outcome": _OUTCOMES[outcome[i]],
                "true_similarity": _numbers(cosine[i, true], task),
                "old_similarity": _numbers(cosine[i, old], task),
                "new_similarity": _numbers(cosine[i, new], task),
                "old_probability_before": _numbers(was[i, old], task),
                "new_probability_before": _numbers(was[i, new], task),
                "old_probability_after": _numbers(now[i, old], task),
                "new_probability_after": _numbers(now[i, new], task),
            }
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def write_examples(frame: pd.DataFrame, path: str | os.PathLike) -> None:
    """Write examples as CSV, whole or not at all."""
    with replacing(path) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.4f", lineterminator="\n")


def _ordered(
    places: np.ndarray, outcome: np.ndarray, limit: int | None
) -> tuple[np.ndarray, np.ndarray]:
    parts = [places[outcome == code][:limit] for code in range(len(_OUTCOMES))]
    return np.concatenate(parts), np.repeat(np.arange(len(parts)), [len(part) for part in parts])


def _answer(logits: np.ndarray, task: TaskData) -> np.ndarray:
    return logits > 0 if task.multilabel else logits.argmax()


def _codes(answer: np.ndarray, task: TaskData) -> list[int]:
    return np.flatnonzero(answer).tolist() if task.multilabel else [int(answer)]


def _numbers(values: np.ndarray, task: TaskData) -> float | str:
    if not task.multilabel:
        return float(values[0])
    return _JOINT.join(f"{value:.4f}" for value in values)
