"""What only a GPU can show. Without one the rows say so and measure nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks import data, probes
from benchmarks.bench import Bench
from benchmarks.extraction import Extraction, overhead
from benchmarks.rows import Outcome, Part, combined
from benchmarks.timing import in_processes, interleaved, medians
from probeline.activations.names import parse_name
from probeline.config import validate

if TYPE_CHECKING:
    import torch

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
    parts, notes = [], [torch.cuda.get_device_name()]
    for name in data.available(bench, ["sst2", "banking77"]):
        found = against_processes(bench, data.prepare(bench, name), torch.device("cuda"))
        parts.append(Part(name, found.faster, 10.0, least=True))
        notes.append(f"{name}: {found.note}")
        torch.cuda.empty_cache()
    return combined(parts, notes)


@dataclass(frozen=True)
class Together:
    """How many times faster all probes are trained together, and the words."""

    faster: float
    note: str


def against_processes(bench: Bench, prepared: data.Prepared, device: torch.device) -> Together:
    """All probes of a dataset's shards on a device, against the CPU path in `threads` processes.

    Either side reads the shards in its time, and the processes start in theirs: seconds of minutes.
    """
    from probeline.probe.batched_stage import probe_together
    from probeline.probe.store import read_probe

    out = bench.folder("together")
    outputs = [out / shard.name for shard in prepared.shards]
    options, task = prepared.probe_options, prepared.task
    jobs = [(prepared.dataset_folder, prepared.metric, path, options) for path in prepared.shards]
    # The long ones first, so that no process is left alone with one of them.
    jobs.sort(key=lambda job: parse_name(job[2].name)[0] != "ffn")
    one_by_one: list[probes.Trained] = []
    place = (prepared.dataset_folder, "label", options, prepared.metric)

    def on_device() -> None:
        probe_together(prepared.shards, outputs, *place, device=device)

    def on_cpu() -> None:
        one_by_one[:] = in_processes(probes.train, jobs, bench.threads)

    # Libraries are loaded and the device is woken before the clock runs.
    probe_together(prepared.shards[:1], outputs[:1], *place, device=device)
    sides = {"together": on_device, "apart": on_cpu}
    seconds = medians(interleaved(sides, bench.size(*_REPEATS), once=["apart"]))
    trained = [read_probe(path)[0] for path in outputs]
    scores = [np.mean([probe.validation_score for probe in trained])]
    scores.append(np.mean([probe.score for probe in one_by_one]))
    apart, together = seconds["apart"], seconds["together"]
    note = (
        f"{len(task.rows['train']):,} texts, {task.classes} classes, {len(outputs)} shards; "
        f"{together:.2f} s, against {apart:.1f} s in {bench.threads} processes, reading included; "
        f"mean validation {task.metric} {scores[0]:.4f} against {scores[1]:.4f}; largest gap "
        f"{max(probe.step.gap for probe in trained):.0e}"
    )
    return Together(apart / together, note)


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
