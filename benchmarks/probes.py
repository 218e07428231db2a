"""Probes: the whole path with the choice on validation, against the reference recipe."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import data, reference, scores
from benchmarks.bench import Bench
from benchmarks.machine import memory_bandwidth, multiplications
from benchmarks.rows import Outcome, Part, combined
from benchmarks.timing import by_count, in_processes, interleaved
from probeline.activations.names import parse_name

Cell = tuple[str, str, int]


@dataclass(frozen=True)
class Sample:
    """What is timed of a dataset; the rest is extrapolated by the count of cells.

    Attributes
    ----------
    poolings : tuple of str
        None: every pooling.
    layers : tuple of str
        Among 'first', 'middle' and 'last'; None: every layer.
    ffn_penalties : tuple of float
        Penalties at which the reference fits FFN cells, which are four times as wide as hidden
        ones.
    """

    poolings: tuple[str, ...] | None
    layers: tuple[str, ...] | None
    ffn_penalties: tuple[float, ...] = reference.PENALTIES


_QUICK = {
    "sst2": Sample(("max", "mean"), ("middle",)),
    "banking77": Sample(("mean",), ("middle",), ffn_penalties=(10.0,)),
    "bbc": Sample(("mean",), ("middle",)),
}
_FULL = {
    "sst2": Sample(None, None),
    # All of it takes the reference hours.
    "banking77": Sample(("mean",), ("first", "middle", "last")),
    "bbc": Sample(("mean",), None),
}
_REPEATS = 2


@dataclass(frozen=True)
class Trained:
    """One fit: its seconds, validation score, class codes there and on test, share of non-zero
    weights.

    `bytes` and `operations` are the least that a path of as many penalties can do: one product with
    the features and one with their transpose for each.
    """

    cell: Cell
    seconds: float
    score: float
    codes: np.ndarray
    test: np.ndarray
    nonzero: float
    gap: float = 0.0
    bytes: int = 0
    operations: int = 0


def against_reference(bench: Bench) -> Outcome:
    """P4: how many times faster the library trains the probes of every cell."""
    parts, notes, conditions, floors = [], [], [], []
    for name in data.available(bench, ["sst2", "banking77"]):
        sample = bench.size(_QUICK, _FULL)[name]
        compared = compare(data.prepare(bench, name), sample, bench.threads)
        parts.append(Part(name, compared.faster, 20.0, least=True))
        notes.append(f"{name}: {compared.note}")
        conditions.append(compared.fine)
        floors.append(compared.floor)
    notes.append(f"seconds are those of {bench.threads} processes of one thread each, both sides")
    return combined(parts, notes, min(floors), conditions)


@dataclass(frozen=True)
class Compared:
    """One dataset: times faster and at most, whether score and sparsity are kept, the words."""

    faster: float
    floor: float
    fine: bool
    note: str


def compare(prepared: data.Prepared, sample: Sample, processes: int) -> Compared:
    """Time both sides on the same cells in turn: ours, reference, ours."""
    cells = [path for path in prepared.shards if _is_sampled(path, sample, prepared.layers)]
    # The long ones first, so that no process is left alone with one of them.
    cells.sort(key=lambda path: (parse_name(path.name)[0] != "ffn", path.name))
    place = (prepared.dataset_folder, prepared.metric)
    fits = [
        (*place, path, C)
        for path in cells
        for C in (sample.ffn_penalties if _kind(path) == "ffn" else reference.PENALTIES)
    ]
    found: dict[str, list[list[Trained]]] = defaultdict(list)

    def ours() -> None:
        jobs = [(*place, path, prepared.probe_options) for path in cells]
        found["ours"].append(in_processes(train, jobs, processes))

    def theirs() -> None:
        found["reference"].append(in_processes(fit_reference, fits, processes))

    interleaved({"ours": ours, "reference": theirs}, _REPEATS, once=["reference"])
    return _compared(prepared, found["ours"], found["reference"][0], processes)


def _compared(
    prepared: data.Prepared,
    rounds: Sequence[Sequence[Trained]],
    fits: Sequence[Trained],
    processes: int,
) -> Compared:
    counts = Counter(_kind(path) for path in prepared.shards)
    theirs, reference_fits = defaultdict(list), defaultdict(list)
    for fit in fits:
        theirs[fit.cell[0]].append(fit.seconds)
        reference_fits[fit.cell].append(fit)
    penalties = len(reference.PENALTIES)
    slow = by_count(theirs, {kind: count * penalties for kind, count in counts.items()})
    totals = []
    for trained in rounds:
        ours = defaultdict(list)
        for probe in trained:
            ours[probe.cell[0]].append(probe.seconds)
        totals.append(by_count(ours, counts))
    fast = float(np.median(totals))
    least = _least(rounds[0]) * fast / sum(probe.seconds for probe in rounds[0])
    # Scores are compared where the reference has tried every penalty.
    whole = {cell: fits for cell, fits in reference_fits.items() if len(fits) == penalties}
    best_reference = {cell: max(fits, key=lambda fit: fit.score) for cell, fits in whole.items()}
    best_ours = {probe.cell: probe for probe in rounds[0]}
    mine = max((best_ours[cell] for cell in whole), key=lambda probe: probe.score)
    other = max(best_reference.values(), key=lambda fit: fit.score)
    task = prepared.task
    interval = scores.difference(
        task.metric, task.y["validation"], mine.codes, other.codes, task.classes
    )
    # The recipe has many more states to choose the best of, which is partly luck there.
    unseen = scores.difference(task.metric, task.y["test"], mine.test, other.test, task.classes)
    sparse = max(probe.nonzero for probe in rounds[0])
    complete = len(fits) == len(prepared.shards) * penalties
    note = (
        f"{len(task.rows['train']):,} texts, {task.classes} classes, {len(rounds[0])} of "
        f"{len(prepared.shards)} cells and {len(fits)} reference fits timed"
        + (", " if complete else f"; all {sum(counts.values())} cells by their count: ")
        + f"{fast / processes:.1f} s against {slow / processes:.0f} s; validation "
        f"{task.metric} {mine.score:.4f} against {other.score:.4f}, difference "
        f"{scores.words(interval)}, on test {scores.words(unseen)}; mean over cells "
        f"{_mean(best_ours, whole):.4f} against {_mean(best_reference, whole):.4f}; "
        f"weights not zero: at most {sparse:.0%} against "
        f"{min(fit.nonzero for fit in best_reference.values()):.0%} at least; largest gap "
        f"{max(probe.gap for probe in rounds[0]):.0e}; one reading of the features and their "
        f"products per penalty would take {least:.2f} s"
    )
    fine = scores.no_lower(interval) and sparse <= 0.5
    return Compared(slow / fast, slow / processes / least, fine, note)


def _least(trained: Sequence[Trained]) -> float:
    """Seconds that the bytes or the operations of these paths take at the machine's best."""
    reading = sum(probe.bytes for probe in trained) / memory_bandwidth()
    return max(reading, sum(probe.operations for probe in trained) / multiplications())


def _mean(found: Mapping[Cell, Trained], cells: Mapping) -> float:
    return float(np.mean([found[cell].score for cell in cells]))


def _kind(path: Path) -> str:
    return parse_name(path.name)[0]


def _is_sampled(path: Path, sample: Sample, depth: int) -> bool:
    _, pooling, layer = parse_name(path.name)
    named = {"first": 1, "middle": depth // 2, "last": depth}
    layers = None if sample.layers is None else {named[name] for name in sample.layers}
    return (sample.poolings is None or pooling in sample.poolings) and (
        layers is None or layer in layers
    )


def train(folder: Path, metric: str, path: Path, options: Mapping) -> Trained:
    """Train one of the library's probes; reading the shard is not timed."""
    from probeline.probe.metrics import predict_codes
    from probeline.probe.train import train_probe

    X, task = read(folder, metric, path)
    began = time.perf_counter()
    probe = train_probe(X, task, options)
    seconds = time.perf_counter() - began
    codes = predict_codes(probe.logits(X["validation"]))
    nonzero = float(np.count_nonzero(probe.coefficients) / probe.coefficients.size)
    products = 2 * len(probe.steps)
    return Trained(
        cell=parse_name(path.name),
        seconds=seconds,
        score=probe.validation_score,
        codes=codes,
        test=predict_codes(probe.logits(X["test"])),
        nonzero=nonzero,
        gap=probe.step.gap,
        bytes=products * X["train"].nbytes,
        operations=2 * products * X["train"].size * probe.coefficients.shape[1],
    )


def fit_reference(folder: Path, metric: str, path: Path, C: float) -> Trained:
    """Fit the reference at one penalty; reading the shard is not timed."""
    X, task = read(folder, metric, path)
    fitted = reference.fit(X, task.y, task.metric, C, reference.PROBE)
    codes, test = (fitted.predict(X[split]) for split in ("validation", "test"))
    return Trained(parse_name(path.name), fitted.seconds, fitted.score, codes, test, fitted.nonzero)


def read(folder: Path, metric: str | None, path: Path) -> tuple[dict, object]:
    """A shard's activations by split, and the task."""
    from probeline.data.store import read_dataset
    from probeline.probe.stage import read_rows
    from probeline.probe.task import task_data

    dataset = read_dataset(folder, texts=False)
    task = task_data(dataset, "label", metric)
    return read_rows(path, dataset, task)[0], task
