"""The settings of the ablations: each is a row of their table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from probeline.lrsl.combiner import COMBINER, CombinerOptions
from probeline.lrsl.hardness import certainty, misclassified, threshold_of
from probeline.lrsl.rerank import Form
from probeline.lrsl.trial import NOTHING, THRESHOLD, Validation, Way

if TYPE_CHECKING:
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


@dataclass(frozen=True)
class Hardness:
    """How logits are read and hard texts found, but for k.

    Attributes
    ----------
    measure : one of `probeline.lrsl.hardness.MEASURES`
    rule : 'misclassified' or float
        As in `probeline.lrsl.hardness.threshold_of`.
    temperature : float
    taken_off : tuple of float, optional
        Of several labels: the thresholds that the logits come without. Certainties do not read
        them, and rerankings do.
    """

    measure: str = "variance"
    rule: str | float = "misclassified"
    temperature: float = 1.0
    taken_off: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Setting:
    """One way to rerank.

    Attributes
    ----------
    way : Form, CombinerOptions or None
        None does nothing. A form that does nothing stands, in a multi-label task, for another
        threshold of the hard texts' labels and no similarity.
    k : int
    threshold : float or None
        Certainty up to which texts are hard, infinity where everything is reranked; None where
        nothing is.
    similarities : Similarities, optional
        None where they are not read.
    """

    way: Way | None
    k: int
    threshold: float | None
    similarities: Similarities | None = None

    @property
    def rerank(self) -> str | None:
        """'hard' or 'all'; None where nothing is reranked."""
        if self.way is None:
            return None
        return "all" if self.threshold == np.inf else "hard"

    @property
    def form(self) -> str:
        """Its name in the table."""
        if self.way is None:
            return NOTHING
        if isinstance(self.way, CombinerOptions):
            return COMBINER
        return THRESHOLD if self.way.is_nothing else self.way.name

    def columns(self) -> dict:
        """What its row says of it."""
        similarities = self.similarities
        form = self.way if isinstance(self.way, Form) and not self.way.is_nothing else None
        return {
            "embedding": similarities.embedding if similarities else None,
            "crossfit": similarities.crossfit if similarities else None,
            "rerank": self.rerank,
            "k": self.k if self.way else None,
            "form": self.form,
            "power": form.power if form else None,
            "weight": form.weight if form and form.name == "mix" else None,
            "threshold": self.threshold if self.rerank == "hard" else None,
        }

    def equals(self, other: Setting) -> bool:
        """Whether two settings rerank alike; thresholds may differ by rounding."""
        one, two = self.columns(), other.columns()
        at = one.pop("threshold"), two.pop("threshold")
        close = at[0] == at[1] if None in at else bool(np.isclose(*at, rtol=1e-6, atol=0))
        return one == two and close

    def validation(self, task: TaskData, logits: np.ndarray, hardness: Hardness) -> Validation:
        """What the setting is tried on.

        Parameters
        ----------
        logits : ndarray of float32, shape (n, K)
            Of validation.
        """
        own = hardness.measure, self.k, task.multilabel, hardness.temperature
        return Validation(
            logits,
            self.similarity("validation", logits),
            task.y["validation"],
            certainty(logits, *own),
            task.metric,
            task.multilabel,
            hardness.temperature,
            hardness.taken_off,
        )

    def similarity(self, split: str, logits: np.ndarray) -> np.ndarray:
        """Of all texts of a split, in the shape of its logits; where none is read, all are 1."""
        return np.ones_like(logits) if self.similarities is None else self.similarities.of[split]


def settings_of(
    task: TaskData,
    logits: np.ndarray,
    similarities: Sequence[Similarities],
    forms: Sequence[Form],
    ks: Sequence[int],
    hardness: Hardness,
    top_k: bool = True,
    combiner: bool = False,
) -> Iterator[Setting]:
    """Doing nothing, then every setting of the grid.

    Parameters
    ----------
    logits : ndarray of float32, shape (n, K)
        Of validation, whose threshold is taken.
    similarities, forms, ks, hardness, top_k, combiner
        See `probeline.lrsl.ablations.ablations`.
    """
    yield Setting(None, ks[0], None)
    wrong = misclassified(logits, task.y["validation"], task.multilabel)
    for k in ks:
        measured = certainty(logits, hardness.measure, k, task.multilabel, hardness.temperature)
        thresholds = threshold_of(measured, wrong, hardness.rule), np.inf
        candidates = k if top_k else None
        if task.multilabel:
            alone = replace(Form.nothing(), candidates=candidates)
            yield from (Setting(alone, k, threshold) for threshold in thresholds)
        ways: list[Way] = [replace(f, candidates=candidates) for f in forms if not f.is_nothing]
        ways += [CombinerOptions(candidates=candidates)] if combiner else []
        for cosines, way, threshold in product(similarities, ways, thresholds):
            yield Setting(way, k, threshold, cosines)


def setting_of(decision: Mapping, similarities: Similarities) -> Setting:
    """The setting of a reranking that was chosen.

    Parameters
    ----------
    decision : mapping
        As of `probeline.lrsl.decision.Decision.plain`.
    similarities : Similarities
        Of the embedding that it reads.
    """
    k, threshold = decision["k"], np.inf if decision["everything"] else decision["threshold"]
    form = Form(**decision["form"])
    if decision["combiner"] is not None:
        return Setting(
            CombinerOptions(**decision["combiner"]["options"]), k, threshold, similarities
        )
    if form.is_nothing or threshold is None:
        return Setting(None, k, None)
    return Setting(form, k, threshold, similarities)
