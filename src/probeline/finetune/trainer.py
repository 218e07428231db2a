"""transformers' Trainer with this library's batches, loss, evaluation and checkpoints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import Trainer, TrainingArguments

from probeline.activations.batching import Tokens
from probeline.errors import ProbelineError, one_of
from probeline.finetune.batches import EpochBatches, EpochLoader, TrainRows
from probeline.finetune.checkpoints import Checkpoints
from probeline.finetune.logits import logits_of
from probeline.finetune.loss import ClassificationLoss
from probeline.finetune.options import Options
from probeline.finetune.record import Record
from probeline.finetune.resumable import ARGUMENTS, Resumable, Schedule, not_finite
from probeline.models.load import LoadedModel
from probeline.probe.task import TaskData
from probeline.probe.threshold import evaluate


@dataclass(frozen=True)
class Job(Schedule):
    """What is trained.

    Attributes
    ----------
    name : str
        Shown in log lines.
    model : LoadedModel
        Its body is the classifier, adapters included.
    task : TaskData
    train : TrainRows
    validation : Tokens
    loss : ClassificationLoss
    options : Options
    precision : str
        "no", "bf16" or "fp16".
    seed : int
    fixed : bool
        Labels of a multi-label task are predicted above a logit of 0, whatever validation says.
    """

    name: str
    model: LoadedModel
    task: TaskData
    train: TrainRows
    validation: Tokens
    loss: ClassificationLoss
    options: Options
    precision: str
    seed: int
    fixed: bool = False


class FineTuner(Resumable, Trainer):
    """One run of a `Job`.

    Parameters
    ----------
    job : Job
    checkpoints : Checkpoints
    record : Record
        That of the checkpoint to go on from, or an empty one.
    """

    def __init__(self, job: Job, checkpoints: Checkpoints, record: Record):
        self.begin(job, checkpoints, record)
        super().__init__(
            model=job.model.body,
            args=_arguments(job, checkpoints.folder),
            train_dataset=job.train,
            # Given, it says that the loss is divided by the rows of a whole step already.
            compute_loss_func=job.loss.rows,
        )
        self.flow()

    def get_train_dataloader(self) -> EpochLoader:
        options = self.job.options
        lengths = self.job.train.tokens.lengths
        batches = EpochBatches(lengths, options.batch_size, options.group_by_length, self.job.seed)
        return EpochLoader(self.job.train, batches)

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> int:
        return sum(len(batch["labels"]) for batch in batch_samples)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Mapping,
        return_outputs: bool = False,
        num_items_in_batch: int | None = None,
    ) -> torch.Tensor:
        """Sum of the row losses, divided by the rows of the whole step."""
        inputs = dict(inputs)
        labels = inputs.pop("labels")
        losses = self.job.loss.rows(model(**inputs).logits, labels)
        return losses.sum() / (num_items_in_batch or len(losses))

    def evaluate(self, *_, **__) -> dict[str, float]:
        """Score validation."""
        job, step = self.job, self.state.global_step
        logits = logits_of(job.model, job.validation, job.task.classes, job.precision)
        if not np.isfinite(logits).all():
            raise not_finite(f"validation logits after step {step} are not", job)
        loss = job.loss.mean(logits, job.task.y["validation"])
        found = evaluate(job.task, _one_column(logits, job.task), job.fixed)
        return self.evaluated(job.task.metric, loss, found, job.options.early_stopping)


def _one_column(logits: np.ndarray, task: TaskData) -> np.ndarray:
    """The difference (n, 1) of the two columns of a binary task, as probes have it."""
    binary = task.classes == 2 and not task.multilabel
    return logits[:, 1:] - logits[:, :1] if binary else logits


def check_reports(names: Sequence[str]) -> None:
    """Refuse integrations that transformers does not know, or whose package is not there.

    Raises
    ------
    ProbelineError
    """
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            raise ProbelineError(f"finetune.report_to: {one_of(name, INTEGRATION_TO_CALLBACK)}")
        try:
            INTEGRATION_TO_CALLBACK[name]()
        except (RuntimeError, ImportError) as error:
            raise ProbelineError(f"finetune.report_to: {error}") from error


def _arguments(job: Job, folder: Path) -> TrainingArguments:
    options = job.options
    schedule = {"constant": "constant_with_warmup"}.get(options.schedule, options.schedule)
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=options.epochs,
        learning_rate=options.learning_rate,
        lr_scheduler_type=schedule,
        warmup_steps=math.ceil(options.warmup * job.steps),
        weight_decay=options.weight_decay,
        per_device_train_batch_size=options.batch_size,
        gradient_accumulation_steps=options.gradient_accumulation,
        max_grad_norm=options.max_grad_norm or 0.0,
        bf16=job.precision == "bf16",
        fp16=job.precision == "fp16",
        use_cpu=job.model.device.type == "cpu",
        seed=job.seed,
        report_to=list(options.report_to),
        run_name=job.name,
        label_names=["labels"],
        **ARGUMENTS,
    )
    # Several cards would be used as one, with other batches.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments
