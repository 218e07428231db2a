"""Extraction against sentence-transformers, which returns the last layer only; and bfloat16."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from benchmarks import data
from benchmarks.bench import Bench
from benchmarks.extraction import Extraction, minilm
from benchmarks.rows import Outcome, Part, combined
from benchmarks.timing import interleaved, medians, spread
from probeline.data.store import read_dataset

_REPEATS = (2, 5)
_POINTS = 0.003
# The settings of the sentence-embedding baseline.
_BASELINE = {
    "l1_ratio": 0.0,
    "max_density": 1.0,
    "standardize": False,
    "tolerance": 1e-4,
    "max_iterations": 300,
}


def against_encode(bench: Bench) -> Outcome:
    """P2: extraction, loading left out, over `SentenceTransformer.encode` of the same texts."""
    works = {"float32": minilm(bench)}
    if _has_bfloat16():
        works["bfloat16"] = minilm(bench, dtype="bfloat16")
    texts = read_dataset(works["float32"].folder).texts
    # In a process of its own: what our library asks of the C library would hasten it too.
    start = (_start_encoder, (works["float32"].folder, bench.threads))
    with ProcessPoolExecutor(1, get_context("spawn"), *start) as other:
        seconds = _time(works, lambda: other.submit(_encode).result(), bench)
    middle = medians(seconds)
    limits = {"float32": 1.0, "bfloat16": 0.6}
    parts = [
        Part(name, (middle[name] - middle[f"load {name}"]) / middle["encode"], limits[name])
        for name in works
    ]
    floor = middle["forward"] / middle["encode"]
    notes = [f"{len(texts):,} texts: encode {middle['encode']:.2f} s ({spread(seconds['encode'])})"]
    notes += [f"floor: the bare forward pass of our batches, {middle['forward']:.2f} s"]
    if "bfloat16" not in works:
        notes.append("this CPU has no bfloat16")
        return combined(parts, notes, floor)
    words, kept = _scores(bench)
    return combined(parts, [*notes, words], floor, [kept])


_encoder: dict = {}


def _start_encoder(folder: Path, threads: int) -> None:
    import torch
    from sentence_transformers import SentenceTransformer

    from probeline.models.reference import resolve

    torch.set_num_threads(threads)
    encoder = SentenceTransformer(str(resolve(data.MODEL["path"]).folder), device="cpu")
    encoder.max_seq_length = data.MODEL["max_length"]
    _encoder.update(encoder=encoder, texts=read_dataset(folder).texts)


def _encode() -> None:
    _encoder["encoder"].encode(_encoder["texts"], show_progress_bar=False)


def _has_bfloat16() -> bool:
    import torch

    from probeline.models.devices import resolve_dtype

    return resolve_dtype("auto", torch.device("cpu")) == torch.bfloat16


def _time(works: dict[str, Extraction], encode, bench: Bench) -> dict[str, list[float]]:
    sides = {"encode": encode, "forward": works["float32"].forward}
    for name, work in works.items():
        sides |= {f"load {name}": work.load, name: work.extract}
    for side in sides.values():
        side()
    return interleaved(sides, bench.size(*_REPEATS))


def _scores(bench: Bench) -> tuple[str, bool]:
    """Test scores of the sentence embedding and of one probe, on shards of either number type."""
    (name,) = data.available(bench, ["sst2"])
    found = {}
    for dtype in ("float32", "bfloat16"):
        change = {} if dtype == "float32" else {"dtype": dtype}
        # The float32 shards are those that other rows use.
        poolings = ("max", "mean") if bench.quick or change else None
        found[dtype] = _tested(data.prepare(bench, name, poolings, **change))
    words, kept = [], True
    for method, (codes, labels) in found["float32"].items():
        other = found["bfloat16"][method][0]
        change = (other == labels).mean() - (codes == labels).mean()
        kept = kept and abs(change) <= _POINTS
        words.append(
            f"{method} {100 * (codes == labels).mean():.2f} -> {100 * (other == labels).mean():.2f}"
            f" ({100 * (codes != other).mean():.1f} % of {labels.size:,} predictions change)"
        )
    return f"test accuracy in bfloat16: {', '.join(words)}", bool(kept)


def _tested(prepared: data.Prepared) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Predicted codes, a row per probe, and labels of the test split, by method.

    One probe's score moves by a point when a few training values move in their last digits, as
    another penalty is chosen; what bfloat16 costs is seen over the probes of all layers.
    """
    from probeline.baselines.sentence_embedding import normalized
    from probeline.probe.metrics import predict_codes
    from probeline.probe.stage import read_rows
    from probeline.probe.train import train_probe

    task, options = prepared.task, prepared.probe_options
    penalties = prepared.config.section("sentence_embedding")["penalties"]
    baseline = options | _BASELINE | {"penalties": penalties}
    every = range(1, prepared.layers + 1)
    jobs = {
        "sentence embedding": ("hidden", [prepared.layers], baseline),
        "FFN probes of all layers": ("ffn", every, options),
        "hidden-state probes": ("hidden", every, options),
    }
    found = {}
    for method, (representation, layers, settings) in jobs.items():
        codes = []
        for layer in layers:
            shard = prepared.shard(representation, "mean", layer)
            X, _ = read_rows(shard, prepared.dataset, task)
            if settings is baseline:
                X = {split: normalized(values) for split, values in X.items()}
            probe = train_probe(X, task, settings)
            codes.append(predict_codes(probe.logits(X["test"])))
        labels = np.broadcast_to(task.y["test"], (len(codes), len(task.y["test"])))
        found[method] = np.stack(codes), labels
    return found
