"""The report of one reranking."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from probeline.lrsl.choice import Choice
from probeline.lrsl.curve import decision_curve, hard_of
from probeline.lrsl.decision import Decision
from probeline.lrsl.report import by_class, compare
from probeline.lrsl.stage_data import Similarities
from probeline.probe.task import TaskData

_SPLITS = ("validation", "test")


@dataclass(frozen=True)
class Reranked:
    """Logits of all rows of a dataset before and after.

    Attributes
    ----------
    task : TaskData
    before, after : ndarray of float32, shape (rows, K)
    decision : Decision
    cosines : Similarities
    seed : int
        Of the bootstrap.
    """

    task: TaskData
    before: np.ndarray
    after: np.ndarray
    decision: Decision
    cosines: Similarities
    seed: int

    def of(self, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Before, after, which texts were reranked, and the similarities of these."""
        rows = self.task.rows[split]
        before = self.before[rows]
        flagged = self.decision.selects(before)
        return before, self.after[rows], flagged, self.cosines.of(rows[flagged])


def variant_of(decision: Decision) -> str:
    """The form and its numbers in words, such as 'prob, power 2'."""
    own = decision.reranking
    if decision.idle:
        return "nothing"
    if own.combiner is not None:
        return "mlp"
    if own.form.name == "mix":
        return f"mix, weight {own.form.weight:g}, power {own.form.power:g}"
    return f"{own.form.name}, power {own.form.power:g}"


def report(result: Reranked, choice: Choice, shown: Decision | None = None) -> dict:
    """What reranking changed on validation and test, and everything that was tried.

    Parameters
    ----------
    shown : Decision, optional
        What the curve is of; default the decision. Where nothing was chosen, the best that was
        tried says more.

    Returns
    -------
    dict
        Plain values: metric; decision and its variant; shown: variant, decision, and whether it is
        what was chosen; for each split what `probeline.lrsl.report.compare` gives; by_class; the
        curve, chosen_share and hard_share (of what is shown) of the figure; hard_texts. Texts are
        hard by the threshold of what is shown, though nothing was chosen; tried, a row per trial on
        validation.
    """
    shown = shown or result.decision
    found = {
        "metric": result.task.metric,
        "variant": variant_of(result.decision),
        "decision": _finite(result.decision.plain()),
        "shown": {
            "variant": variant_of(shown),
            "decision": _finite(shown.plain()),
            "chosen": not result.decision.idle,
        },
        "by_class": {},
        "curve": [],
        "chosen_share": {},
        "hard_share": {},
        "hard_texts": {},
        "tried": [_finite(trial.row()) for trial in choice.trials],
    }
    for split in _SPLITS:
        before, after, flagged, _ = result.of(split)
        hard = hard_of(shown, before)
        found[split] = compare(result.task, split, before, after, flagged, result.seed, hard)
        found["by_class"][split] = by_class(result.task, split, before, after, flagged)
        found["chosen_share"][split] = float(flagged.mean())
        found["hard_texts"][split] = int(hard.sum())
        found["hard_share"][split] = float(hard.mean())
        found["curve"] += _curve(result, split, shown, hard)
    return found


def _curve(result: Reranked, split: str, shown: Decision, hard: np.ndarray) -> list[dict]:
    """As far as texts were embedded, all hard ones among them; at its start, of doing nothing."""
    rows = result.task.rows[split]
    if not shown.idle:
        result.cosines.of(rows[hard], "texts embedded for the figure")
    known = result.cosines.known(rows) & (not shown.idle)
    similarity = result.cosines.of(rows[known])
    return decision_curve(result.task, split, result.before[rows], shown, known, similarity)


def _finite(plain: dict) -> dict:
    """Without what JSON cannot hold: an infinite threshold is none."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in plain.items()
    }
