"""Which texts are hard: those whose logits lie close together.

The measure of Huang et al. 2024 is the variance of a text's largest logits; margins and entropies
of its probabilities are the usual alternatives.

Of several labels, logits are those with the threshold of each label taken off: a text is hard where
they are close to it, so that its answer is in doubt, not where its probabilities are close to 0.5.
"""

from __future__ import annotations

import logging

import numpy as np
from scipy.special import expit, softmax

from probeline.errors import ProbelineError, one_of
from probeline.probe.metrics import predict_codes

log = logging.getLogger(__name__)

MEASURES = ("variance", "margin", "entropy")


def certainty(
    logits: np.ndarray,
    measure: str,
    k: int,
    multilabel: bool = False,
    temperature: float = 1.0,
) -> np.ndarray:
    """Say of each text how far its logits are apart: high is easy.

    Parameters
    ----------
    logits : ndarray, shape (n, K)
        Of several labels with the thresholds taken off.
    measure : one of `MEASURES`
        The population variance of the `k` largest logits; the largest probability minus the second,
        of several labels the smallest |2 p - 1|; minus the entropy of the probabilities, of several
        labels minus the mean of their binary entropies; there p is the sigmoid of these logits.
    k : int
        From 2 to K.
    multilabel : bool
    temperature : float
        Divides the logits.

    Returns
    -------
    ndarray of float64, shape (n,)

    Raises
    ------
    ProbelineError
        If the measure is unknown, or `k` is not a number of this task's labels.
    """
    if measure not in MEASURES:
        raise ProbelineError(f"lrsl.hardness: {one_of(measure, MEASURES)}")
    check_k(k, logits.shape[1])
    if measure == "variance":
        return largest(logits, k).astype(np.float64).var(axis=1) / temperature**2
    values = logits.astype(np.float64) / temperature
    if multilabel:
        # |2 sigmoid(z) - 1| = tanh |z / 2|, which does not cancel.
        margins = np.tanh(np.abs(values) / 2)
        return margins.min(axis=1) if measure == "margin" else -_binary_entropy(values).mean(axis=1)
    p = softmax(values, axis=1)
    if measure == "margin":
        second, first = np.sort(largest(p, 2), axis=1).T
        return first - second
    return (p * np.log(np.where(p > 0, p, 1.0))).sum(axis=1)


def check_k(k: int, classes: int) -> None:
    """Refuse a number of top labels that a task has not.

    Raises
    ------
    ProbelineError
        One line that names `lrsl.k`.
    """
    if not 2 <= k <= classes:
        raise ProbelineError(
            f"lrsl.k: {k} top labels of a task with {classes} classes; give 2 to {classes}"
        )


def largest(values: np.ndarray, k: int) -> np.ndarray:
    """The `k` largest of each row, in no order; shape (n, k)."""
    return np.partition(values, values.shape[1] - k, axis=1)[:, -k:]


def _binary_entropy(logits: np.ndarray) -> np.ndarray:
    size = np.abs(logits)
    return np.log1p(np.exp(-size)) + size * expit(-size)


def misclassified(logits: np.ndarray, y: np.ndarray, multilabel: bool) -> np.ndarray:
    """Whether a text's label is not the predicted one, or its set of labels not the predicted set.

    Parameters
    ----------
    logits : ndarray, shape (n, K)
        Of several labels those above 0 are predicted.
    y : ndarray, shape (n,) of codes or (n, K) of 0/1

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    if multilabel:
        return ((logits > 0) != y.astype(bool)).any(axis=1)
    return predict_codes(logits) != y


def threshold_of(certainty: np.ndarray, wrong: np.ndarray, rule: str | float) -> float | None:
    """At which certainty a text is no longer hard.

    Parameters
    ----------
    certainty : ndarray of float64, shape (n,)
        Of validation texts.
    wrong : ndarray of bool, shape (n,)
        Which of them the classifier gets wrong.
    rule : 'misclassified' or float
        The mean certainty of the wrong ones (with the variance the paper's sigma^2_mis), or a
        number in (0, 1]: that quantile of all.

    Returns
    -------
    float or None
        None where no validation text is wrong: then no text is hard.

    Raises
    ------
    ProbelineError
        If the rule is neither.
    """
    if rule == "misclassified":
        if not wrong.any():
            log.info("lrsl: no validation text is misclassified, so that no text is hard")
            return None
        return float(certainty[wrong].mean())
    if isinstance(rule, str) or not 0 < rule <= 1:
        raise ProbelineError(
            f"lrsl.threshold: {rule} is neither 'misclassified' nor a quantile above 0 and up to 1"
        )
    return float(np.quantile(certainty, rule))


def is_hard(certainty: np.ndarray, threshold: float | None) -> np.ndarray:
    """Whether a text is at most as certain as the threshold; bool (n,), all false without one."""
    if threshold is None:
        return np.zeros(len(certainty), dtype=bool)
    return certainty <= threshold
