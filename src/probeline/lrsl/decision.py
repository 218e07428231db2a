"""What validation decided about a reranker, and applying it to logits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from probeline.baselines.report import best_threshold
from probeline.lrsl.hardness import certainty, is_hard
from probeline.lrsl.rerank import Form, apply
from probeline.probe.metrics import score

if TYPE_CHECKING:
    from probeline.lrsl.combiner import Combiner
    from probeline.probe.task import TaskData


@dataclass(frozen=True)
class Decision:
    """Which texts are reranked, and how.

    Attributes
    ----------
    form : Form
        Not read where there is a combiner.
    k : int
        Top logits that tell how hard a text is.
    measure : one of `probeline.lrsl.hardness.MEASURES`
    threshold : float or None
        Texts of this certainty or less are hard; None: no text is.
    temperature : float
    everything : bool
        Rerank all texts, hard or not.
    multilabel : bool
    label_threshold : float
        Taken off the reranked logits of a multi-label task, so that a label is predicted above 0.
    combiner : Combiner or None
    """

    form: Form
    k: int
    measure: str = "variance"
    threshold: float | None = None
    temperature: float = 1.0
    everything: bool = False
    multilabel: bool = False
    label_threshold: float = 0.0
    combiner: Combiner | None = None

    @property
    def idle(self) -> bool:
        """Whether no text can be changed."""
        does_nothing = self.combiner is None and self.form.is_nothing
        return does_nothing or (self.threshold is None and not self.everything)

    @property
    def name(self) -> str:
        """The form in one word, for tables: nothing, mlp or one of `lrsl.rerank.FORMS`."""
        if self.idle:
            return "nothing"
        return "mlp" if self.combiner is not None else self.form.name

    def certainty(self, logits: np.ndarray) -> np.ndarray:
        """How certain logits (n, K) are, float64 (n,): high is easy."""
        return certainty(logits, self.measure, self.k, self.multilabel, self.temperature)

    def selects(self, logits: np.ndarray) -> np.ndarray:
        """Which rows of logits (n, K) are to be reranked, bool (n,)."""
        if self.idle or self.everything:
            return np.full(len(logits), not self.idle)
        return is_hard(self.certainty(logits), self.threshold)

    def apply(self, logits: np.ndarray, selected: np.ndarray, similarity: np.ndarray) -> np.ndarray:
        """Rerank the selected rows.

        Parameters
        ----------
        logits : ndarray of float32, shape (n, K)
        selected : ndarray of bool, shape (n,)
        similarity : ndarray, shape (selected rows, K)
            Cosines of the selected texts and the labels.

        Returns
        -------
        ndarray of float32, shape (n, K)
            Rows that are not selected are those of `logits`, bit for bit. Divided by the
            temperature all are the logits of probabilities.
        """
        if self.idle or not selected.any():
            return logits
        if self.combiner is None:
            found = apply(
                logits, selected, similarity, self.form, self.multilabel, self.temperature
            )
        else:
            found = logits.copy()
            found[selected] = self.combiner.scores(logits[selected], similarity)
        if self.multilabel:
            found[selected] -= np.float32(self.label_threshold)
        return found


def label_threshold(
    task: TaskData, decision: Decision, logits: np.ndarray, similarity: np.ndarray
) -> float:
    """Choose where a reranked score of a multi-label task begins to count as a predicted label.

    As `probeline.baselines.report.score_threshold`, but for the reranked texts alone: the others
    keep the classifier's own threshold.

    Parameters
    ----------
    decision : Decision
    logits, similarity : ndarray, shape (n, K)
        Of all validation texts.

    Returns
    -------
    float
    """
    selected = decision.selects(logits)
    if not selected.any():
        return 0.0
    plain = replace(decision, label_threshold=0.0)
    found = plain.apply(logits, selected, similarity[selected])
    # A metric that ranks says nothing of a threshold.
    metric = "micro-f1" if task.metric == "roc-auc" else task.metric
    reranked = found[selected]

    def score_of(at: float) -> float:
        found[selected] = reranked - np.float32(at)
        return score(metric, task.y["validation"], found, task.classes)

    return best_threshold(reranked, score_of)
