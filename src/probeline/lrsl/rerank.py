"""Forms of reranking: a label's probability p and the similarity s of the text to its meaning.

`prob`             p * s^power, the paper's form for language models with the power free
`paper-logits`     z * s^power on raw logits, the paper's form for encoders; a similarity above 0
                   pulls a negative logit up, which the other forms do not have
`paper-banking77`  p * s^3 with the row's largest similarity set to 1
`mix`              (1 - weight) * log p + weight * power * log s

Similarities below 0 count as 0, so that an even power gives no bonus. What is computed is in log
space. Only the candidates are reranked, and share the probability they had together: the winner
comes from them, since their mean is no lower than any other label's probability.

Of several labels, logits come with the threshold of each label taken off, and are given back so:
it is added before anything is computed, as z is the log odds of p.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from probeline.errors import ProbelineError, one_of

FORMS = ("prob", "paper-logits", "paper-banking77", "mix")
# exp of it is 0, yet it is finite and keeps the order of labels that have it.
_LOG_ZERO = -1e4
_TINY = 1e-300
# Of each label what was taken off its logits; None: nothing, as of a single label.
TakenOff = Sequence[float] | None
# The largest log-probability whose complement is not 0.
_LOG_ONE = -1e-300
# Rows at a time, so that what is computed stays in the cache.
_ROWS = 1024
_CUBE = 3.0


@dataclass(frozen=True)
class Form:
    """How a row is reranked.

    Attributes
    ----------
    name : one of `FORMS`
    power : float
        Of the similarity, 0 or more; 3 in `paper-banking77`, whatever is given.
    weight : float
        Of the similarity in `mix`, from 0 to 1; the others do not read it.
    candidates : int, optional
        How many labels with the largest logits are reranked, ties with the last of them included;
        default all.
    """

    name: str
    power: float = 1.0
    weight: float = 0.5
    candidates: int | None = None

    def __post_init__(self):
        if self.name not in FORMS:
            raise ProbelineError(f"lrsl.forms: {one_of(self.name, FORMS)}")
        if self.power < 0:
            raise ProbelineError(f"lrsl.powers: {self.power} is below 0; give 0 or more")
        if not 0 <= self.weight <= 1:
            raise ProbelineError(f"lrsl.weights: {self.weight} is not from 0 to 1")
        if self.candidates is not None and self.candidates < 1:
            raise ProbelineError(f"lrsl.candidates: {self.candidates} labels; give 1 or more")
        if self.name == "paper-banking77":
            object.__setattr__(self, "power", _CUBE)

    @classmethod
    def nothing(cls, candidates: int | None = None) -> Form:
        """The form that changes nothing."""
        return cls("prob", power=0.0, candidates=candidates)

    @property
    def is_nothing(self) -> bool:
        """Whether it leaves every probability as it is."""
        return self.weight == 0 if self.name == "mix" else self.power == 0


def rerank(
    logits: np.ndarray,
    similarity: np.ndarray,
    form: Form,
    multilabel: bool = False,
    temperature: float = 1.0,
    taken_off: TakenOff = None,
) -> np.ndarray:
    """Rerank every row.

    A row whose candidates all have a similarity of 0 or less keeps its probabilities.

    Parameters
    ----------
    logits : ndarray, shape (n, K)
        The candidates are the highest of these: of several labels, those nearest to being predicted
        where they are not.
    similarity : ndarray, shape (n, K)
        Cosines.
    form : Form
    multilabel : bool
    temperature : float
        Divides the logits.
    taken_off : sequence of float, K of them, optional
        Of several labels: the thresholds that were taken off the logits.

    Returns
    -------
    ndarray of float32, shape (n, K)
        Finite log-probabilities that sum to one; of several labels the log odds of each, with no
        threshold taken off.

    Raises
    ------
    ProbelineError
        If the shapes differ, or there are fewer labels than candidates.
    """
    if logits.shape != similarity.shape:
        raise ProbelineError(
            f"lrsl: logits of shape {logits.shape} and similarities of shape {similarity.shape}; "
            "both need one row per text and one column per label"
        )
    if form.candidates is not None and form.candidates > logits.shape[1]:
        raise ProbelineError(
            f"lrsl.k: {form.candidates} candidates of a task with {logits.shape[1]} classes; "
            f"give at most {logits.shape[1]}"
        )
    result = np.empty(logits.shape, dtype=np.float32)
    for start in range(0, len(logits), _ROWS):
        rows = slice(start, start + _ROWS)
        values = log_odds(logits[rows], taken_off) / np.float64(temperature)
        result[rows] = _block(values, logits[rows], similarity[rows], form, multilabel)
    return result


def log_odds(logits: np.ndarray, taken_off: TakenOff) -> np.ndarray:
    """Logits (n, K) with the thresholds that were taken off them; in float64, where there are any.

    Their sigmoid is the probability. That of the logits as they come says how far a label is from
    being predicted.
    """
    return logits if taken_off is None else logits + np.asarray(taken_off, dtype=np.float64)


def apply(
    logits: np.ndarray,
    hard: np.ndarray,
    similarity_of_hard: np.ndarray,
    form: Form,
    multilabel: bool = False,
    temperature: float = 1.0,
    offset: float = 0.0,
    taken_off: TakenOff = None,
) -> np.ndarray:
    """Rerank the hard rows.

    The results stay logits at the classifier's own scale: softmax of them (or the sigmoid, with the
    thresholds added) divided by the temperature are probabilities of hard and easy rows alike.

    Parameters
    ----------
    logits : ndarray, shape (n, K)
    hard : ndarray of bool, shape (n,)
    similarity_of_hard : ndarray, shape (h, K)
        Of the hard rows alone.
    offset : float
        Of several labels: how far the thresholds of those in `moved_labels` move. It is taken off
        them, so that all are predicted above 0.
    taken_off : sequence of float, optional
        As in `rerank`.

    Returns
    -------
    ndarray of float32, shape (n, K)
        Rows that are not hard are the input's bit for bit, as all are if the form does nothing and
        there is no offset. Of several labels so is whatever is not in `moved_labels`.
    """
    result = logits.astype(np.float32)
    if (form.is_nothing and not offset) or not hard.any():
        return result
    rows = np.flatnonzero(hard)
    for start in range(0, len(rows), _ROWS):
        some = rows[start : start + _ROWS]
        own, similarity = logits[some], similarity_of_hard[start : start + _ROWS]
        scores = rerank(own, similarity, form, multilabel, temperature, taken_off)
        moved = moved_labels(own, similarity, form) if multilabel else None
        result[some] = at_own_scale(own, scores, moved, temperature, offset, taken_off)
    return result


def moved_labels(logits: np.ndarray, similarity: np.ndarray, form: Form) -> np.ndarray:
    """Which labels get another score, and so another threshold where there are several.

    The candidates, of a row with a similarity above 0 among them; those of every row, where the
    form does nothing and only the threshold may change.

    Parameters
    ----------
    logits, similarity : ndarray, shape (n, K)

    Returns
    -------
    ndarray of bool, shape (n, K)
    """
    mask = among_top(logits, form.candidates)
    if form.is_nothing:
        return mask
    return mask & ((similarity > 0) & mask).any(axis=1, keepdims=True)


def at_own_scale(
    logits: np.ndarray,
    scores: np.ndarray,
    moved: np.ndarray | None,
    temperature: float,
    offset: float = 0.0,
    taken_off: TakenOff = None,
) -> np.ndarray:
    """Scores of logits divided by a temperature, at the scale of the logits; float32 (n, K).

    Parameters
    ----------
    logits, scores : ndarray, shape (n, K)
    moved : ndarray of bool, shape (n, K), or None
        The thresholds and the offset are taken off these labels, and all others keep their logit;
        None: every label gets its score.
    """
    new = scores * np.float32(temperature)
    if moved is None:
        return new
    if taken_off is not None:
        new -= np.asarray(taken_off, dtype=np.float32)
    return np.where(moved, new - np.float32(offset), logits)


def _block(
    z: np.ndarray, logits: np.ndarray, similarity: np.ndarray, form: Form, multilabel: bool
) -> np.ndarray:
    """Rows that fit into the cache: z of logits. Constants of a row are no matter to scores of a
    single label, so that logits stand for log-probabilities until the end."""
    if form.is_nothing:
        return z if multilabel else z - log_sum(z)
    columns, valid = top(logits, form.candidates)
    mine, s = taken(z, columns), taken(similarity, columns).clip(0, 1).astype(np.float64)
    if valid is not None:
        s *= valid
    scores = _logits_of_each(mine, s, form) if multilabel else _scores(mine, s, form)
    usable = s.max(axis=1) > 0
    if not usable.all():
        scores[~usable] = mine[~usable]
    if multilabel:
        return replaced(z, columns, valid, scores)
    if columns is None:
        return scores - log_sum(scores)
    result = replaced(z, columns, valid, shared_mass(scores, mine, valid))
    return result - log_sum(z)


def top(logits: np.ndarray, candidates: int | None) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Columns of the largest logits of each row, in no order.

    Labels that tie with the last of them belong to them, so that the order of the labels says
    nothing.

    Returns
    -------
    columns : ndarray of int64, shape (n, m), or None
        None where all labels are candidates.
    valid : ndarray of bool, shape (n, m), or None
        Which of them are candidates: rows have different numbers where there are ties. None where
        all are.
    """
    n, classes = logits.shape
    if candidates is None or candidates >= classes:
        return None, None
    last = np.partition(logits, classes - candidates, axis=1)[:, classes - candidates, None]
    most = int((logits >= last).sum(axis=1).max(initial=candidates))
    if most == classes:
        columns = np.broadcast_to(np.arange(classes), (n, classes))
    else:
        columns = np.argpartition(logits, classes - most, axis=1)[:, -most:]
    if most == candidates:
        return columns, None
    return columns, np.take_along_axis(logits, columns, axis=1) >= last


def among_top(logits: np.ndarray, candidates: int | None) -> np.ndarray:
    """Which labels are candidates, bool (n, K); see `top`."""
    columns, valid = top(logits, candidates)
    none = np.zeros(logits.shape, dtype=bool)
    if valid is None:
        valid = np.ones(logits.shape if columns is None else columns.shape, dtype=bool)
    return replaced(none, columns, None, valid)


def taken(values: np.ndarray, columns: np.ndarray | None) -> np.ndarray:
    """The candidates' values (n, m) of all labels' (n, K)."""
    return values if columns is None else np.take_along_axis(values, columns, axis=1)


def replaced(
    values: np.ndarray, columns: np.ndarray | None, valid: np.ndarray | None, new: np.ndarray
) -> np.ndarray:
    """All labels' values (n, K) with the candidates' new ones (n, m)."""
    if columns is None:
        return new
    result = values.copy()
    if valid is not None:
        new = np.where(valid, new, taken(values, columns))
    np.put_along_axis(result, columns, new, axis=1)
    return result


def shared_mass(scores: np.ndarray, own: np.ndarray, valid: np.ndarray | None) -> np.ndarray:
    """Shift each row's scores so that their probabilities sum to those of the candidates before.

    Parameters
    ----------
    scores, own : ndarray of float64, shape (n, m)
        New scores, and log-probabilities or logits as they were.
    valid : ndarray of bool, shape (n, m), or None
        Which columns are candidates.
    """
    return scores + (log_sum(own, valid) - log_sum(scores, valid))


def log_sum(values: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """log of the sum of exp over the valid columns; shape (n, 1)."""
    if valid is not None:
        values = np.where(valid, values, -np.inf)
    highest = values.max(axis=1, keepdims=True)
    return highest + np.log(np.exp(values - highest).sum(axis=1, keepdims=True))


def _logits_of_each(z: np.ndarray, s: np.ndarray, form: Form) -> np.ndarray:
    """Scores of several labels, each a yes or no of its own."""
    if form.name == "paper-logits":
        return z * s**form.power
    log_p = np.minimum(_scores(-np.logaddexp(0, -z), s, form), _LOG_ONE)
    return log_p - np.log(-np.expm1(log_p))


def _scores(log_p: np.ndarray, s: np.ndarray, form: Form) -> np.ndarray:
    """New scores, up to a constant of the row where `log_p` is up to one."""
    if form.name == "paper-logits":
        return log_p * s**form.power
    if form.name == "paper-banking77":
        s = np.where(s == s.max(axis=1, keepdims=True), s > 0, s)
    if form.name == "mix":
        return (1 - form.weight) * log_p + _times_log(form.weight * form.power, s)
    return log_p + _times_log(form.power, s)


def _times_log(factor: float, s: np.ndarray) -> np.ndarray:
    """factor * log s, with 0^0 = 1."""
    if factor == 0:
        return np.zeros_like(s)
    result = np.log(np.maximum(s, _TINY))
    result *= factor
    result[s <= 0] = _LOG_ZERO
    return result
