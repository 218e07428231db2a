"""One reranking tried on validation."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from scipy.optimize import minimize

from probeline.lrsl.combiner import COMBINER, CombinerOptions, cross_validated
from probeline.lrsl.hardness import misclassified
from probeline.lrsl.rerank import (
    FORMS,
    Form,
    among_top,
    apply,
    at_own_scale,
    log_odds,
    moved_labels,
)
from probeline.lrsl.temperature import fit_temperature, log_losses
from probeline.probe.metrics import score
from probeline.probe.standard_error import difference_error

NOTHING = "nothing"
THRESHOLD = "threshold"
Way = Form | CombinerOptions
# The log loss of a label that was ruled out, as scikit-learn clips it.
_MOST_LOSS = -np.log(1e-15)
_OFFSETS = 101
# Where no moved label is true, or all are, the lowest log loss is at infinity.
_SHIFTS = (-50.0, 50.0)
_SLOPES = (-5.0, 5.0)


@dataclass(frozen=True)
class Validation:
    """What a choice is made on.

    Attributes
    ----------
    logits, similarity : ndarray of float32, shape (n, K)
        Similarities may be anything in rows that are hard at no threshold.
    y : ndarray, shape (n,) of codes or (n, K) of 0/1
    certainty : ndarray of float64, shape (n,)
    metric : str
    multilabel : bool
    temperature : float
    taken_off : tuple of float, optional
        Of several labels: the thresholds that the logits come without, see `rerank`.
    """

    logits: np.ndarray
    similarity: np.ndarray
    y: np.ndarray
    certainty: np.ndarray
    metric: str
    multilabel: bool = False
    temperature: float = 1.0
    taken_off: tuple[float, ...] | None = None

    @property
    def classes(self) -> int:
        return self.logits.shape[1]

    @property
    def scale(self) -> dict:
        """How forms and combiners read the logits: `temperature` and `taken_off`, by name."""
        return {"temperature": self.temperature, "taken_off": self.taken_off}

    def score(self, logits: np.ndarray) -> float:
        """The metric for logits (n, K) of these rows."""
        return score(self.metric, self.y, logits, self.classes)


@dataclass(frozen=True)
class Trial:
    """One reranking and what validation says of it.

    Attributes
    ----------
    name : str
        A form's, 'mlp', 'nothing', or 'threshold': hard texts get another threshold and nothing
        else.
    power, weight, weight_decay : float or None
        None where the form has no such number.
    candidates : int or None
    threshold : float or None
    offset : float
    hard, fixed, broken, changed : int
        Texts that are reranked; of these, wrong ones made right, right ones made wrong, and all
        whose answer is another.
    score : float
    error : float
        Standard error of the score minus that of doing nothing.
    log_loss : float
        Mean over the texts that are hard at any threshold: the lowest that any scale of the logits
        gives, and of several labels any offset. Smaller logits may have a lower one, and so may
        another threshold, while it shall say what the similarities do.
    gain, gain_error : float
        By how much `log_loss` is lower than that of doing nothing, both at their best scale (and
        offset), and the standard error of this mean of paired differences.
    """

    name: str
    power: float | None
    weight: float | None
    weight_decay: float | None
    candidates: int | None
    threshold: float | None
    offset: float
    hard: int
    fixed: int
    broken: int
    changed: int
    score: float
    error: float
    log_loss: float
    gain: float
    gain_error: float

    def row(self) -> dict:
        return asdict(self)


def reranked(given: Validation, way: Way, hard: np.ndarray, seed: int) -> np.ndarray | None:
    """Logits of all rows before any offset, those of a combiner out of fold; None where it has too
    few rows."""
    similarity = given.similarity[hard]
    if isinstance(way, Form):
        return apply(given.logits, hard, similarity, way, given.multilabel, **given.scale)
    wrong = misclassified(given.logits, given.y, given.multilabel)[hard]
    scores = cross_validated(
        given.logits[hard],
        similarity,
        given.y[hard],
        way,
        seed,
        wrong,
        multilabel=given.multilabel,
    )
    if scores is None:
        return None
    own = given.logits[hard]
    mask = among_top(own, way.candidates) if given.multilabel else None
    result = given.logits.astype(np.float32)
    result[hard] = at_own_scale(own, scores, mask, **given.scale)
    return result


def moved_by(given: Validation, way: Way, hard: np.ndarray) -> np.ndarray:
    """Which labels of which rows `way` gives another score; bool (n, K)."""
    result = np.zeros(given.logits.shape, dtype=bool)
    own = given.logits[hard]
    if isinstance(way, Form):
        result[hard] = moved_labels(own, given.similarity[hard], way)
    else:
        result[hard] = among_top(own, way.candidates)
    return result


def hard_offset(given: Validation, logits: np.ndarray, moved: np.ndarray) -> float:
    """How far the thresholds of several labels move with what was reranked.

    Logits are lower than before, while all others keep their own threshold, taken off them. The
    best validation score wins; of equally good neighbours the middle one.

    Parameters
    ----------
    logits : ndarray, shape (n, K)
        Reranked.
    moved : ndarray of bool, shape (n, K), or (n,) for whole rows
        See `moved_by`.

    Returns
    -------
    float
        0 for a single-label task.
    """
    if not given.multilabel or not moved.any():
        return 0.0
    # A metric that ranks says nothing of a threshold.
    metric = "micro-f1" if given.metric == "roc-auc" else given.metric
    predicted = logits.astype(np.float64)
    reranked = predicted[moved]
    tried = _between(np.unique(reranked))
    scores = np.empty(len(tried))
    for place, at in enumerate(tried):
        predicted[moved] = reranked - at
        scores[place] = score(metric, given.y, predicted, given.classes)
    first = last = int(scores.argmax())
    while last + 1 < len(scores) and scores[last + 1] == scores[first]:
        last += 1
    return float(tried[(first + last) // 2])


def _between(values: np.ndarray) -> np.ndarray:
    """Numbers below, between and at the top of sorted values, evenly spread over their ranks.

    Only ranks decide where: two scores that order the labels alike part them alike, and neither
    wins by a finer grid.
    """
    places = np.unique(np.linspace(0, len(values) - 1, _OFFSETS).astype(np.int64))[:-1]
    middles = (values[places] + values[places + 1]) / 2
    return np.concatenate([values[:1] - 1, middles, values[-1:]])


def trial_of(
    given: Validation,
    way: Way | None,
    threshold: float | None,
    offset: float,
    logits: np.ndarray,
    hard: np.ndarray,
    counted: np.ndarray,
    moved: np.ndarray,
) -> Trial:
    """Say of reranked logits (n, K) what validation says, the log loss over the rows `counted`.

    `moved`, bool (n, K), are the labels that the offset was taken off.
    """
    before = misclassified(given.logits, given.y, given.multilabel)
    after = misclassified(logits, given.y, given.multilabel)
    if given.multilabel:
        changed = ((logits > 0) != (given.logits > 0)).any(axis=1)
    else:
        changed = logits.argmax(axis=1) != given.logits.argmax(axis=1)
    losses = _losses(given, logits, counted, moved)
    gains = _losses(given, given.logits, counted, moved) - losses
    name = _name(way)
    form = way if name in FORMS else None
    return Trial(
        name=name,
        power=form.power if form else None,
        weight=form.weight if form and form.name == "mix" else None,
        weight_decay=way.weight_decay if name == COMBINER else None,
        candidates=way.candidates if way else None,
        threshold=threshold,
        offset=offset,
        hard=int(hard.sum()),
        fixed=int((before & ~after).sum()),
        broken=int((~before & after).sum()),
        changed=int(changed.sum()),
        score=given.score(logits),
        error=difference_error(given.metric, given.y, logits, given.logits, given.classes),
        log_loss=float(losses.mean()) if len(losses) else 0.0,
        gain=float(gains.mean()) if len(gains) else 0.0,
        gain_error=float(gains.std(ddof=1) / np.sqrt(len(gains))) if len(gains) > 1 else 0.0,
    )


def _losses(
    given: Validation, logits: np.ndarray, counted: np.ndarray, moved: np.ndarray
) -> np.ndarray:
    """Log losses (m,) of the rows `counted` at the scale that is best for them."""
    y = given.y[counted]
    values = log_odds(logits[counted].astype(np.float64), given.taken_off) / given.temperature
    if len(values) == 0:
        return np.zeros(0)
    if given.multilabel:
        values = _likeliest(values, y, moved[counted])
    else:
        # Else the one text whose label was ruled out would decide the scale of all.
        values = np.maximum(values, values.max(axis=1, keepdims=True) - _MOST_LOSS)
        values /= fit_temperature(values, y, False)
    return np.minimum(log_losses(values, y, given.multilabel), _MOST_LOSS)


def _likeliest(logits: np.ndarray, y: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """With the moved labels times and plus what has the lowest log loss (Platt 1999)."""
    if not moved.any():
        return logits
    own, sign = logits[moved].clip(-_MOST_LOSS, _MOST_LOSS), np.where(y[moved], -1, 1)

    def loss(line: np.ndarray) -> float:
        return float(np.logaddexp(0, sign * (np.exp(line[0]) * own + line[1])).mean())

    found = minimize(loss, [0.0, 0.0], method="L-BFGS-B", bounds=[_SLOPES, _SHIFTS])
    result = logits.copy()
    result[moved] = np.exp(found.x[0]) * own + found.x[1]
    return result


def _name(way: Way | None) -> str:
    if way is None:
        return NOTHING
    if isinstance(way, CombinerOptions):
        return COMBINER
    return THRESHOLD if way.is_nothing else way.name
