"""The score if only the least certain share of the texts were reranked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from probeline.lrsl.decision import Decision
from probeline.lrsl.hardness import is_hard
from probeline.probe.metrics import score

if TYPE_CHECKING:
    from probeline.probe.task import TaskData


def share_curve(
    task: TaskData,
    split: str,
    before: np.ndarray,
    everything: np.ndarray,
    certainty: np.ndarray,
    known: np.ndarray | None = None,
    chosen: int = 0,
    points: int = 51,
) -> list[dict]:
    """Score a split by the share of its texts that are reranked, the least certain ones first.

    For showing: a threshold is chosen on validation.

    Parameters
    ----------
    before : ndarray, shape (n, K)
        Of `task.rows[split]`.
    everything : ndarray, shape (n, K)
        Every text reranked.
    certainty : ndarray of float64, shape (n,)
        High is easy; see `probeline.lrsl.hardness.certainty`.
    known : ndarray of bool, shape (n,), optional
        The texts that `everything` holds reranked, where only hard ones were embedded. Default:
        all. The curve ends before the first text that is not known.
    chosen : int
        How many texts the chosen threshold reranks: that share is one of the curve's.
    points : int
        Shares, evenly spaced from 0 to 1.

    Returns
    -------
    list of dict
        split, share, texts, score; the first one, of share 0, is the score before. Texts of the
        same certainty come in the order of their rows.
    """
    order = np.argsort(certainty, kind="stable")
    reach = len(order)
    if known is not None and not known.all():
        reach = int(known[order].argmin())
    counts = np.unique(np.round(np.linspace(0, len(order), points)).astype(np.int64))
    counts = np.unique([*counts[counts <= reach], min(chosen, reach), reach])
    values, done, rows = before.copy(), 0, []
    for count in counts.tolist():
        values[order[done:count]] = everything[order[done:count]]
        done = count
        rows.append(
            {
                "split": split,
                "share": count / len(order),
                "texts": count,
                "score": score(task.metric, task.y[split], values, task.classes),
            }
        )
    return rows


def hard_of(decision: Decision, logits: np.ndarray) -> np.ndarray:
    """Which rows of logits (n, K) its threshold calls hard; bool (n,)."""
    return is_hard(decision.certainty(logits), decision.reranking.threshold)


def decision_curve(
    task: TaskData,
    split: str,
    before: np.ndarray,
    decision: Decision,
    known: np.ndarray,
    similarity: np.ndarray,
) -> list[dict]:
    """The curve of one decision, the share that its threshold calls hard among the shares.

    Parameters
    ----------
    before : ndarray of float32, shape (n, K)
        Of `task.rows[split]`.
    known : ndarray of bool, shape (n,)
        Texts whose similarities there are.
    similarity : ndarray of float32, shape (known texts, K)

    Returns
    -------
    list of dict
        See `share_curve`.
    """
    everything = decision.apply(before, known, similarity)
    hard = int(hard_of(decision, before).sum())
    return share_curve(task, split, before, everything, decision.certainty(before), known, hard)
