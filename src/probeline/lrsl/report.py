"""What reranking changed: scores before and after, texts that were fixed and broken."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from probeline.probe.task import TaskData


def compare(
    task: TaskData,
    split: str,
    before: np.ndarray,
    after: np.ndarray,
    flagged: np.ndarray,
    seed: int,
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

    Returns
    -------
    dict
        metric; texts, flagged, changed, fixed, broken (numbers of texts); `all` and `flagged_texts`
        with before, after (the metric), accuracy_before, accuracy_after, and for `all` difference,
        ci_low, ci_high (paired 95 % bootstrap). A part without texts, or that the metric cannot
        score, has None. Plain values, fit for JSON.
    """
    raise NotImplementedError


def by_class(
    task: TaskData, split: str, before: np.ndarray, after: np.ndarray, flagged: np.ndarray
) -> list[dict]:
    """The same by true label, one row per label: label, texts, flagged, fixed, broken, and recall
    before and after (None without texts).

    For a multi-label task a text counts once for each of its labels: `fixed` are labels that are
    found after and were not before, `broken` those that are lost.
    """
    raise NotImplementedError


def examples(
    task: TaskData,
    split: str,
    texts: Sequence[str] | None,
    before: np.ndarray,
    after: np.ndarray,
    flagged: np.ndarray,
    similarity: np.ndarray,
    limit: int | None = None,
) -> pd.DataFrame:
    """Texts whose answer changed, those that were fixed or broken first.

    Parameters
    ----------
    texts : sequence of str or None
        Of the whole dataset, by row number; None leaves the column out.
    similarity : ndarray, shape (flagged texts, K)
    limit : int, optional

    Returns
    -------
    DataFrame
        row, split, text, true, old, new, outcome ('fixed', 'broken', 'changed'), old_similarity,
        new_similarity, true_similarity, old_probability, new_probability (before), and both after.
        Labels of a multi-label task are joined by ' | ', similarities are of the labels added
        and removed.
    """
    raise NotImplementedError


def write_examples(frame: pd.DataFrame, path: str | os.PathLike) -> None:
    """Write examples as CSV, whole or not at all."""
    raise NotImplementedError


def share_curve(
    task: TaskData,
    split: str,
    before: np.ndarray,
    everything: np.ndarray,
    certainty: np.ndarray,
    known: np.ndarray | None = None,
    points: int = 51,
) -> list[dict]:
    """The score if the least certain share of the texts were reranked, by share.

    Parameters
    ----------
    before : ndarray, shape (n, K)
    everything : ndarray, shape (n, K)
        Every text reranked.
    certainty : ndarray of float64, shape (n,)
    known : ndarray of bool, shape (n,), optional
        Texts that `everything` holds reranked, where only the hard ones were embedded: the least
        certain ones. Default: all. The curve ends with them.
    points : int

    Returns
    -------
    list of dict
        split, share, texts, score; the first of share 0 is the score before.
    """
    raise NotImplementedError
