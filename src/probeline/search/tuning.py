"""A trial that fine-tunes: its score on validation is told to the study at every evaluation."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import optuna

from probeline.data.store import Dataset
from probeline.finetune.checkpoints import Checkpoints
from probeline.finetune.kind import REGULAR, Regular
from probeline.finetune.options import read_options
from probeline.finetune.prepare import prepare
from probeline.finetune.record import Record
from probeline.finetune.stage import train
from probeline.finetune.trainer import FineTuner, Job
from probeline.probe.task import TaskData


class TrialTuner(FineTuner):
    """A run that ends when the study sees no use in it.

    Parameters
    ----------
    trial : optuna.Trial
    job, checkpoints, record
        As `FineTuner`.
    """

    def __init__(self, trial: optuna.Trial, job: Job, checkpoints: Checkpoints, record: Record):
        self._of = trial
        super().__init__(job, checkpoints, record)

    def evaluate(self, *_, **__) -> dict[str, float]:
        """Score validation and tell the study.

        Raises
        ------
        optuna.TrialPruned
        """
        metrics = super().evaluate()
        scores = validation_scores(self.record)
        # An evaluation is done again where the run was killed before its checkpoint.
        if len(scores) - 1 not in _reported(self._of):
            self._of.report(scores[-1], len(scores) - 1)
        if self.state.global_step < self.job.steps and self._of.should_prune():
            raise optuna.TrialPruned
        return metrics


def validation_scores(record: Record) -> list[float]:
    """The scores of all evaluations so far."""
    return [row["score"] for row in record.history if row["split"] == "validation"]


def _reported(trial: optuna.Trial) -> dict[int, float]:
    return trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values


@dataclass(frozen=True)
class Finetuning:
    """The objective of a search: the validation score of a fine-tuned classifier.

    Attributes
    ----------
    dataset : Dataset
    task : TaskData
    model_name, model_spec : str, mapping
        Name and content of an entry of `models:`.
    options : mapping
        The section `finetune:`; a trial's own settings replace those in it.
    seed : int
        The same for all trials, so that settings make the difference.
    state_folder : Path
        Where trials under way keep their state.
    settings : mapping
        Those of the study.
    kind : Regular
        Which classifier is trained.
    """

    dataset: Dataset
    task: TaskData
    model_name: str
    model_spec: Mapping
    options: Mapping
    seed: int
    state_folder: Path
    settings: Mapping
    kind: Regular = REGULAR

    def __call__(self, trial: optuna.Trial, params: Mapping) -> float:
        """Fine-tune with `params`; return the score of the checkpoint that would be kept.

        Raises
        ------
        optuna.TrialPruned
        NotFinite
            If it runs away.
        """
        options = read_options({**self.options, **params})
        job, _ = prepare(
            self.dataset,
            self.task,
            self.model_name,
            self.model_spec,
            options,
            self.seed,
            self.kind,
        )
        job = replace(job, name=f"trial {trial.number}, {job.name}")
        settings = {"study": self.settings, "params": dict(params)}
        checkpoints = Checkpoints(self._state(trial.number), settings)
        record = train(job, checkpoints, partial(TrialTuner, trial))
        scores = validation_scores(record)
        return record.best_score if options.keep == "best" else scores[-1]

    def forget(self, number: int) -> None:
        """Delete the state of a trial whose score the study has."""
        shutil.rmtree(self._state(number), ignore_errors=True)

    def _state(self, number: int) -> Path:
        return self.state_folder / f"trial-{number}"
