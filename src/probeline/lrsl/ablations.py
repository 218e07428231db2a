"""What each part of a reranker is worth: embedding tuned or not, hard texts or all, power, k."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from probeline.lrsl.rerank import Form
    from probeline.probe.task import TaskData


@dataclass(frozen=True)
class Similarities:
    """Cosines of texts and labels by one embedding.

    Attributes
    ----------
    embedding : 'tuned' or 'untuned'
    crossfit : bool or None
        Whether its triplets come from cross-fitted logits; None where there are none.
    of : mapping of split to ndarray of float32, shape (n, K)
        Of all texts of 'validation' and 'test', in the order of `task.rows`.
    """

    embedding: str
    crossfit: bool | None
    of: Mapping[str, np.ndarray]


def ablations(
    task: TaskData,
    logits: Mapping[str, np.ndarray],
    similarities: Sequence[Similarities],
    forms: Sequence[Form],
    ks: Sequence[int],
    seed: int,
    measure: str = "variance",
    rule: str | float = "misclassified",
    temperature: float = 1.0,
    top_k: bool = True,
) -> pa.Table:
    """Rerank validation and test under every setting.

    Parameters
    ----------
    logits : mapping of split to ndarray of float32, shape (n, K)
        Of 'validation' and 'test', in the order of `task.rows`.
    forms : sequence of Form
        Their `candidates` are set here.
    ks : sequence of int
    measure, rule, temperature
        Of the hardness; the threshold is that of validation.
    top_k : bool
        Only the top k labels are reranked, else all.

    Returns
    -------
    Table
        A row per setting: embedding, crossfit, rerank ('hard' or 'all'), k, form, power, weight,
        threshold, and for validation and test before, score, flagged, fixed, broken; for test
        difference, ci_low, ci_high (paired 95 % bootstrap against not reranking); `chosen`
        marks the row that validation chooses, doing nothing being among them.
    """
    raise NotImplementedError


def write_ablations(table: pa.Table, path: str | os.PathLike) -> None:
    """Write the table as Parquet, whole or not at all."""
    raise NotImplementedError
