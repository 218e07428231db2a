"""The fine-tuning stage: train, keep the best checkpoint, write it and the logits of every row."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import transformers

from probeline import versions
from probeline.activations.batching import Tokens
from probeline.data.store import Dataset, read_dataset
from probeline.errors import ProbelineError
from probeline.files import write_json
from probeline.finetune.batches import TrainRows, some_of, tokenize_dataset
from probeline.finetune.checkpoints import Checkpoints
from probeline.finetune.kind import REGULAR, Regular
from probeline.finetune.logits import logits_of
from probeline.finetune.lora import add_adapters, check_packages
from probeline.finetune.loss import classification_loss
from probeline.finetune.metrics import multilabel_metrics
from probeline.finetune.model import body_prefix, head_modules, resolve_precision
from probeline.finetune.options import Options, read_options
from probeline.finetune.output import write_output
from probeline.finetune.record import Record
from probeline.finetune.resumable import kept_step, memory_errors, not_finite, train_to_end
from probeline.finetune.trainer import FineTuner, Job, check_reports
from probeline.models.devices import resolve_device
from probeline.models.load import LoadedModel
from probeline.models.weights import files_hash
from probeline.probe.losses import sigmoid
from probeline.probe.task import TaskData, task_data
from probeline.probe.threshold import FIXED, PER_LABEL, label_thresholds
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
        `multilabel`, see `multilabel_metrics`.
    options : mapping
        The section `finetune:`; see `Options`.
    seed : int
        Of the head, the adapters, dropout and the order of the rows.
    metric : str, optional
        Default: accuracy, or micro-F1 for a multi-label task.
    kind : Regular
        Which classifier is built; by default that of transformers.

    Raises
    ------
    ProbelineError
        If an option, the model or the dataset is not fit for it, a batch does not fit into the
        memory, or a loss is not finite.
    """
    began = time.perf_counter()
    chosen = read_options(options)
    device = resolve_device(model_spec.get("device") or "auto")
    check_packages(chosen, device)
    check_reports(chosen.report_to)
    precision = resolve_precision(chosen.mixed_precision, device)
    dataset = read_dataset(dataset_folder)
    task = task_data(dataset, task_name, metric)
    _check_classes(task, dataset)
    task.check_metric()
    transformers.set_seed(seed)
    model = kind.load(model_spec, task, chosen, seed)
    if chosen.lora is not None:
        model = _with_adapters(model, chosen)
    tokens = tokenize_dataset(model, dataset)
    if model.body.config.is_encoder_decoder:
        _check_ends(model, tokens)
    codes = torch.float32 if task.multilabel else torch.int64
    job = Job(
        name=f"{model_name} on {dataset.name}/{task_name}",
        model=model,
        task=task,
        train=TrainRows(
            some_of(tokens, task.rows["train"]),
            torch.as_tensor(task.y["train"], dtype=codes),
            model.pad_id,
        ),
        validation=some_of(tokens, task.rows["validation"]),
        loss=classification_loss(task, chosen.class_weight, chosen.label_smoothing),
        options=chosen,
        precision=precision,
        seed=seed,
        fixed=kind.thresholds == FIXED,
    )
    settings = _settings(job, dataset, model_name) | kind.settings()
    checkpoints = Checkpoints(Path(state_folder), settings)
    record = train(job, checkpoints)
    with _memory_errors(job):
        passed = time.perf_counter()
        logits = logits_of(model, tokens, task.classes, precision, f"{job.name}: logits")
        passed = time.perf_counter() - passed
        measured = kind.measured(job)
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
        "texts_per_second": dataset.rows / max(passed, 1e-9),
        "seed": seed,
        **measured,
    }
    write_output(out_folder, job, settings, record, found, checkpoints.folder)
    described = {
        "model": model_name,
        "method": kind.method,
        "variant": kind.variant(chosen),
        "seed": seed,
        "threshold": found["threshold"],
    }
    write_predictions(predictions, dataset, task, logits, described)
    write_json(scores, found | {"seconds": time.perf_counter() - began})
    checkpoints.remove()
    log.info(
        "%s: validation %.4f, test %.4f", job.name, found["validation_score"], found["test_score"]
    )


def train(job: Job, checkpoints: Checkpoints) -> Record:
    """Train, or go on training, and leave in the model the weights that are kept."""
    with _memory_errors(job):
        return train_to_end(
            job, checkpoints, lambda record: FineTuner(job, checkpoints, record), job.model.body
        )


def parameter_counts(model: torch.nn.Module) -> tuple[int, int]:
    """Parameters that are trained, and all of them."""
    sizes = [(weight.requires_grad, weight.numel()) for weight in model.parameters()]
    return sum(size for trained, size in sizes if trained), sum(size for _, size in sizes)


def _with_adapters(model: LoadedModel, options: Options) -> LoadedModel:
    body, path = model.body, model.path
    adapted = add_adapters(body, options, body_prefix(body), head_modules(body), path)
    return replace(model, body=adapted)


def _check_classes(task: TaskData, dataset: Dataset) -> None:
    y = task.y["train"]
    if task.multilabel:
        if y.any() and not y.all():
            return
        found = "every label of every text" if y.any() else "no label at all"
    else:
        codes = np.unique(y)
        if len(codes) > 1:
            return
        found = f"only the class '{task.labels[codes[0]]}'"
    raise ProbelineError(
        f"dataset {dataset.name}: the train rows of task '{task.name}' have {found}, so there is "
        "nothing to learn; expected two classes or more"
    )


def _check_ends(model: LoadedModel, tokens: Tokens) -> None:
    """Refuse texts with more end tokens than others: at the last of them T5's classifier reads."""
    end = model.body.config.eos_token_id
    counts = np.array([np.count_nonzero(text == end) for text in tokens.ids])
    if counts.max() > counts.min():
        raise ProbelineError(
            f"{model.path}: the text in row {counts.argmax()} holds the model's end token, "
            f"{model.tokenizer.eos_token}, which its classifier does not allow; remove it there"
        )


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
    }


def _deciding(options: Options) -> dict:
    """The options but for those that leave the weights of every step as they are."""
    found = options.plain()
    for key in ("keep", "checkpoint_minutes", "report_to"):
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
