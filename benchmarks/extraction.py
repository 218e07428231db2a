"""Extraction: against the bare forward pass, and how many bytes it writes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks import data, machine
from benchmarks.bench import Bench
from benchmarks.rows import Outcome
from benchmarks.timing import interleaved, medians, spread

_TEXTS = (1500, 6920)
_REPEATS = (3, 5)


@dataclass
class Extraction:
    """One extraction that can be timed again and again, and its parts.

    Parameters
    ----------
    bench : Bench
    folder : Path
        The dataset.
    spec, options : mapping
        An entry of `models:` and the section `extract:`, defaults filled in.
    """

    bench: Bench
    folder: Path
    spec: Mapping
    options: Mapping

    def __post_init__(self) -> None:
        from probeline.activations.extract import make_plan
        from probeline.data.store import read_texts
        from probeline.models.load import load_model

        self.model = load_model(self.spec)
        self.texts = read_texts(self.folder)
        self.plan = make_plan(self.model, self.options, self.texts.rows)
        self.batches = self._batches()

    def _batches(self) -> list:
        from probeline.activations.batching import padded, tokenize
        from probeline.activations.texts import blocks_of_texts

        found = []
        stream = blocks_of_texts(self.folder, self.texts.pair, self.plan.blocks)
        for start, _, texts, pairs in stream:
            found += padded(self.model, tokenize(self.model, texts, pairs, row=start))
        return found

    @property
    def tokens(self) -> int:
        """Tokens of all batches, padding included."""
        return sum(batch.inputs["input_ids"].numel() for batch in self.batches)

    @property
    def real_tokens(self) -> int:
        return sum(sum(batch.lengths) for batch in self.batches)

    @property
    def pooled_bytes(self) -> int:
        """Bytes of activations that pooling reads at least once."""
        values = sum(self.model.shape.width(representation) for representation, _ in self.plan.keys)
        return self.tokens * values * self.model.dtype.itemsize

    def load(self) -> None:
        """What an extraction does before its first text: read and identify the model."""
        from probeline.models.load import load_model

        _ = load_model(self.spec).revision

    def extract(self) -> float:
        """Extract into an empty folder; seconds, that of emptying it left out."""
        from probeline.activations.extract import extract

        out = data.emptied(self.bench.work / "extracted")
        state = data.emptied(self.bench.work / "extraction-state")
        began = time.perf_counter()
        extract(self.folder, "model", self.spec, self.options, out, state, seed=0)
        return time.perf_counter() - began

    def forward(self) -> None:
        """The bare forward pass over the same padded batches."""
        import torch

        with torch.inference_mode():
            for batch in self.batches:
                self.model.body(**batch.inputs)
        if self.model.device.type == "cuda":
            torch.cuda.synchronize()


def timed_texts(bench: Bench) -> Path:
    """The dataset that speed is measured on: one, for all rows."""

    def make() -> Path:
        return data.made_dataset(bench, data.some_texts(bench, bench.size(*_TEXTS)), "timed")

    return bench.once("timed texts", make)


def minilm(bench: Bench, **model) -> Extraction:
    """MiniLM over the timed texts, under the default configuration."""
    (name,) = data.available(bench, ["sst2"])
    config = data.config_of(bench, name, **model)
    spec, options = config.model_spec("minilm"), config.section("extract")
    return Extraction(bench, timed_texts(bench), spec, options)


def against_forward(bench: Bench) -> Outcome:
    """P1: extraction over the bare forward pass, the model's loading left out of both."""
    work = minilm(bench)
    found = overhead(work, bench.size(*_REPEATS))
    return Outcome(found.ratio, found.ratio <= 1.10, found.note, found.floor)


@dataclass(frozen=True)
class Overhead:
    """Extraction over forward pass."""

    ratio: float
    floor: float
    note: str
    forward: float


def overhead(work: Extraction, repeats: int) -> Overhead:
    """Time an extraction against its forward pass, after one round that warms up both."""
    sides = {"load": work.load, "extract": work.extract, "forward": work.forward}
    for side in sides.values():
        side()
    seconds = interleaved(sides, repeats)
    middle = medians(seconds)
    ratio = (middle["extract"] - middle["load"]) / middle["forward"]
    writing = work.plan.bytes / machine.disk_bandwidth(work.bench.work) / middle["forward"]
    floor, reading = 1.0, ""
    if work.model.device.type == "cpu":
        # The cores that pool are those that compute; the disk works beside them.
        pooling = work.pooled_bytes / machine.memory_bandwidth() / middle["forward"]
        floor += pooling
        reading = f" + {pooling:.2f} to read each activation once from memory"
    note = (
        f"{work.texts.rows:,} texts, {work.real_tokens:,} tokens, {work.model.dtype_name}: "
        f"forward {middle['forward']:.2f} s ({spread(seconds['forward'])}), extract "
        f"{middle['extract']:.2f} s ({spread(seconds['extract'])}) of which loading the model "
        f"{middle['load']:.2f} s is not counted; floor 1{reading}; writing "
        f"{work.plan.bytes / 1e6:.0f} MB would add {writing:.2f} if nothing overlapped; "
        f"{work.real_tokens / (middle['extract'] - middle['load']):,.0f} tokens/s"
    )
    return Overhead(ratio, floor, note, middle["forward"])


def shard_bytes(bench: Bench) -> Outcome:
    """P11: bytes on disk of the largest shard for its size, header and all."""
    from probeline.activations.shards import open_shard

    (name,) = data.available(bench, ["sst2"])
    prepared = data.prepare(bench, name)
    ratios = {}
    for path in prepared.shards:
        with open_shard(path) as shard:
            ratios[path] = path.stat().st_size / (2 * shard.width * shard.rows)
    worst = max(ratios, key=ratios.get)
    total = sum(path.stat().st_size for path in ratios)
    note = f"{len(ratios)} shards of {prepared.dataset.rows:,} texts, {total / 1e6:.0f} MB; "
    note += f"largest share for {worst.name}, mean {sum(ratios.values()) / len(ratios):.4f}"
    return Outcome(ratios[worst], ratios[worst] <= 1.03, note, 1.0)
