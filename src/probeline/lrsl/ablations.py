"""What each part of a reranker is worth: embedding tuned or not, hard texts or all, power, k."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from probeline.files import replacing
from probeline.lrsl.decision import Decision
from probeline.lrsl.hardness import misclassified, threshold_of
from probeline.lrsl.report import changes, paired_differences
from probeline.lrsl.rerank import Form
from probeline.lrsl.reranking import Reranking
from probeline.lrsl.trial import Validation, hard_offset

if TYPE_CHECKING:
    from probeline.probe.task import TaskData

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
        ("chosen", pa.bool_()),
    ]
)
# Logits of the test split kept for the bootstrap at a time.
_AT_ONCE = 32


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


@dataclass(frozen=True)
class Hardness:
    """How hard texts are found, but for k.

    Attributes
    ----------
    measure : one of `probeline.lrsl.hardness.MEASURES`
    rule : 'misclassified' or float
        As in `probeline.lrsl.hardness.threshold_of`.
    temperature : float
    """

    measure: str = "variance"
    rule: str | float = "misclassified"
    temperature: float = 1.0


def ablations(
    task: TaskData,
    logits: Mapping[str, np.ndarray],
    similarities: Sequence[Similarities],
    forms: Sequence[Form],
    ks: Sequence[int],
    hardness: Hardness,
    seed: int,
    top_k: bool = True,
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
        Of the bootstrap.

    Returns
    -------
    Table
        The first row does nothing; then a row per setting: embedding, crossfit, rerank ('hard' or
        'all'), k, form, power, weight (of `mix` alone), threshold. Of validation and test the
        task's score and how many texts were flagged, changed, fixed and broken; of test the
        difference of the score to doing nothing with its paired 95 % bootstrap interval. `chosen`
        marks the row with the best validation score, of equal ones that which changes fewest.
    """
    rows, kept = [], []
    for plain, decision, cosines in _settings(
        task, logits, similarities, forms, ks, hardness, top_k
    ):
        found, after = _reranked(task, logits, decision, cosines)
        rows.append(plain | found)
        kept.append(after)
        if len(kept) == _AT_ONCE:
            _add_intervals(task, logits["test"], rows, kept, seed)
            kept.clear()
    _add_intervals(task, logits["test"], rows, kept, seed)
    best = max(rows, key=lambda row: (row["validation_score"], -row["validation_changed"]))
    return pa.Table.from_pylist([row | {"chosen": row is best} for row in rows], schema=_SCHEMA)


def write_ablations(table: pa.Table, path: str | os.PathLike) -> None:
    """Write the table as Parquet, whole or not at all."""
    with replacing(path) as temporary:
        pq.write_table(table, temporary)


def _settings(
    task: TaskData,
    logits: Mapping[str, np.ndarray],
    similarities: Sequence[Similarities],
    forms: Sequence[Form],
    ks: Sequence[int],
    hardness: Hardness,
    top_k: bool,
) -> Iterator[tuple[dict, Decision, Mapping | None]]:
    """A row's columns, its decision, and the similarities it reads."""
    common = {"multilabel": task.multilabel, "temperature": hardness.temperature}
    nothing = Decision(Reranking(Form.nothing(), None, **common), hardness.measure, ks[0])
    yield {"form": "nothing"}, nothing, None
    wrong = misclassified(logits["validation"], task.y["validation"], task.multilabel)
    for k in ks:
        base = replace(nothing, k=k)
        at = threshold_of(base.certainty(logits["validation"]), wrong, hardness.rule)
        for cosines, form, rerank in product(similarities, forms, ("hard", "all")):
            if form.is_nothing:
                continue
            form = replace(form, candidates=k if top_k else None)
            plain = {
                "embedding": cosines.embedding,
                "crossfit": cosines.crossfit,
                "rerank": rerank,
                "k": k,
                "form": form.name,
                "power": form.power,
                "weight": form.weight if form.name == "mix" else None,
                "threshold": at if rerank == "hard" else None,
            }
            threshold = at if rerank == "hard" else np.inf
            yield plain, replace(base, reranking=Reranking(form, threshold, **common)), cosines.of


def _reranked(
    task: TaskData,
    logits: Mapping[str, np.ndarray],
    decision: Decision,
    similarity: Mapping[str, np.ndarray] | None,
) -> tuple[dict, np.ndarray]:
    """A row's results, and the reranked logits of test."""
    found = {}
    if task.multilabel and not decision.idle:
        decision = _with_offset(task, decision, logits["validation"], similarity["validation"])
    for split in _SPLITS:
        before = after = logits[split]
        flagged = decision.selects(before)
        if flagged.any():
            after = decision.apply(before, flagged, similarity[split][flagged])
        found[f"{split}_score"] = task.score(split, after)
        found[f"{split}_flagged"] = int(flagged.sum())
        for name, count in changes(task, split, before, after).items():
            found[f"{split}_{name}"] = count
    return found, after


def _with_offset(
    task: TaskData, decision: Decision, logits: np.ndarray, similarity: np.ndarray
) -> Decision:
    """With the threshold of the reranked labels that scores best on validation."""
    own, hard = decision.reranking, decision.selects(logits)
    given = Validation(
        logits,
        similarity,
        task.y["validation"],
        decision.certainty(logits),
        task.metric,
        task.multilabel,
        own.temperature,
    )
    offset = hard_offset(given, decision.apply(logits, hard, similarity[hard]), hard)
    return replace(decision, reranking=replace(own, offset=offset))


def _add_intervals(
    task: TaskData, before: np.ndarray, rows: list[dict], after: Sequence[np.ndarray], seed: int
) -> None:
    """Complete the last rows, whose reranked logits of test are `after`."""
    if after:
        found = paired_differences(task, task.y["test"], before, after, seed)
        for row, more in zip(rows[-len(after) :], found, strict=True):
            row |= more
