"""What only a GPU can show. Without one the rows say so and measure nothing."""

from __future__ import annotations

from pathlib import Path

from benchmarks import data
from benchmarks.bench import Bench
from benchmarks.extraction import Extraction, overhead
from benchmarks.rows import Outcome, Part, combined
from probeline.config import validate

_REPEATS = (3, 5)
# How often the 2,225 articles of BBC News are repeated.
_COPIES = (1, 4)
_LENGTH = 256
_VOCABULARY = 30522


def extraction(bench: Bench) -> Outcome:
    """P12: extraction over the bare forward pass, both in bfloat16 on the GPU."""
    import torch

    if not torch.cuda.is_available():
        return Outcome(None, None, "no CUDA device here")
    texts = articles(bench)
    folder = data.made_dataset(bench, texts * bench.size(*_COPIES), "articles")
    parts, notes, floors = [], [torch.cuda.get_device_name()], []
    for name, config in models().items():
        model = save(config, bench.folder(name))
        found = overhead(work(bench, folder, model, "cuda", "bfloat16"), bench.size(*_REPEATS))
        parts.append(Part(name, found.ratio, 1.10))
        notes.append(f"{name}: {found.note}")
        floors.append(found.floor)
        torch.cuda.empty_cache()
    return combined(parts, notes, min(floors))


def batched_probes(bench: Bench) -> Outcome:
    """P13: the probes of all layers, representations and poolings as one problem."""
    import torch

    if not torch.cuda.is_available():
        return Outcome(None, None, "no CUDA device here")
    return Outcome(None, None, "the library trains every probe on the CPU, one by one")


def models() -> dict:
    """Configurations of a base-size encoder and a base-size decoder."""
    from transformers import BertConfig, GPT2Config

    return {
        "BERT-base": BertConfig(vocab_size=_VOCABULARY),
        "GPT-2": GPT2Config(vocab_size=_VOCABULARY, bos_token_id=101, eos_token_id=102),
    }


def save(config, folder: Path) -> Path:
    """Save a model of this configuration with random weights."""
    import torch
    from transformers import AutoModel

    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    return folder


def work(bench: Bench, folder: Path, model: Path, device: str, dtype: str) -> Extraction:
    """An extraction with the default poolings, the tokenizer being MiniLM's."""
    entry = {
        "path": str(model),
        "tokenizer": data.MODEL["path"],
        "max_length": _LENGTH,
        "device": device,
        "dtype": dtype,
    }
    datasets = {"articles": data.DATASETS["bbc"]}
    config = validate({"models": {"random": entry}, "datasets": datasets})
    spec, options = config.model_spec("random"), config.section("extract")
    return Extraction(bench, folder, spec, options)


def articles(bench: Bench) -> list[str]:
    """The articles of BBC News, all of them."""
    from probeline.data.store import build_dataset, read_dataset

    spec = data.config_of(bench, "bbc").dataset_spec("bbc") | {"max_texts": None}
    folder = bench.folder("bbc")
    build_dataset("bbc", spec, folder, seed=0)
    return read_dataset(folder).texts
