"""Which reranking to use, if any: chosen on validation, doing nothing among the choices.

The highest of many scores on the few texts that are hard is partly luck, and so is a gain over
doing nothing. A change has to earn itself:

1. What does not score above doing nothing, or has a higher log loss over the texts that are hard at
   any threshold, is out. Of random similarities a score alone lets one set in three pass.
2. Of what is left, and doing nothing, those stay whose score is within half a standard error of the
   highest, that of the paired difference between the highest and doing nothing.
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
from probeline.lrsl.trial import Trial, Validation, Way, hard_offset, reranked, trial_of

_LUCK = 0.5


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
        Everything tried, doing nothing first.
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
    """Thresholds for the rule 'validation': so many quantiles, the last of which is everything."""
    shares = np.arange(1, count + 1) / count
    return list(dict.fromkeys(np.quantile(certainty, shares).tolist()))


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
    # Combiners read logits at the scale that the forms read them at.
    ways = [*forms, *(replace(each, temperature=given.temperature) for each in combiners)]
    if fixed:
        ways, thresholds = ways[:1], thresholds[:1]
    none = np.zeros(len(given.y), dtype=bool)
    sets = [is_hard(given.certainty, threshold) for threshold in thresholds]
    counted = np.logical_or.reduce([none, *sets])
    nothing = trial_of(given, None, None, 0.0, given.logits, none, counted)
    found: list[tuple[Trial, Way | None]] = [(nothing, None)]
    for threshold, hard in zip(thresholds, sets, strict=True):
        for way in ways if hard.any() else ():
            logits = reranked(given, way, hard, seed)
            if logits is None:
                continue
            offset = hard_offset(given, logits, hard)
            logits[hard] -= np.float32(offset)
            found.append((trial_of(given, way, threshold, offset, logits, hard, counted), way))
    trial, way = found[-1] if fixed else min(_near(found, nothing), key=_rank)
    reranking = _fitted(given, way, trial, seed)
    return Choice(reranking, trial, nothing.score, [each for each, _ in found])


def _fitted(given: Validation, way: Way | None, trial: Trial, seed: int) -> Reranking:
    common = {"multilabel": given.multilabel, "temperature": given.temperature}
    if way is None:
        return Reranking(Form.nothing(), None, **common)
    if isinstance(way, Form):
        return Reranking(way, trial.threshold, offset=trial.offset, **common)
    hard = is_hard(given.certainty, trial.threshold)
    rows = given.logits[hard], given.similarity[hard], given.y[hard]
    combiner = fit_combiner(*rows, way, seed, given.multilabel)
    return Reranking(Form.nothing(), trial.threshold, combiner, trial.offset, **common)


def _near(found: list[tuple[Trial, Way | None]], nothing: Trial) -> list[tuple[Trial, Way | None]]:
    """Doing nothing and what is better, as far as luck cannot tell them from the highest."""
    # Scores are shares of a count: a hair keeps one from being lost to rounding.
    earned = [
        (trial, way)
        for trial, way in found
        if way is None or (trial.score > nothing.score + 1e-9 and trial.log_loss < nothing.log_loss)
    ]
    top = max((trial for trial, _ in earned), key=lambda trial: trial.score)
    least = top.score - _LUCK * top.error - 1e-9
    return [(trial, way) for trial, way in earned if trial.score >= least]


def _rank(pair: tuple[Trial, Way | None]) -> tuple:
    trial, _ = pair
    return trial.log_loss, trial.changed, trial.power or 0.0, trial.weight or 0.0
