"""The fine-tuning stage: train, keep the best checkpoint, write it and the logits of every row."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import torch
import transformers

from probeline import versions
from probeline.data.store import Dataset, read_dataset
from probeline.files import write_json
from probeline.finetune.checkpoints import Checkpoints
from probeline.finetune.kind import REGULAR, Regular
from probeline.finetune.logits import logits_of
from probeline.finetune.metrics import multilabel_metrics
from probeline.finetune.options import ASIDE, Options, read_options
from probeline.finetune.output import write_output
from probeline.finetune.prepare import check_classes, check_machine, prepare
from probeline.finetune.record import Record
from probeline.finetune.resumable import kept_step, memory_errors, not_finite, train_to_end
from probeline.finetune.trainer import FineTuner, Job
from probeline.models.weights import files_hash
from probeline.probe.losses import sigmoid
from probeline.probe.task import task_data
from probeline.probe.threshold import PER_LABEL, label_thresholds
from probeline.results.predictions import write_predictions

log = logging.getLogger(__name__)


def finetune(
    dataset_folder: str | os.PathLike,
    task_name: str,
    model_name: str,
    model_spec: Mapping,
    out_folder: str | os.PathLike,
    predictions: str | os.PathLike,
    scores: str | os.PathLike,
    state_folder: str | os.PathLike,
    options: Mapping,
    seed: int,
    metric: str | None = None,
    kind: Regular = REGULAR,
    keep_state: bool = False,
) -> None:
    """Fine-tune a sequence classifier on the rows of a task and write it with its logits.

    Work goes on in `state_folder`; interrupted, the same call goes on at the last complete
    checkpoint and, on the same CPU with as many threads, yields the same weights.

    Parameters
    ----------
    dataset_folder : path
        A dataset written by the dataset stage, of single texts or pairs.
    task_name : str
    model_name, model_spec : str, mapping
        Name and content of an entry of `models:`.
    out_folder : path
        model.safetensors, config.json with the label names, the tokenizer, training.json and
        learning_curve.parquet; with LoRA `adapter/` too, and the first two only if merged.
    predictions : path
        Logits of all rows, for `read_predictions`.
    scores : path
        JSON: scores on validation and test, time, speed, parameters; of a multi-label task also
        `multilabel`, see `multilabel_metrics`; and what `kind` has measured, which goes before.
    options : mapping
        The section `finetune:`; see `Options`.
    seed : int
        Of the head, the adapters, dropout and the order of the rows.
    metric : str, optional
        Default: accuracy, or micro-F1 for a multi-label task.
    kind : Regular
        Which classifier is built; by default that of transformers.
    keep_state : bool
        Leave in `state_folder` what the same call needs to do all this again without training,
        for a caller whose results may yet be deleted.

    Raises
    ------
    ProbelineError
        If an option, the model or the dataset is not fit for it, a batch does not fit into the
        memory, or a loss is not finite.
    """
    began = time.perf_counter()
    chosen = read_options(options)
    check_machine(model_spec, chosen)
    dataset = read_dataset(dataset_folder)
    task = task_data(dataset, task_name, metric)
    check_classes(task, dataset)
    task.check_metric()
    job, tokens = prepare(dataset, task, model_name, model_spec, chosen, seed, kind)
    model = job.model
    settings = _settings(job, dataset, model_name) | kind.settings()
    checkpoints = Checkpoints(Path(state_folder), settings)
    record = train(job, checkpoints)
    with _memory_errors(job):
        passed = time.perf_counter()
        logits = logits_of(model, tokens, task.classes, job.precision, f"{job.name}: logits")
        passed = time.perf_counter() - passed
        measured = kind.measured(job, tokens)
    if not np.isfinite(logits).all():
        raise not_finite("the logits of some rows are", job)
    step, threshold = kept_step(record, chosen.keep)
    thresholds = np.full(task.classes, threshold, np.float32)
    if kind.thresholds == PER_LABEL:
        thresholds = label_thresholds(task, logits[task.rows["validation"]], threshold)
    if task.multilabel:
        measured["multilabel"] = {
            split: multilabel_metrics(task.y[split], logits[task.rows[split]], thresholds)
            for split in ("validation", "test")
        }
        kind.describe(model, sigmoid(thresholds).tolist())
        logits -= thresholds
    counts = parameter_counts(model.body)
    found = {
        "metric": task.metric,
        "validation_score": task.score("validation", logits[task.rows["validation"]]),
        "test_score": task.score("test", logits[task.rows["test"]]),
        "threshold": thresholds.tolist() if kind.thresholds == PER_LABEL else threshold,
        "step": step,
        "steps": record.history[-1]["step"],
        "stopped_early": record.stopped,
        "texts_truncated": int((tokens.before > model.max_length).sum()),
        "parameters_trained": counts[0],
        "parameters": counts[1],
        "train_seconds": record.seconds,
        "seconds_per_epoch": record.seconds / max(record.history[-1]["epoch"], 1e-9),
        "texts_per_second": dataset.rows / max(passed, 1e-9),
        "seed": seed,
        **measured,
    }
    write_output(out_folder, job, settings, record, found, checkpoints.folder, kind)
    described = {
        "model": model_name,
        "method": kind.method,
        "variant": kind.variant(chosen),
        "seed": seed,
    }
    write_predictions(predictions, dataset, task, logits, described, found["threshold"])
    write_json(scores, found | {"seconds": time.perf_counter() - began})
    checkpoints.reduce() if keep_state else checkpoints.remove()
    log.info(
        "%s: validation %.4f, test %.4f", job.name, found["validation_score"], found["test_score"]
    )


def train(
    job: Job,
    checkpoints: Checkpoints,
    trainer: Callable[[Job, Checkpoints, Record], FineTuner] = FineTuner,
) -> Record:
    """Train, or go on training, and leave in the model the weights that are kept."""
    with _memory_errors(job):
        return train_to_end(
            job, checkpoints, lambda record: trainer(job, checkpoints, record), job.model.body
        )


def parameter_counts(model: torch.nn.Module) -> tuple[int, int]:
    """Parameters that are trained, and all of them."""
    sizes = [(weight.requires_grad, _size(weight)) for weight in model.parameters()]
    return sum(size for trained, size in sizes if trained), sum(size for _, size in sizes)


def _size(weight: torch.nn.Parameter) -> int:
    # bitsandbytes keeps two weights of four bits in a byte.
    return weight.numel() * (2 if type(weight).__name__ == "Params4bit" else 1)


def _settings(job: Job, dataset: Dataset, model_name: str) -> dict:
    """Everything that decides the weights; JSON-like."""
    model = job.model
    packages = {"torch": str(torch.__version__), "transformers": transformers.__version__}
    if job.options.lora is not None:
        import peft

        packages["peft"] = peft.__version__
    return {
        "stage_version": versions.FINETUNE,
        "versions": packages,
        "model_name": model_name,
        "model": model.path,
        "revision": model.revision,
        "model_config": files_hash([model.source.folder / "config.json"]),
        "tokenizer_hash": model.tokenizer_hash,
        "max_length": model.max_length,
        "device": model.device.type,
        "precision": job.precision,
        "batch_tokens": model.batch_tokens,
        "dataset": dataset.name,
        "dataset_fingerprint": dataset.fingerprint,
        "pair": dataset.pair,
        "labels_fingerprint": dataset.manifest["labels_fingerprint"],
        "task": job.task.name,
        "metric": job.task.metric,
        "options": _deciding(job.options),
        "seed": job.seed,
        **model.own_code,
    }


def _deciding(options: Options) -> dict:
    """The options but for those that leave the weights of every step as they are."""
    found = options.plain()
    for key in ("keep", *ASIDE):
        del found[key]
    if found["lora"] is not None:
        del found["lora"]["merge"]
    return found


def _memory_errors(job: Job) -> AbstractContextManager:
    options = job.options
    advice = []
    if options.batch_size > 1:
        half = options.batch_size // 2
        double = 2 * options.gradient_accumulation
        advice.append(f"batch_size: {half} with gradient_accumulation: {double}")
    if not options.gradient_checkpointing:
        advice.append("gradient_checkpointing: true")
    advice.append(f"a max_length below {job.model.max_length}")
    return memory_errors(job, job.model.device, advice)
