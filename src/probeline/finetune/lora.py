"""Low-rank adapters on a frozen classifier, and merging them into it."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

import torch

from probeline.errors import ProbelineError, nearest
from probeline.files import read_json, replacing_folder
from probeline.finetune.folder import TRAINING, readable
from probeline.finetune.options import ALL_LINEAR, Options
from probeline.models.load import quiet, reason

ADAPTER = "adapter"
ADAPTER_WEIGHTS, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
# Heads and poolers, which are trained and so cannot be in 4 bits. A pattern stands for a name from
# its first letter on, or for its end; BERT's pooler is `bert.pooler.dense`.
WHOLE_MODULES = ("classifier", "score", "classification_head", "head", ".*pooler")


def check_packages(options: Options, device: torch.device) -> None:
    """Say what is missing before anything is loaded.

    Raises
    ------
    ProbelineError
        If a package is not installed, or 4-bit weights are asked for without CUDA.
    """
    needed = {"accelerate": "fine-tuning"}
    if options.lora is not None:
        needed["peft"] = "finetune.lora"
        if options.lora.quantize is not None:
            if device.type != "cuda":
                raise ProbelineError(
                    f"finetune.lora.quantize: {options.lora.quantize} needs a CUDA device, and "
                    f"the device is {device.type}; set quantize to null"
                )
            needed["bitsandbytes"] = "finetune.lora.quantize"
    for package, user in needed.items():
        if importlib.util.find_spec(package) is None:
            raise ProbelineError(f"{user} needs the package {package}; run: pip install {package}")


def quantization(options: Options) -> dict:
    """Arguments of `from_pretrained` that keep a frozen body in 4 bits."""
    from transformers import BitsAndBytesConfig

    bf16 = torch.cuda.is_bf16_supported(False)
    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=options.lora.quantize,
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16 if bf16 else torch.float16,
            llm_int8_skip_modules=list(WHOLE_MODULES),
        ),
        "device_map": {"": torch.cuda.current_device()},
    }


def add_adapters(
    model: torch.nn.Module, options: Options, prefix: str, head: list[str], path: str
) -> torch.nn.Module:
    """Freeze a classifier but for its head and add adapters to linear maps of its body.

    Parameters
    ----------
    model : torch.nn.Module
        The classifier.
    prefix : str
        Where its body is.
    head : list of str
        Children that are trained whole.
    path : str
        The model as the user wrote it.

    Raises
    ------
    ProbelineError
        If a target is the name of no linear map of the body.
    """
    import peft

    lora = options.lora
    maps = linear_maps(model, prefix)
    targets = maps if lora.targets == ALL_LINEAR else _chosen(maps, lora.targets, path)
    if lora.quantize is not None:
        # Checkpointing is switched on with the model, not twice.
        model = peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    # peft adds these two itself.
    trained = [name for name in head if name not in ("classifier", "score")]
    if any(".pooler." in name for name, _ in model.named_modules()):
        trained.append("pooler")
    transposed = type(model.get_submodule(targets[0])).__name__ == "Conv1D"
    config = peft.LoraConfig(
        fan_in_fan_out=transposed,
        task_type=peft.TaskType.SEQ_CLS,
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        modules_to_save=trained,
    )
    try:
        with quiet():
            return peft.get_peft_model(model, config)
    except (ValueError, NotImplementedError) as error:
        raise ProbelineError(f"{path}: adapters cannot be added: {reason(error)}") from error


def linear_maps(model: torch.nn.Module, prefix: str) -> list[str]:
    """Full names of the linear maps of the body that may get an adapter; the pooler has none."""
    from transformers.pytorch_utils import Conv1D

    return [
        name
        for name, module in model.named_modules()
        if name.startswith(f"{prefix}.")
        and ".pooler" not in name
        and (isinstance(module, torch.nn.Linear | Conv1D) or type(module).__name__ == "Linear4bit")
    ]


def _chosen(maps: list[str], targets: tuple[str, ...], path: str) -> list[str]:
    for target in targets:
        if not any(_ends(name, target) for name in maps):
            known = list(dict.fromkeys(name.rpartition(".")[2] for name in maps))
            raise ProbelineError(
                f"finetune.lora.targets: '{target}' is no linear map of {path}, which has "
                f"{', '.join(known)}{nearest(target, known)}; or use {ALL_LINEAR}"
            )
    return [name for name in maps if any(_ends(name, target) for target in targets)]


def _ends(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def merge_adapter(folder: str | os.PathLike, out: str | os.PathLike) -> None:
    """Merge an adapter into its base model and write that as a model of its own.

    Parameters
    ----------
    folder : path
        What fine-tuning wrote (its adapter lies in `adapter/`), or the adapter's own folder.
    out : path
        Written whole or not at all, in place of a folder that is there: model.safetensors
        (float32), config.json and the tokenizer; with the training.json beside the adapter, where
        there is one, it is a classifier for `probeline.load`.

    Raises
    ------
    ProbelineError
        If there is no adapter, its base model is not where it was, or `out` holds the adapter.
    """
    folder = Path(folder)
    folder = folder if (folder / ADAPTER_CONFIG).is_file() else folder / ADAPTER
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise ProbelineError(f"{folder}: no adapter there; expected {ADAPTER_WEIGHTS}")
    if folder.resolve().is_relative_to(Path(out).resolve()):
        raise ProbelineError(
            f"{out}: would be replaced, and holds the adapter {folder}; give another folder"
        )
    training = folder.parent / TRAINING
    with quiet(), replacing_folder(out) as temporary:
        model = load_adapter(folder).merge_and_unload()
        model.save_pretrained(temporary)
        _tokenizer(folder).save_pretrained(temporary)
        if folder.name == ADAPTER and training.is_file():
            shutil.copyfile(training, temporary / TRAINING)
        readable(temporary, temporary / "config.json")


def load_adapter(folder: Path) -> torch.nn.Module:
    """The classifier with its adapter, float32, in evaluation mode: a `peft.PeftModel`."""
    import peft
    import transformers

    base = read_json(folder / ADAPTER_CONFIG).get("base_model_name_or_path")
    try:
        with quiet():
            config = transformers.AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            model = transformers.AutoModelForSequenceClassification.from_pretrained(
                base,
                config=config,
                dtype=torch.float32,
                weights_only=True,
                local_files_only=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,
            )
            return peft.PeftModel.from_pretrained(model, folder).eval()
    except Exception as error:  # a base that moved, an adapter of another model
        raise ProbelineError(
            f"{folder}: its base model '{base}' cannot be loaded with it: {reason(error)}"
        ) from error


def _tokenizer(folder: Path):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
