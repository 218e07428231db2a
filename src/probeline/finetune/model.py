"""A sequence classifier on a pretrained body: loading it, its head, its padding and precision."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from probeline.errors import ProbelineError
from probeline.finetune.lora import quantization
from probeline.finetune.options import Options
from probeline.models.families import Family
from probeline.models.load import (
    LoadedModel,
    load_model,
    load_tokenizer,
    no_extras,
    quiet,
    reason,
)
from probeline.models.reference import ModelSource
from probeline.probe.task import TaskData

logger = logging.getLogger(__name__)

SINGLE, MULTI = "single_label_classification", "multi_label_classification"


def resolve_precision(setting: str, device: torch.device, section: str = "finetune") -> str:
    """Turn "auto" into "bf16", "fp16" or "no"; `section` of the config is named in errors.

    Raises
    ------
    ProbelineError
        If the device cannot train in what was asked for.
    """
    if setting == "auto":
        if device.type != "cuda":
            return "no"
        return "bf16" if torch.cuda.is_bf16_supported(False) else "fp16"
    if setting == "fp16" and device.type != "cuda":
        raise ProbelineError(
            f"{section}.mixed_precision: fp16 needs CUDA, the device is {device.type}; use auto"
        )
    return setting


def load_classifier(spec: Mapping, task: TaskData, options: Options) -> LoadedModel:
    """Load the model that `spec` names with a fresh classification head for `task`.

    The last linear map of the head is always new, also where the checkpoint has one of the same
    shape: its outputs would stand for other labels. Weights are float32, whatever the checkpoint
    and `spec["dtype"]` say, but for the 4-bit body of a quantised model.

    Returns
    -------
    LoadedModel
        Its `body` is the classifier; its tokenizer pads on the right with a token of its own.

    Raises
    ------
    ProbelineError
        As `load_model`; or if transformers has no classifier for the architecture, or the
        tokenizer has neither a padding nor an end token.
    """

    def loader(spec, source, family, weights, dtype, decoder) -> torch.nn.Module:
        return _load(spec, source, family, weights, task, options)

    model = load_model({**spec, "dtype": "float32"}, loader=loader)
    _prepare_tokenizer(model)
    if options.gradient_checkpointing:
        checkpoint_activations(model)
    return replace(model, pad_id=model.tokenizer.pad_token_id)


def _load(
    spec: Mapping,
    source: ModelSource,
    family: Family,
    weights: list[Path],
    task: TaskData,
    options: Options,
) -> torch.nn.Module:
    import transformers

    path, trusted = spec["path"], bool(spec.get("trust_remote_code"))
    auto = transformers.AutoModelForSequenceClassification
    nf4 = options.lora is not None and options.lora.quantize is not None
    extra = quantization(options) if nf4 else {}
    try:
        with quiet():
            config = transformers.AutoConfig.from_pretrained(
                source.folder, local_files_only=True, trust_remote_code=trusted
            )
            if not trusted and type(config) not in auto._model_mapping:
                raise ProbelineError(
                    f"{path}: transformers has no sequence classifier for model_type "
                    f"{config.model_type}; fine-tune another model"
                )
            _describe(config, task, _padding(spec, source))
            model, info = auto.from_pretrained(
                source.folder,
                config=config,
                dtype=torch.float32,
                use_safetensors=weights[0].suffix != ".bin",
                weights_only=True,
                local_files_only=True,
                trust_remote_code=trusted,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **extra,
            )
    except ProbelineError:
        raise
    except Exception as error:  # damaged weights, shapes that do not fit, foreign code
        raise ProbelineError(f"{path}: the classifier cannot be loaded: {reason(error)}") from error
    _body_is_whole(model, info, path)
    _new_head(model)
    return model


def _describe(config, task: TaskData, pad_id: int) -> None:
    """Tell the configuration of a classifier its labels and padding."""
    no_extras(config)
    config.id2label = dict(enumerate(task.labels))
    config.label2id = {label: code for code, label in enumerate(task.labels)}
    config.problem_type = MULTI if task.multilabel else SINGLE
    # Decoders read the last token that is not this one: it must be what batches are padded with.
    config.pad_token_id = pad_id


def _padding(spec: Mapping, source: ModelSource) -> int:
    """The id that will be padded with: the tokenizer's, before the model is there."""
    tokenizer, _ = load_tokenizer(spec, source)
    for found in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if found is not None:
            return int(found)
    raise ProbelineError(
        f"{spec['path']}: its tokenizer has neither a padding token nor an end token, so texts "
        "cannot be put into batches; set `tokenizer:` to one that has"
    )


def _prepare_tokenizer(model: LoadedModel) -> None:
    """Make the tokenizer do alone, in any pipeline, what training does."""
    tokenizer = model.tokenizer
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.model_max_length = model.max_length
    names = ["input_ids", "attention_mask"]
    if model.family.token_types and getattr(model.body.config, "type_vocab_size", 0) > 1:
        names.insert(1, "token_type_ids")
    # Decoders count positions from the left; and some would add the embedding of word 0 or 1 for a
    # segment id. A tokenizer writes down only what it was made with.
    for name, value in (("padding_side", "right"), ("model_input_names", names)):
        setattr(tokenizer, name, value)
        tokenizer.init_kwargs[name] = value


def body_prefix(model: torch.nn.Module) -> str:
    """Path of the body inside a classifier; "" where it has none of its own."""
    prefix = getattr(model, "base_model_prefix", "")
    return prefix if prefix and hasattr(model, prefix) else ""


def _in_body(name: str, prefix: str) -> bool:
    # The pooler of BERT and its kin lies in the body, but is of the head: language models lack it.
    return name.startswith(f"{prefix}.") and ".pooler." not in name


def _body_is_whole(model: torch.nn.Module, info: Mapping, path: str) -> None:
    prefix = body_prefix(model)
    missing = [name for name in info["missing_keys"] if _in_body(name, prefix)]
    # Each mismatch is a name with the two shapes.
    missing += [found[0] for found in info["mismatched_keys"] if _in_body(found[0], prefix)]
    if missing:
        shown = ", ".join(sorted(missing)[:3]) + (", ..." if len(missing) > 3 else "")
        raise ProbelineError(
            f"{path}: {len(missing)} weights of the model's body are missing from its files or of "
            f"another shape ({shown}); expected a checkpoint that has all of them"
        )


def head_modules(model: torch.nn.Module) -> list[str]:
    """Names of the children with weights that are not the body, in order."""
    prefix = body_prefix(model)
    return [
        name
        for name, child in model.named_children()
        if name != prefix and any(True for _ in child.parameters())
    ]


def _new_head(model: torch.nn.Module) -> None:
    """Draw the last linear map anew."""
    last = None
    for name in head_modules(model):
        for module in model.get_submodule(name).modules():
            last = module if isinstance(module, torch.nn.Linear) else last
    if last is None:
        return
    deviation = getattr(model.config, "initializer_range", None) or 0.02
    with torch.no_grad():
        last.weight.normal_(0.0, deviation)
        if last.bias is not None:
            last.bias.zero_()


def checkpoint_activations(model: LoadedModel) -> None:
    """Let activations be computed again in the backward pass.

    Raises
    ------
    ProbelineError
        If the classifier cannot do it.
    """
    kind, body = {"use_reentrant": False}, model.body
    try:
        if hasattr(body, "activation_checkpointing_enable"):
            body.activation_checkpointing_enable(activation_checkpointing_kwargs=kind)
        else:
            body.gradient_checkpointing_enable(gradient_checkpointing_kwargs=kind)
    except ValueError:
        raise ProbelineError(
            f"{model.path}: {type(body).__name__} cannot checkpoint activations; set "
            "finetune.gradient_checkpointing to false"
        ) from None
