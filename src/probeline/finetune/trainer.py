"""transformers' Trainer with this library's batches, loss, evaluation and checkpoints."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from probeline.activations.batching import Tokens
from probeline.errors import ProbelineError, one_of
from probeline.files import explained
from probeline.finetune.batches import EpochBatches, EpochLoader, TrainRows
from probeline.finetune.checkpoints import WEIGHTS, Checkpoints, load_trained, save_trained
from probeline.finetune.logits import logits_of
from probeline.finetune.loss import ClassificationLoss
from probeline.finetune.options import Options
from probeline.finetune.record import Record
from probeline.models.load import LoadedModel
from probeline.probe.task import TaskData
from probeline.probe.threshold import evaluate

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 15.0
_POINTS = 100  # train losses in the history


@dataclass(frozen=True)
class Job:
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

    @property
    def epoch_steps(self) -> int:
        """Steps per epoch."""
        batches = -(-len(self.train) // self.options.batch_size)
        return -(-batches // self.options.gradient_accumulation)

    @property
    def steps(self) -> int:
        return math.ceil(self.options.epochs * self.epoch_steps)

    @property
    def evaluation_steps(self) -> set[int]:
        """Evenly spread over each epoch; the last step is always one."""
        count = math.ceil(self.options.epochs * self.options.evaluations)
        share = self.epoch_steps / self.options.evaluations
        found = {math.ceil(round(number * share, 6)) for number in range(1, count + 1)}
        return {step for step in found if step <= self.steps} | {self.steps}


class FineTuner(Trainer):
    """One run of a `Job`.

    Parameters
    ----------
    job : Job
    checkpoints : Checkpoints
    record : Record
        That of the checkpoint to go on from, or an empty one.
    """

    def __init__(self, job: Job, checkpoints: Checkpoints, record: Record):
        self.job, self.checkpoints, self.record = job, checkpoints, record
        super().__init__(
            model=job.model.body,
            args=_arguments(job, checkpoints.folder),
            train_dataset=job.train,
            callbacks=[_Flow(self)],
            # Given, it says that the loss is divided by the rows of a whole step already.
            compute_loss_func=job.loss.rows,
        )
        self.remove_callback(PrinterCallback)
        self._earlier, self._began = record.seconds, time.monotonic()

    @property
    def seconds(self) -> float:
        return self._earlier + time.monotonic() - self._began

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

    def training_step(self, *args, **more) -> torch.Tensor:
        loss = super().training_step(*args, **more)
        value = loss.item()
        if not math.isfinite(value):
            raise not_finite(f"the loss of step {self.state.global_step + 1} is {value}", self.job)
        self.record.loss_sum += value
        return loss

    def evaluate(self, *_, **__) -> dict[str, float]:
        """Score validation, remember whether it is the best yet, and say so."""
        job, record, state = self.job, self.record, self.state
        logits = logits_of(job.model, job.validation, job.task.classes, job.precision)
        if not np.isfinite(logits).all():
            raise not_finite(f"validation logits after step {state.global_step} are not", job)
        loss = job.loss.mean(logits, job.task.y["validation"])
        found = evaluate(job.task, _one_column(logits, job.task))
        record.evaluated(state.global_step, state.epoch, loss, found, job.options.early_stopping)
        self.control.should_training_stop |= record.stopped
        logger.info(
            "%s: step %d of %d, validation loss %.4f, %s %.4f%s",
            job.name,
            state.global_step,
            job.steps,
            loss,
            job.task.metric,
            found.score,
            ", the best so far" if record.best_step == state.global_step else "",
        )
        if record.stopped and state.global_step < job.steps:
            logger.info("%s: stopped early, best was step %d", job.name, record.best_step)
        metrics = {"eval_loss": loss, f"eval_{job.task.metric}": found.score}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, state, self.control, metrics)
        return metrics

    def _save_checkpoint(self, model: torch.nn.Module, trial) -> None:
        self.record.seconds = self.seconds
        folder = self.checkpoints.path(self.state.global_step)
        with explained(folder):
            try:
                super()._save_checkpoint(model, trial)
            except RuntimeError as error:
                # torch.save does not say what the operating system said.
                if "inline_container" not in str(error):
                    raise
                raise ProbelineError(
                    f"{folder}: the checkpoint cannot be written; is the disk full? free some "
                    "space, then run the same command again"
                ) from error
        self.checkpoints.seal(self.state.global_step, self.record)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        folder = Path(output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_trained(self.model, folder / WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        load_trained(self.model, Path(resume_from_checkpoint) / WEIGHTS)


class _Flow(TrainerCallback):
    """When to enter a loss, evaluate, save and speak."""

    def __init__(self, trainer: FineTuner):
        self._trainer = trainer
        self._evaluations = trainer.job.evaluation_steps
        self._every = max(1, trainer.job.steps // _POINTS)
        self._saved = self._spoken = time.monotonic()

    def on_train_begin(self, args, state, control, **_) -> None:
        self._first, self._began = state.global_step, time.monotonic()

    def on_step_end(self, args, state, control, **_) -> None:
        trainer, step, now = self._trainer, state.global_step, time.monotonic()
        trainer.record.loss_steps += 1
        evaluating = step in self._evaluations
        if evaluating or step % self._every == 0:
            loss = trainer.record.trained(step, state.epoch)
            trainer.log({"loss": loss, "learning_rate": trainer._get_learning_rate()})
            if evaluating or now - self._spoken >= _SECONDS_BETWEEN_LINES:
                self._speak(loss, step, now)
        control.should_evaluate = evaluating
        if evaluating or now - self._saved >= 60 * trainer.job.options.checkpoint_minutes:
            control.should_save = True
            self._saved = now

    def _speak(self, loss: float, step: int, now: float) -> None:
        self._spoken = now
        job = self._trainer.job
        left = (job.steps - step) * (now - self._began) / max(step - self._first, 1)
        logger.info(
            "%s: step %d of %d, loss %.4f, %.0f s left", job.name, step, job.steps, loss, left
        )


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
        # When to do these is decided here, in `_Flow`.
        save_strategy="no",
        eval_strategy="no",
        logging_strategy="no",
        # Not finite losses are errors here.
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        label_names=["labels"],
        disable_tqdm=True,
        log_level="error",
    )
    # Several cards would be used as one, with other batches.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def not_finite(what: str, job: Job) -> ProbelineError:
    """The error for losses and logits that are NaN or infinite."""
    options = job.options
    advice = [f"a learning_rate below {options.learning_rate:g}"]
    if options.max_grad_norm is None:
        advice.append("max_grad_norm: 1")
    if job.precision != "no":
        # Quoted: a bare no is false in YAML.
        advice.append('mixed_precision: "no"')
    return ProbelineError(f"{job.name}: {what} not finite; try {', or '.join(advice)}")
