"""What reranking changed: scores before and after, texts that were fixed and broken.

Examples are in `probeline.lrsl.examples`, the score by the share reranked in `lrsl.curve`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from probeline.errors import ProbelineError
from probeline.lrsl.hardness import misclassified
from probeline.lrsl.triplets import indicators
from probeline.probe.metrics import predict_codes, score
from probeline.results.intervals import RESAMPLES, percentile_interval
from probeline.results.resamples import resampled_scores

if TYPE_CHECKING:
    from probeline.probe.task import TaskData


def compare(
    task: TaskData,
    split: str,
    before: np.ndarray,
    after: np.ndarray,
    flagged: np.ndarray,
    seed: int,
    hard: np.ndarray | None = None,
) -> dict:
    """Compare logits before and after reranking on the texts of a split.

    Parameters
    ----------
    before, after : ndarray of float32, shape (n, K)
        Of `task.rows[split]`; a label of a multi-label task is predicted above 0.
    flagged : ndarray of bool, shape (n,)
        Texts that were reranked.
    seed : int
        Of the bootstrap.
    hard : ndarray of bool, shape (n,), optional
        Texts that are hard, reranked or not; default the flagged ones.

    Returns
    -------
    dict
        metric; texts, flagged, and of `changes`; `all` and `hard` (the hard texts), each with
        before, after (the metric), accuracy_before, accuracy_after (of a multi-label task the share
        of texts whose set of labels is right), difference, ci_low and ci_high (of the metric: the
        paired 95 % bootstrap of `difference`). What has no texts, or no score, is None. Plain
        values, fit for JSON.
    """
    y = task.y[split]
    hard = flagged if hard is None else hard
    return {
        "metric": task.metric,
        "texts": len(y),
        "flagged": int(flagged.sum()),
        **changes(task, split, before, after),
        "all": _part(task, y, before, after, seed),
        "hard": _part(task, y[hard], before[hard], after[hard], seed),
    }


def changes(task: TaskData, split: str, before: np.ndarray, after: np.ndarray) -> dict[str, int]:
    """Count texts whose answer is another (changed), right at last (fixed) or no more (broken).

    The answer to a multi-label text is its set of labels.
    """
    was, now = (misclassified(values, task.y[split], task.multilabel) for values in (before, after))
    return {
        "changed": int(answers_differ(before, after, task.multilabel).sum()),
        "fixed": int((was & ~now).sum()),
        "broken": int((~was & now).sum()),
    }


def answers_differ(before: np.ndarray, after: np.ndarray, multilabel: bool) -> np.ndarray:
    """Whether two logits (n, K) of a text predict another label, or set of labels; bool (n,)."""
    if multilabel:
        return ((before > 0) != (after > 0)).any(axis=1)
    return predict_codes(before) != predict_codes(after)


def paired_differences(
    task: TaskData, y: np.ndarray, before: np.ndarray, after: Sequence[np.ndarray], seed: int
) -> list[dict[str, float | None]]:
    """The task's metric of each of `after` minus that of `before`, on the same texts.

    Parameters
    ----------
    y : ndarray
        Labels of the texts, as in `task.y`.
    before : ndarray, shape (n, K)
    after : sequence of ndarray, shape (n, K)
    seed : int
        Of the bootstrap; the resamples are the same for all.

    Returns
    -------
    list of dict
        difference, ci_low and ci_high (95 % percentile interval of the paired bootstrap) of each;
        None where there is no text or no score.
    """
    scores = [_score(task, y, values) for values in (before, *after)]
    if None in scores:
        return [{"difference": None, "ci_low": None, "ci_high": None} for _ in after]
    drawn = resampled_scores(task.metric, y, [before, *after], task.classes, seed, RESAMPLES)
    found = []
    for place, reached in enumerate(scores[1:], start=1):
        low, high = percentile_interval(drawn[place] - drawn[0])
        values = {"difference": reached - scores[0], "ci_low": low, "ci_high": high}
        found.append({k: value if math.isfinite(value) else None for k, value in values.items()})
    return found


def by_class(
    task: TaskData, split: str, before: np.ndarray, after: np.ndarray, flagged: np.ndarray
) -> list[dict]:
    """Count by true label.

    Parameters
    ----------
    before, after, flagged
        As in `compare`.

    Returns
    -------
    list of dict
        One per label: label, texts, flagged, fixed, broken, recall_before, recall_after (None
        without texts). A multi-label text counts for each of its labels: fixed are those that are
        found after and were not before, broken those that are found no more.
    """
    true = indicators(task.y[split], task.classes)
    was, now = (
        true & indicators(_answers(values, task), task.classes) for values in (before, after)
    )
    texts = true.sum(axis=0)
    columns = {
        "texts": texts,
        "flagged": (true & flagged[:, None]).sum(axis=0),
        "fixed": (now & ~was).sum(axis=0),
        "broken": (was & ~now).sum(axis=0),
    }
    rows = [
        {"label": label, **{key: int(values[code]) for key, values in columns.items()}}
        for code, label in enumerate(task.labels)
    ]
    for name, found in (("before", was.sum(axis=0)), ("after", now.sum(axis=0))):
        for code, row in enumerate(rows):
            row[f"recall_{name}"] = float(found[code] / texts[code]) if texts[code] else None
    return rows


def _answers(logits: np.ndarray, task: TaskData) -> np.ndarray:
    return logits > 0 if task.multilabel else predict_codes(logits)


def _part(
    task: TaskData, y: np.ndarray, before: np.ndarray, after: np.ndarray, seed: int
) -> dict[str, float | None]:
    found = {"before": _score(task, y, before), "after": _score(task, y, after)}
    for name, values in (("before", before), ("after", after)):
        right = ~misclassified(values, y, task.multilabel)
        found[f"accuracy_{name}"] = float(right.mean()) if len(right) else None
    return found | paired_differences(task, y, before, [after], seed)[0]


def _score(task: TaskData, y: np.ndarray, logits: np.ndarray) -> float | None:
    try:
        return score(task.metric, y, logits, task.classes)
    except ProbelineError:
        # No texts, or the area under the ROC curve of texts of one kind.
        return None
