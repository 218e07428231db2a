"""What all training here has in common: it can be killed, says how it goes, and is evaluated."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import torch
from transformers import PrinterCallback, TrainerCallback

from probeline.errors import ProbelineError
from probeline.files import explained, told
from probeline.finetune.checkpoints import WEIGHTS, Checkpoints, load_trained, save_trained
from probeline.finetune.record import Record
from probeline.models.load import quiet, reason
from probeline.probe.threshold import Evaluation

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 15.0
_POINTS = 100  # train losses in the history

# Of transformers' TrainingArguments.
ARGUMENTS = {
    # When to do these is decided here, in `_Flow`.
    "save_strategy": "no",
    "eval_strategy": "no",
    "logging_strategy": "no",
    # Not finite losses are errors here.
    "logging_nan_inf_filter": False,
    "remove_unused_columns": False,
    "disable_tqdm": True,
    "log_level": "error",
}


class Schedule:
    """Steps of a job that has `train`, of a length, and `options`."""

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


class Job(Protocol):
    """What `Resumable` must know of what is trained.

    Attributes
    ----------
    name : str
        Shown in log lines.
    options
        Has `learning_rate`, `max_grad_norm` and `checkpoint_minutes`.
    precision : str
        "no", "bf16" or "fp16".
    steps, evaluation_steps : int, set of int
        As `Schedule` has them.
    """

    name: str
    options: object
    precision: str
    steps: int
    evaluation_steps: set[int]


class Resumable:
    """To be put before transformers' Trainer, or one made of it, among the bases of a class.

    `begin` comes before the other base's `__init__`, `flow` after it; `evaluate` ends in
    `evaluated`.
    """

    def begin(self, job: Job, checkpoints: Checkpoints, record: Record) -> None:
        self.job, self.checkpoints, self.record = job, checkpoints, record

    def flow(self) -> None:
        self.add_callback(_Flow(self))
        self.remove_callback(PrinterCallback)
        self._earlier, self._began = self.record.seconds, time.monotonic()

    @property
    def seconds(self) -> float:
        return self._earlier + time.monotonic() - self._began

    def training_step(self, *args, **more) -> torch.Tensor:
        loss = super().training_step(*args, **more)
        value = loss.item()
        if not math.isfinite(value):
            raise not_finite(f"the loss of step {self.state.global_step + 1} is {value}", self.job)
        self.record.loss_sum += value
        return loss

    def evaluated(
        self, metric: str, loss: float, found: Evaluation, patience: int | None = None
    ) -> dict[str, float]:
        """Remember what validation says, whether it is the best yet, and say so."""
        job, record, state = self.job, self.record, self.state
        record.evaluated(state.global_step, state.epoch, loss, found, patience)
        self.control.should_training_stop |= record.stopped
        logger.info(
            "%s: step %d of %d, validation loss %.4f, %s %.4f%s",
            job.name,
            state.global_step,
            job.steps,
            loss,
            metric,
            found.score,
            ", the best so far" if record.best_step == state.global_step else "",
        )
        if record.stopped and state.global_step < job.steps:
            logger.info("%s: stopped early, best was step %d", job.name, record.best_step)
        metrics = {"eval_loss": loss, f"eval_{metric}": found.score}
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
        with _readable(resume_from_checkpoint):
            load_trained(self.model, Path(resume_from_checkpoint) / WEIGHTS)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with _readable(checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with _readable(checkpoint):
            super()._load_rng_state(checkpoint)


@contextmanager
def _readable(checkpoint: str | None) -> Iterator[None]:
    """Refuse a checkpoint that was changed; transformers reads it with weights_only=True."""
    try:
        yield
    except ProbelineError:
        raise
    except Exception as error:  # of torch, safetensors, or of an optimizer that finds other keys
        if told(error):  # not its fault
            raise
        raise ProbelineError(
            f"{checkpoint}: this checkpoint cannot be read ({reason(error)}); delete "
            f"{Path(checkpoint).parent} and run the same command again"
        ) from error


class _Flow(TrainerCallback):
    """When to enter a loss, evaluate, save and speak."""

    def __init__(self, trainer: Resumable):
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


def train_to_end(
    job: Job,
    checkpoints: Checkpoints,
    trainer: Callable[[Record], Resumable],
    module: torch.nn.Module,
) -> Record:
    """Train `module`, or go on training, and leave in it the weights that are kept.

    Parameters
    ----------
    trainer : callable
        Makes the trainer from the record to go on from.
    """
    last = checkpoints.last()
    step, record = last or (0, Record())
    if last:
        logger.info("%s: going on after step %d of %d", job.name, step, job.steps)
    if step < job.steps and not record.stopped:
        with quiet():
            running = trainer(record)
            running.train(resume_from_checkpoint=str(checkpoints.path(step)) if last else None)
            record.seconds = running.seconds
        _unwrap(running.model)
    kept, _ = kept_step(record, job.options.keep)
    load_trained(module, checkpoints.path(kept) / WEIGHTS)
    return record


def _unwrap(model: torch.nn.Module) -> None:
    # accelerate has set one that computes in the precision of the training; its own way back takes
    # the model's decorators off, too.
    for name in ("forward", "_original_forward"):
        vars(model).pop(name, None)


def kept_step(record: Record, keep: str) -> tuple[int, float]:
    """Step and threshold of the checkpoint that is kept: the "best" or the "last"."""
    if keep == "best":
        return record.best_step, record.best_threshold
    return record.history[-1]["step"], record.last_threshold


@contextmanager
def memory_errors(job: Job, device: torch.device, advice: Sequence[str]) -> Iterator[None]:
    """Turn what says that the memory is full into one line."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        full = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not full and "can't allocate memory" not in str(error):
            raise
        raise ProbelineError(
            f"{job.name}: a batch of {job.options.batch_size} texts does not fit into the memory "
            f"of the {device.type}; try {', or '.join(advice)}"
        ) from error


class NotFinite(ProbelineError):
    """Training that has run away."""


def not_finite(what: str, job: Job) -> NotFinite:
    """The error for losses and logits that are NaN or infinite."""
    options = job.options
    advice = [f"a learning_rate below {options.learning_rate:g}"]
    if options.max_grad_norm is None:
        advice.append("max_grad_norm: 1")
    if job.precision != "no":
        # Quoted: a bare no is false in YAML.
        advice.append('mixed_precision: "no"')
    return NotFinite(f"{job.name}: {what} not finite; try {', or '.join(advice)}")
