"""Which reranking to use, if any: chosen on validation, doing nothing among the choices.

The highest of many scores on the few texts that are hard is mostly luck: a score moves by whole
texts, and a gain of a few of them is what other similarities would give too. The log loss of the
true labels moves with every text. So a change has to earn itself by that:

1. Its log loss over the texts that are hard at any threshold is lower than that of doing nothing,
   by twice the standard error of the paired difference. All are compared at the scale of the logits
   that is best for each: to be less sure, or surer, is no merit of the similarities.
2. Its score is not below that of doing nothing by more than a standard error of that difference.
   Where there are several labels, hard texts that are reranked get a threshold of their own, which
   is a gain without any similarity: there the score must be above that of doing nothing and that of
   such a threshold alone, and the log loss below.
3. Of these the lowest log loss wins; of equal ones the one that changes fewest answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from probeline.lrsl.combiner import COMBINER, CombinerOptions, fit_combiner
from probeline.lrsl.hardness import is_hard
from probeline.lrsl.rerank import Form
from probeline.lrsl.reranking import Reranking
from probeline.lrsl.trial import (
    THRESHOLD,
    Trial,
    Validation,
    Way,
    hard_offset,
    moved_by,
    reranked,
    trial_of,
)

Tried = tuple[Trial, Way | None]
# Standard errors: of what a log loss has to gain, and of what a score may lose.
_GAIN, _LOSS = 2.0, 1.0


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes
    ----------
    reranking : Reranking
    trial : Trial
        Its own row of `trials`; a combiner's score is that of texts it was not fitted on.
    before : float
        The score of doing nothing.
    trials : list of Trial
        Everything tried, doing nothing first. Those named 'threshold' are there to be beaten and
        never chosen.
    """

    reranking: Reranking
    trial: Trial
    before: float
    trials: list[Trial]


def forms_of(
    names: Sequence[str],
    powers: Sequence[float],
    weights: Sequence[float],
    candidates: int | None,
) -> list[Form]:
    """Every distinct form of the grid; 'mlp' among the names is no form, and left out."""
    found = []
    for name in names:
        if name == COMBINER:
            continue
        for power in powers:
            for weight in weights if name == "mix" else (0.5,):
                found.append(Form(name, float(power), float(weight), candidates))
    return list(dict.fromkeys(found))


def thresholds_tried(certainty: np.ndarray, count: int = 10) -> list[float]:
    """Thresholds for the rule 'validation': so many quantiles, the last of which is everything.

    That one is infinity, since a new text may be more certain than all of validation.
    """
    quantiles = np.quantile(certainty, np.arange(1, count) / count)
    below = quantiles[quantiles < certainty.max()]
    return [*dict.fromkeys(below.tolist()), float("inf")]


def choose(
    given: Validation,
    forms: Sequence[Form],
    thresholds: Sequence[float | None],
    combiners: Sequence[CombinerOptions] = (),
    seed: int = 0,
    fixed: bool = False,
) -> Choice:
    """Choose a reranking on validation; the rule is this module's.

    Parameters
    ----------
    given : Validation
    forms : sequence of Form
        Those that do nothing are left out.
    thresholds : sequence of float or None
        Certainties up to which texts are hard; several for the rule 'validation', infinity where
        everything is reranked.
    combiners : sequence of CombinerOptions
        Each is scored out of fold, and fitted on all hard texts once it is chosen.
    seed : int
    fixed : bool
        Take the first form, or combiner, at the first threshold, whatever validation says.

    Returns
    -------
    Choice
    """
    # Combiners read logits as the forms read them.
    ways = [*forms, *(replace(each, **given.scale) for each in combiners)]
    if fixed:
        ways, thresholds = ways[:1], thresholds[:1]
    ways = [*_alone(given, ways), *(way for way in ways if not _does_nothing(way))]
    none = np.zeros(len(given.y), dtype=bool)
    sets = [is_hard(given.certainty, threshold) for threshold in thresholds]
    counted = np.logical_or.reduce([none, *sets])
    unmoved = np.zeros(given.logits.shape, dtype=bool)
    nothing = trial_of(given, None, None, 0.0, given.logits, none, counted, unmoved)
    found: list[Tried] = [(nothing, None)]
    for threshold, hard in zip(thresholds, sets, strict=True):
        for way in ways if hard.any() else ():
            trial = _tried(given, way, threshold, hard, counted, seed)
            if trial is not None:
                found.append((trial, way))
    allowed = [pair for pair in found if pair[0].name != THRESHOLD]
    bars = [nothing, *(trial for trial, _ in found if trial.name == THRESHOLD)]
    trial, way = allowed[-1] if fixed else min(_earned(given, allowed, bars), key=_rank)
    reranking = _fitted(given, way, trial, seed)
    return Choice(reranking, trial, nothing.score, [each for each, _ in found])


def _tried(
    given: Validation,
    way: Way,
    threshold: float | None,
    hard: np.ndarray,
    counted: np.ndarray,
    seed: int,
) -> Trial | None:
    logits = reranked(given, way, hard, seed)
    if logits is None:
        return None
    moved = moved_by(given, way, hard)
    offset = hard_offset(given, logits, moved)
    logits[moved] -= np.float32(offset)
    return trial_of(given, way, threshold, offset, logits, hard, counted, moved)


def _alone(given: Validation, ways: Sequence[Way]) -> list[Form]:
    """Another threshold for the candidates of hard texts, and nothing else."""
    if not given.multilabel:
        return []
    return [Form.nothing(each) for each in dict.fromkeys(way.candidates for way in ways)]


def _does_nothing(way: Way) -> bool:
    return isinstance(way, Form) and way.is_nothing


def _fitted(given: Validation, way: Way | None, trial: Trial, seed: int) -> Reranking:
    common = {"multilabel": given.multilabel, **given.scale}
    if way is None:
        return Reranking(Form.nothing(), None, **common)
    if isinstance(way, Form):
        return Reranking(way, trial.threshold, offset=trial.offset, **common)
    hard = is_hard(given.certainty, trial.threshold)
    rows = given.logits[hard], given.similarity[hard], given.y[hard]
    combiner = fit_combiner(*rows, way, seed, given.multilabel)
    return Reranking(Form.nothing(), trial.threshold, combiner, trial.offset, **common)


def _earned(given: Validation, allowed: list[Tried], bars: Sequence[Trial]) -> list[Tried]:
    """Doing nothing, and what is better than it and the other bars."""
    score, log_loss = max(bar.score for bar in bars), min(bar.log_loss for bar in bars)

    def earns(trial: Trial) -> bool:
        # Scores are shares of a count: a hair keeps one from being lost to rounding.
        above = score + 1e-9 if given.multilabel else score - _LOSS * trial.error - 1e-9
        sure = trial.gain > _GAIN * trial.gain_error
        return sure and trial.score >= above and trial.log_loss < log_loss

    return [(trial, way) for trial, way in allowed if way is None or earns(trial)]


def _rank(pair: Tried) -> tuple:
    trial, _ = pair
    return trial.log_loss, trial.changed, trial.power or 0.0, trial.weight or 0.0
