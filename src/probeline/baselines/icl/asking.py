"""Ask a language model for the labels of texts: prompts, calibration, and what had to give way."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from probeline.baselines.icl.calibration import (
    CONTENT_FREE,
    calibrated,
    content_free_prior,
    label_scores,
)
from probeline.baselines.icl.fitting import Prompts, Query, fit_prompts, label_tokens
from probeline.baselines.icl.prompt import Template
from probeline.baselines.icl.scoring import continuation_scores
from probeline.errors import ProbelineError
from probeline.models.causal import CausalModel

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answers:
    """What the model said.

    Attributes
    ----------
    logits : ndarray of float64, shape (n, K)
    report : dict
        Tokens of context, examples dropped and texts truncated, as plain numbers.
    """

    logits: np.ndarray
    report: dict


class Asker:
    """A model, how it is asked, and the tokens of what it may answer.

    Parameters
    ----------
    texts : sequence of sequence of str
        One or several texts per label.
    context : int or None
        Tokens of a prompt and its label together; None for as many as the model has positions.
    normalize : {"mean", "sum"}
    calibrate : bool

    Raises
    ------
    ProbelineError
        If `context` is more than the model has, or leaves no room beside the labels.
    """

    def __init__(
        self,
        model: CausalModel,
        template: Template,
        texts: Sequence[Sequence[str]],
        context: int | None = None,
        normalize: str = "mean",
        calibrate: bool = True,
    ):
        self._model, self._template = model, template
        self._normalize, self._calibrate = normalize, calibrate
        flat = [text for own in texts for text in own]
        self._owners = [k for k, own in enumerate(texts) for _ in own]
        self._labels = [label_tokens(model, template, text) for text in flat]
        self._classes = len(texts)
        self._context = _context(model, context)

    @property
    def room(self) -> int | None:
        """Tokens of a prompt. The last token of a label is predicted, not read."""
        if self._context is None:
            return None
        longest = max(map(len, self._labels)) - 1
        if longest >= self._context:
            raise ProbelineError(
                f"icl: a label's text takes {longest + 1} tokens, and {self._model.path} has "
                f"{self._context} for all; shorten it in `label_texts` or raise `context`"
            )
        return self._context - longest

    def ask(self, queries: Sequence[Query]) -> Answers:
        """Logits of the labels for every query.

        Queries that share one list of examples share their computation too.
        """
        prompts = fit_prompts(self._model, self._template, queries, self.room)
        report = self._report(queries, prompts)
        if not self._calibrate:
            scores = self._scores(prompts, _groups(queries, prompts.kept))
            return Answers(calibrated(scores, None), report)
        free, most, owner = _content_free(queries, prompts.kept)
        nothing = fit_prompts(self._model, self._template, free, self.room, most)
        together = Prompts(
            prompts.ids + nothing.ids,
            np.concatenate([prompts.kept, most]),
            np.concatenate([prompts.cut, nothing.cut]),
        )
        scores = self._scores(together, _groups([*queries, *free], together.kept))
        n = len(queries)
        prior = content_free_prior(scores[n:].reshape(-1, len(CONTENT_FREE), self._classes))
        return Answers(calibrated(scores[:n], prior[owner]), report)

    def _scores(self, prompts: Prompts, groups: np.ndarray) -> np.ndarray:
        sums = continuation_scores(self._model, prompts.ids, self._labels, groups)
        lengths = [len(label) for label in self._labels]
        return label_scores(sums, lengths, self._owners, self._classes, self._normalize)

    def _report(self, queries: Sequence[Query], prompts: Prompts) -> dict:
        dropped = np.array([len(query.shots) for query in queries]) - prompts.kept
        if dropped.any():
            log.warning(
                "%d of %d prompts do not fit the context of %d tokens: up to %d examples were "
                "dropped of them, %.1f on average",
                (dropped > 0).sum(),
                len(queries),
                self._context,
                dropped.max(),
                dropped[dropped > 0].mean(),
            )
        if prompts.cut.any():
            log.warning("%d texts were truncated, no example being left", prompts.cut.sum())
        return {
            "context": self._context,
            "shots_dropped": {
                "prompts": int((dropped > 0).sum()),
                "most": int(dropped.max(initial=0)),
                "mean": float(dropped.mean()) if len(dropped) else 0.0,
            },
            "texts_truncated": int(prompts.cut.sum()),
        }


def _context(model: CausalModel, asked: int | None) -> int | None:
    if asked is not None and model.positions is not None and asked > model.positions:
        raise ProbelineError(
            f"icl.context: {asked} is above the {model.positions} positions of {model.path}; set "
            f"it to at most {model.positions}"
        )
    return model.positions if asked is None else asked


def _groups(queries: Sequence[Query], kept: np.ndarray) -> np.ndarray:
    """Numbers of prompts that begin alike: those that show the same examples."""
    shared = all(query.shots is queries[0].shots for query in queries)
    return kept if shared else np.zeros(len(kept), dtype=np.int64)


def _content_free(
    queries: Sequence[Query], kept: np.ndarray
) -> tuple[list[Query], np.ndarray, np.ndarray]:
    """Inputs without content after the same examples as every query has.

    Returns
    -------
    queries : list of Query
        For each choice of examples, one per content-free text.
    most : ndarray of int64
        Examples that each shows.
    owner : ndarray of int64
        For each of the given queries, which choice of examples is its own.
    """
    choices: dict[tuple[int, int], int] = {}
    free: list[Query] = []
    most: list[int] = []
    owner = np.empty(len(queries), dtype=np.int64)
    for place, (query, shown) in enumerate(zip(queries, kept.tolist(), strict=True)):
        key = (id(query.shots), shown)
        if key not in choices:
            choices[key] = len(choices)
            for text in CONTENT_FREE:
                pair = None if query.pair is None else text
                free.append(Query(text, pair, query.shots, query.reverse))
                most.append(shown)
        owner[place] = choices[key]
    return free, np.array(most, dtype=np.int64), owner
