"""How cost grows: `python -m benchmarks.cost` measures the cost model's laws at two sizes each.

A law says by what factor seconds, memory or bytes grow when one size grows fourfold; here is what
they do. Layers and poolings need no law of their own for probes: each has a problem of its own.
"""

from __future__ import annotations

import os
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.bench import Bench, cores, limit_threads
from benchmarks.timing import interleaved, medians
from probeline.activations.names import POOLINGS

_FACTOR = 4
_TEXTS = 500
_BLOCKS = 3
_WIDTH = 192
_REPEATS = 3
# A law holds that predicts to a quarter.
_NEAR = 1.25


@dataclass(frozen=True)
class Law:
    """One quantity at two sizes: the factor by which it should grow, and by which it does."""

    what: str
    sizes: str
    predicted: float
    small: float
    large: float

    @property
    def measured(self) -> float:
        return self.large / self.small

    @property
    def verdict(self) -> str:
        """Whether the law holds to a quarter, or where it errs."""
        share = self.measured / self.predicted
        return "less" if share < 1 / _NEAR else "more" if share > _NEAR else "as predicted"


def laws(bench: Bench) -> Iterator[Law]:
    """Every law, measured."""
    yield from extraction_laws(bench)
    yield from probe_laws(bench)
    yield from aggregation_laws(bench)


def extraction_laws(bench: Bench) -> Iterator[Law]:
    """Seconds and bytes of an extraction over texts, blocks and width (random BERT models)."""
    from benchmarks import data

    folders = {
        count: data.made_dataset(bench, data.some_texts(bench, count), "texts")
        for count in (_TEXTS, _FACTOR * _TEXTS)
    }
    few, many = folders.values()
    base = _bert(bench, few, _BLOCKS, _WIDTH)
    pairs = {
        f"{_TEXTS:,} -> {_FACTOR * _TEXTS:,} texts": (base, replace(base, folder=many), 4, 4),
        f"{_BLOCKS} -> {_FACTOR * _BLOCKS} blocks": (
            base,
            _bert(bench, few, _FACTOR * _BLOCKS, _WIDTH),
            _FACTOR,
            # Hidden states have one layer more: the embeddings.
            (5 * _FACTOR * _BLOCKS + 1) / (5 * _BLOCKS + 1),
        ),
        f"{_WIDTH} -> {_FACTOR * _WIDTH} wide": (
            base,
            _bert(bench, few, _BLOCKS, _FACTOR * _WIDTH),
            _FACTOR**2,
            _FACTOR,
        ),
        "1 -> 4 poolings": (_pooled(base, "mean"), _pooled(base, *POOLINGS), 1, _FACTOR),
    }
    for sizes, (small, large, time_factor, byte_factor) in pairs.items():
        seconds = _in_turn(lambda w=small: _net(w), lambda w=large: _net(w))
        yield Law("extraction, seconds", sizes, time_factor, *seconds)
        written = [sum(f.stat().st_size for f in _shards(work)) for work in (small, large)]
        yield Law("extraction, bytes on disk", sizes, byte_factor, *written)


def _bert(bench: Bench, folder: Path, blocks: int, width: int):
    from transformers import BertConfig

    from benchmarks import gpu

    shape = {"num_hidden_layers": blocks, "hidden_size": width, "intermediate_size": 4 * width}
    config = BertConfig(vocab_size=30522, num_attention_heads=width // 32, **shape)
    model = gpu.save(config, bench.folder(f"bert-{blocks}-{width}"))
    return gpu.work(bench, folder, model, "cpu", "float32")


def _pooled(work, *poolings: str):
    return replace(work, options=work.options | {"poolings": list(poolings)})


def _net(work) -> float:
    """Seconds of an extraction without the model's loading."""
    began = time.perf_counter()
    work.load()
    loading = time.perf_counter() - began
    return work.extract() - loading


def _shards(work) -> list[Path]:
    work.extract()
    return list((work.bench.work / "extracted").glob("*.h5"))


def probe_laws(bench: Bench) -> Iterator[Law]:
    """Seconds and memory of one probe over texts, neurons and classes."""
    from benchmarks import data

    (name,) = data.available(bench, ["sst2"])
    prepared = data.prepare(bench, name)
    middle = prepared.layers // 2
    ffn, task, options = _problem(prepared, "ffn", middle)
    hidden, *_ = _problem(prepared, "hidden", middle)
    part = _share(ffn, task, 1 / _FACTOR)
    pairs = {
        _sizes(part[0], ffn, "texts", 0): (part, (ffn, task), _FACTOR),
        _sizes(hidden, ffn, "neurons", 1): ((hidden, task), (ffn, task), _FACTOR),
    }
    if "banking77" in data.available(bench, ["banking77"]):
        prepared = data.prepare(bench, "banking77")
        X, task, _ = _problem(prepared, "ffn", middle)
        some = _first_classes(X, task, task.classes // _FACTOR)
        sizes = f"{some[1].classes} -> {task.classes} classes of 20 texts"
        pairs[sizes] = some, (X, task), _FACTOR**2
    for sizes, (small, large, factor) in pairs.items():
        seconds = _in_turn(*(lambda p=p: _train(*p, options) for p in (small, large)))
        yield Law("probe, seconds", sizes, factor, *seconds)
        memory = [_peak(lambda p=p: _train(*p, options)) for p in (small, large)]
        # n p numbers, whatever the classes.
        of_features = large[0]["train"].nbytes / small[0]["train"].nbytes
        yield Law("probe, memory", sizes, of_features, *memory)


def aggregation_laws(bench: Bench) -> Iterator[Law]:
    """Seconds and memory of the grid of one slug over texts, candidate neurons and classes."""
    from benchmarks import data

    (name,) = data.available(bench, ["sst2"])
    neurons, values, task, run = _grid(bench, name)
    fewer = neurons.take(np.arange(len(neurons))[::_FACTOR])
    part = replace(task, **_fewer_rows(task, 1 / _FACTOR))
    whole = run(neurons, values, task)
    pairs = {
        f"{len(part.rows['train']):,} -> {len(task.rows['train']):,} texts": (
            run(neurons, values, part),
            _FACTOR,
        ),
        f"{len(fewer):,} -> {len(neurons):,} candidate neurons": (
            run(fewer, values[:, ::_FACTOR], task),
            _FACTOR,
        ),
    }
    for sizes, (small, factor) in pairs.items():
        yield Law("aggregation, seconds", sizes, factor, *_in_turn(small, whole))
        yield Law("aggregation, memory", sizes, factor, _peak(small), _peak(whole))
    if "banking77" in data.available(bench, ["banking77"]):
        neurons, values, task, run = _grid(bench, "banking77")
        # The same neurons and texts: of each class's neighbours, which count as one class then.
        few = replace(
            task,
            labels=task.labels[: task.classes // _FACTOR],
            y={split: y // _FACTOR % (task.classes // _FACTOR) for split, y in task.y.items()},
        )
        sides = run(neurons, values, few), run(neurons, values, task)
        sizes = f"{few.classes} -> {task.classes} classes of the same texts"
        yield Law("aggregation, seconds", sizes, _FACTOR, *_in_turn(*sides))


def _grid(bench: Bench, name: str):
    """Candidate neurons of a dataset, their activations, its task, and what searches the grid."""
    from benchmarks import data
    from probeline.aggregate.grid import prepare, search
    from probeline.aggregate.neurons import candidates, read_activations

    prepared = data.prepare(bench, name)
    source = ("ffn", "mean")
    table = data.neuron_tables(bench, prepared, [source])[source]
    etas = prepared.config.section("sparsify")["etas"]
    options = prepared.config.section("aggregate")
    neurons, dataset = candidates([table], etas), prepared.dataset
    shards = {(*source, layer): prepared.shard(*source, layer) for layer in set(neurons.layer)}
    values = read_activations(neurons, shards, dataset.fingerprint, dataset.rows)

    def run(kept, activations, of) -> Callable[[], None]:
        return lambda: search(prepare(kept, activations, of), of, etas, options)

    return neurons, values, prepared.task, run


def _problem(prepared, representation: str, layer: int):
    from probeline.probe.stage import read_rows

    shard = prepared.shard(representation, "mean", layer)
    X, _ = read_rows(shard, prepared.dataset, prepared.task)
    return X, prepared.task, prepared.probe_options


def _train(X, task, options) -> None:
    from probeline.probe.train import train_probe

    train_probe(X, task, options)


def _fewer_rows(task, share: float) -> dict:
    """Rows and labels of a task with a share of its training rows."""
    kept = slice(0, int(share * len(task.rows["train"])))
    rows = task.rows | {"train": task.rows["train"][kept]}
    return {"rows": rows, "y": task.y | {"train": task.y["train"][kept]}}


def _share(X, task, share: float):
    few = replace(task, **_fewer_rows(task, share))
    return X | {"train": X["train"][: len(few.rows["train"])]}, few


def _first_classes(X, task, count: int):
    """The problem of the first classes alone."""
    kept = {split: np.flatnonzero(y < count) for split, y in task.y.items()}
    few = replace(
        task,
        labels=task.labels[:count],
        rows={split: task.rows[split][kept[split]] for split in kept},
        y={split: task.y[split][kept[split]] for split in kept},
    )
    return {split: X[split][kept[split]] for split in kept}, few


def _sizes(small, large, unit: str, axis: int) -> str:
    return f"{small['train'].shape[axis]:,} -> {large['train'].shape[axis]:,} {unit}"


def _in_turn(small: Callable, large: Callable) -> list[float]:
    for side in (small, large):
        side()
    return list(medians(interleaved({"small": small, "large": large}, _REPEATS)).values())


def _peak(work: Callable[[], object]) -> int:
    """Bytes that `work` holds at its peak beyond what was held before."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        work()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def main(
    data_root: Annotated[Path | None, typer.Option(help="As for `python -m benchmarks`.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Default: all cores.")] = None,
) -> None:
    """Print every law with what it predicts and what was measured."""
    threads = threads or cores()
    limit_threads(threads)
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch

    from benchmarks import data
    from benchmarks.__main__ import quiet

    quiet()
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory(prefix="probeline-cost-") as work:
        bench = Bench(True, threads, Path(work), data.root_from(data_root))
        for law in laws(bench):
            typer.echo(
                f"{law.what:26} {law.sizes:42} x {law.predicted:<5.3g} measured x "
                f"{law.measured:.3g} ({law.small:.4g} -> {law.large:.4g}), {law.verdict}"
            )


if __name__ == "__main__":
    typer.run(main)
