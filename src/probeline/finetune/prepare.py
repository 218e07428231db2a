"""What fine-tuning needs before its first step: a fit machine, the model, tokenized texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
import transformers

from probeline.activations.batching import Tokens
from probeline.data.store import Dataset
from probeline.errors import ProbelineError
from probeline.finetune.batches import TrainRows, some_of, tokenize_dataset
from probeline.finetune.kind import REGULAR, Regular
from probeline.finetune.lora import add_adapters, check_packages
from probeline.finetune.loss import classification_loss
from probeline.finetune.model import body_prefix, head_modules, resolve_precision
from probeline.finetune.options import Options
from probeline.finetune.trainer import Job, check_reports
from probeline.models.devices import resolve_device
from probeline.models.load import LoadedModel
from probeline.probe.task import TaskData
from probeline.probe.threshold import FIXED


def check_machine(model_spec: Mapping, options: Options) -> None:
    """Say what is missing before anything is loaded.

    Raises
    ------
    ProbelineError
        If there is no such device, it cannot do what the options ask, or a package is missing.
    """
    device = resolve_device(model_spec.get("device") or "auto")
    check_packages(options, device)
    check_reports(options.report_to)
    resolve_precision(options.mixed_precision, device)


def check_classes(task: TaskData, dataset: Dataset) -> None:
    """Refuse a task of whose train rows nothing can be learnt.

    Raises
    ------
    ProbelineError
        If they have one class alone, or no label or all labels throughout.
    """
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


def prepare(
    dataset: Dataset,
    task: TaskData,
    model_name: str,
    model_spec: Mapping,
    options: Options,
    seed: int,
    kind: Regular = REGULAR,
) -> tuple[Job, Tokens]:
    """Load the model and tokenize the texts.

    Parameters
    ----------
    kind : Regular
        Which classifier is built; by default that of transformers.

    Returns
    -------
    Job
    Tokens
        Of every row of the dataset.

    Raises
    ------
    ProbelineError
        If the model or a text is not fit for it.
    """
    transformers.set_seed(seed)
    model = kind.load(model_spec, task, options, seed)
    if options.lora is not None:
        model = _with_adapters(model, options)
    tokens = kind.told(tokenize_dataset(model, dataset), dataset, task)
    if model.body.config.is_encoder_decoder:
        _check_ends(model, tokens)
    codes = torch.float32 if task.multilabel else torch.int64
    job = Job(
        name=f"{model_name} on {dataset.name}/{task.name}",
        model=model,
        task=task,
        train=TrainRows(
            kind.taught(some_of(tokens, task.rows["train"]), task),
            torch.as_tensor(task.y["train"], dtype=codes),
            model.pad_id,
        ),
        validation=some_of(tokens, task.rows["validation"]),
        loss=classification_loss(task, options.class_weight, options.label_smoothing),
        options=options,
        precision=resolve_precision(options.mixed_precision, model.device),
        seed=seed,
        fixed=kind.thresholds == FIXED,
    )
    return job, tokens


def _with_adapters(model: LoadedModel, options: Options) -> LoadedModel:
    body, path = model.body, model.path
    adapted = add_adapters(body, options, body_prefix(body), head_modules(body), path)
    return replace(model, body=adapted)


def _check_ends(model: LoadedModel, tokens: Tokens) -> None:
    """Refuse texts with more end tokens than others: at the last of them T5's classifier reads."""
    end = model.body.config.eos_token_id
    counts = np.array([np.count_nonzero(text == end) for text in tokens.ids])
    if counts.max() > counts.min():
        raise ProbelineError(
            f"{model.path}: the text in row {counts.argmax()} holds the model's end token, "
            f"{model.tokenizer.eos_token}, which its classifier does not allow; remove it there"
        )
