"""One reranking tried on validation."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from probeline.lrsl.combiner import COMBINER, CombinerOptions, cross_validated
from probeline.lrsl.hardness import misclassified
from probeline.lrsl.rerank import Form, apply
from probeline.lrsl.temperature import log_losses
from probeline.probe.metrics import score
from probeline.probe.standard_error import difference_error

NOTHING = "nothing"
Way = Form | CombinerOptions
# The log loss of a label that was ruled out, as scikit-learn clips it.
_MOST_LOSS = -np.log(1e-15)
_OFFSETS = 101


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
    """

    logits: np.ndarray
    similarity: np.ndarray
    y: np.ndarray
    certainty: np.ndarray
    metric: str
    multilabel: bool = False
    temperature: float = 1.0

    @property
    def classes(self) -> int:
        return self.logits.shape[1]

    def score(self, logits: np.ndarray) -> float:
        """The metric for logits (n, K) of these rows."""
        return score(self.metric, self.y, logits, self.classes)


@dataclass(frozen=True)
class Trial:
    """One reranking and what validation says of it.

    Attributes
    ----------
    name : str
        A form's, 'mlp' or 'nothing'.
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
        Mean over the texts that are hard at any threshold.
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

    def row(self) -> dict:
        return asdict(self)


def reranked(given: Validation, way: Way, hard: np.ndarray, seed: int) -> np.ndarray | None:
    """Logits of all rows, those of a combiner out of fold; None where it has too few rows."""
    similarity = given.similarity[hard]
    if isinstance(way, Form):
        return apply(given.logits, hard, similarity, way, given.multilabel, given.temperature)
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
    result = given.logits.astype(np.float32)
    result[hard] = scores * np.float32(given.temperature)
    return result


def hard_offset(given: Validation, logits: np.ndarray, hard: np.ndarray) -> float:
    """Where the reranked logits of several labels begin to count as predicted.

    They are lower than before, while rows that are not hard keep their own threshold of 0. The best
    validation score wins; of equally good neighbours the middle one.

    Parameters
    ----------
    logits : ndarray, shape (n, K)
        Reranked.

    Returns
    -------
    float
        0 for a single-label task.
    """
    if not given.multilabel or not hard.any():
        return 0.0
    # A metric that ranks says nothing of a threshold.
    metric = "micro-f1" if given.metric == "roc-auc" else given.metric
    shares = np.linspace(0, 1, _OFFSETS)
    values = np.unique(np.quantile(logits[hard], shares, method="nearest").astype(np.float64))
    tried = np.concatenate([[values[0] - 1], (values[:-1] + values[1:]) / 2, [values[-1]]])
    predicted = logits.astype(np.float64)
    scores = np.empty(len(tried))
    for place, at in enumerate(tried):
        predicted[hard] = logits[hard] - at
        scores[place] = score(metric, given.y, predicted, given.classes)
    first = last = int(scores.argmax())
    while last + 1 < len(scores) and scores[last + 1] == scores[first]:
        last += 1
    return float(tried[(first + last) // 2])


def trial_of(
    given: Validation,
    way: Way | None,
    threshold: float | None,
    offset: float,
    logits: np.ndarray,
    hard: np.ndarray,
    counted: np.ndarray,
) -> Trial:
    """Say of reranked logits (n, K) what validation says, the log loss over the rows `counted`."""
    before = misclassified(given.logits, given.y, given.multilabel)
    after = misclassified(logits, given.y, given.multilabel)
    if given.multilabel:
        changed = ((logits > 0) != (given.logits > 0)).any(axis=1)
    else:
        changed = logits.argmax(axis=1) != given.logits.argmax(axis=1)
    losses = log_losses(logits[counted] / given.temperature, given.y[counted], given.multilabel)
    form = way if isinstance(way, Form) else None
    name = form.name if form else NOTHING if way is None else COMBINER
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
        log_loss=float(np.minimum(losses, _MOST_LOSS).mean()) if len(losses) else 0.0,
    )
