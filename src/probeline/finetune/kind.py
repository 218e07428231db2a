"""Which classifier is trained. All that differs between kinds stands here: the training is one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from probeline.activations.batching import Tokens
from probeline.data.store import Dataset
from probeline.finetune.model import load_classifier
from probeline.finetune.options import Options
from probeline.models.load import LoadedModel
from probeline.probe.task import TaskData
from probeline.probe.threshold import CHOSEN

if TYPE_CHECKING:
    from probeline.finetune.trainer import Job


class Regular:
    """transformers' own sequence classifier of an architecture, with a new head.

    Attributes
    ----------
    method : str
        Its name in the results.
    thresholds : one of `probeline.probe.threshold.THRESHOLDS`
    """

    method: str = "finetune"
    thresholds: str = CHOSEN

    def variant(self, options: Options) -> str:
        """What tells it from others of its method in the results."""
        return "full" if options.lora is None else "lora"

    def load(self, spec: Mapping, task: TaskData, options: Options, seed: int) -> LoadedModel:
        """Load the model that `spec` (an entry of `models:`) names as a classifier for `task`."""
        return load_classifier(spec, task, options)

    def told(self, tokens: Tokens, dataset: Dataset, task: TaskData) -> Tokens:
        """Add what the classifier is told of every text beside its tokens."""
        return tokens

    def taught(self, tokens: Tokens, task: TaskData) -> Tokens:
        """Of the train texts that it learns from, whose labels are known."""
        return tokens

    def settings(self) -> dict:
        """What decides the weights beside model, data and training; JSON-like."""
        return {}

    def describe(self, model: LoadedModel, probabilities: list[float]) -> None:
        """Write into the model's config above which probability each label holds."""

    def measured(self, job: Job, tokens: Tokens) -> dict:
        """What else is reported of a trained classifier; JSON-like. `tokens` are of all texts."""
        return {}

    def write(self, folder: Path) -> None:
        """Put into its folder what a classifier needs beside weights and tokenizer."""


REGULAR = Regular()


@dataclass(frozen=True)
class Counterpart(Regular):
    """The same, trained as what it is compared with.

    Attributes
    ----------
    thresholds : one of `probeline.probe.threshold.THRESHOLDS`
    """

    thresholds: str = CHOSEN
    method: str = "regular"
