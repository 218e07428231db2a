"""Aggregation: the grid of eta, depth and penalty, against the reference's brute force over it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import data, reference, scores
from benchmarks.bench import Bench
from benchmarks.machine import memory_bandwidth, multiplications
from benchmarks.rows import Outcome, Part, combined
from benchmarks.timing import by_size, in_processes, interleaved

_REPEATS = 2


@dataclass(frozen=True)
class Sample:
    """Points of the grid that the reference fits; None: all. The rest goes by their columns."""

    sources: tuple[tuple[str, str], ...] = (("ffn", "mean"), ("hidden", "mean"))
    etas: tuple[float, ...] | None = (0.1, 0.4, 0.8)
    depths: tuple[int, ...] | None = (2, 4, 6)
    penalties: tuple[float, ...] = reference.PENALTIES


_QUICK = {"sst2": Sample(), "bbc": Sample(etas=(0.1, 0.6), depths=(3, 6))}
_FFN = (("ffn", "mean"),)
_FULL = {
    "sst2": Sample(),
    "edos": Sample(_FFN, etas=(0.4, 0.8), depths=(4, 6)),
    # 77 classes one against the rest: minutes for each of these.
    "banking77": Sample(_FFN, etas=(0.1, 0.4), depths=(3, 6), penalties=(1.0, 10.0)),
    "bbc": Sample(),
}


@dataclass(frozen=True)
class Point:
    """A point of the grid for the reference: the neurons of eta and depth, one penalty."""

    source: tuple[str, str]
    eta: float
    depth: int
    columns: int


@dataclass(frozen=True)
class Fit:
    """The reference at a point: seconds, score and class codes on validation and test."""

    point: Point
    seconds: float
    score: float
    codes: np.ndarray


def against_brute_force(bench: Bench) -> Outcome:
    """P6: how many times faster the library searches the grids of several slugs."""
    parts, notes, conditions, floors = [], [], [], []
    for name in data.available(bench, bench.size(["sst2"], ["sst2", "edos", "banking77"])):
        sample = bench.size(_QUICK, _FULL)[name]
        faster, floor, fine, note = compare(bench, data.prepare(bench, name), sample)
        parts.append(Part(name, faster, 20.0, least=True))
        notes.append(f"{name}: {note}")
        conditions.append(fine)
        floors.append(floor)
    notes.append(f"seconds are those of {bench.threads} processes of one thread each, both sides")
    return combined(parts, notes, min(floors), conditions)


def compare(
    bench: Bench, prepared: data.Prepared, sample: Sample
) -> tuple[float, float, bool, str]:
    """Times faster and at most, whether the test score is kept, and the words."""
    tables = data.neuron_tables(bench, prepared, sample.sources)
    etas = prepared.config.section("sparsify")["etas"]
    grid = {source: points(table, source, etas) for source, table in tables.items()}
    timed = [
        point
        for of_source in grid.values()
        for point in of_source
        if (sample.etas is None or point.eta in sample.etas)
        and (sample.depths is None or point.depth in sample.depths)
    ]
    out, found = bench.folder(f"grids-{prepared.name}"), defaultdict(list)

    def ours() -> None:
        jobs = [(prepared, tables[source], source, etas, out) for source in tables]
        found["ours"].append(in_processes(search, jobs, bench.threads))

    def theirs() -> None:
        # The long ones first, so that no process is left alone with one of them.
        order = sorted(timed, key=lambda point: -point.columns)
        jobs = [(prepared, tables[p.source], p, C) for p in order for C in sample.penalties]
        found["reference"] += in_processes(fit_reference, jobs, bench.threads)

    interleaved({"ours": ours, "reference": theirs}, _REPEATS, once=["reference"])
    fits = found["reference"]
    each = [point.columns for of_source in grid.values() for point in of_source]
    wanted = each * len(reference.PENALTIES)
    if len(fits) == len(wanted):
        slow, words = sum(fit.seconds for fit in fits), "the whole grid"
    else:
        columns = [fit.point.columns for fit in fits]
        slow, error = by_size(columns, [fit.seconds for fit in fits], wanted)
        words = (
            f"the grid of {len(wanted):,} by a + b x columns from {len(fits)} fits of "
            f"{min(columns)} to {max(columns)} columns (the line is off by {error:.0%} at most)"
        )
    fast = float(np.median([sum(seconds) for seconds in found["ours"]]))
    fine, comparison = _scores(prepared, tables, etas, out, fits)
    least = _least(prepared, grid)
    note = (
        f"{', '.join('.'.join(source) for source in tables)}, {len(prepared.task.rows['train']):,} "
        f"texts; {fast / bench.threads:.1f} s against {slow / bench.threads:.0f} s for {words}; "
        f"{comparison}; one product of all columns with themselves would take {least:.2f} s"
    )
    return slow / fast, slow / bench.threads / least, fine, note


def points(table: Path, source: tuple[str, str], etas: Sequence[float]) -> list[Point]:
    """The grid's points that keep a neuron, one for each eta and depth."""
    from probeline.sparsify import read_neurons

    neurons = read_neurons(table)
    found = []
    for eta in etas:
        counts = {layer: len(kept) for layer, kept in kept_neurons(neurons, eta).items()}
        for depth in sorted(counts):
            columns = sum(count for layer, count in counts.items() if layer <= depth)
            if columns:
                found.append(Point(source, eta, int(depth), columns))
    return found


def kept_neurons(neurons: dict[str, np.ndarray], eta: float) -> dict[int, np.ndarray]:
    """The neurons of each layer that are kept at `eta`."""
    from probeline.sparsify import kept_count

    found = {}
    for layer in np.unique(neurons["layer"]).tolist():
        here = neurons["layer"] == layer
        count = kept_count(neurons["cumulative"][here], eta)
        found[layer] = neurons["neuron"][here][:count]
    return found


def search(
    prepared: data.Prepared, table: Path, source: tuple[str, str], etas: Sequence[float], out: Path
) -> float:
    """Run the library's stage on one slug; seconds, reading and writing included."""
    from probeline.aggregate.stage import aggregate

    slug = ".".join(source)
    place = prepared.of(*source), prepared.dataset_folder, "label", slug, out / f"{slug}.parquet"
    options = prepared.config.section("aggregate")
    began = time.perf_counter()
    aggregate([table], *place, etas, options, prepared.metric)
    return time.perf_counter() - began


def fit_reference(prepared: data.Prepared, table: Path, point: Point, C: float) -> Fit:
    """Fit one point as the reference does; reading the columns is not timed."""
    from probeline.activations.shards import open_shard
    from probeline.sparsify import read_neurons

    task, parts = prepared.task, []
    for layer, columns in kept_neurons(read_neurons(table), point.eta).items():
        if layer <= point.depth:
            with open_shard(prepared.shard(*point.source, layer)) as shard:
                parts.append(shard.read(columns=columns))
    values = np.concatenate(parts, axis=1)
    X = {split: values[rows] for split, rows in task.rows.items()}
    fitted = reference.fit(X, task.y, task.metric, C, reference.AGGREGATION)
    return Fit(point, fitted.seconds, fitted.score, fitted.predict(X["test"]))


def _scores(prepared, tables, etas, out: Path, fits: Sequence[Fit]) -> tuple[bool, str]:
    """Test scores of what validation chooses on either side."""
    from probeline.classifier.stage import build_classifier
    from probeline.probe.metrics import predict_codes
    from probeline.results.predictions import read_predictions

    slugs = {".".join(source): table for source, table in tables.items()}
    paths = {"selected": out / "selected.h5", "smallest": out / "smallest.h5"}
    build_classifier(
        grids={slug: out / f"{slug}.parquet" for slug in slugs},
        tables={slug: [table] for slug, table in slugs.items()},
        shards=prepared.shards,
        dataset_folder=prepared.dataset_folder,
        task_name="label",
        model_name="minilm",
        model_spec=prepared.config.model_spec("minilm"),
        out_folder=out / "classifier",
        predictions=paths,
        scores=out / "scores.json",
        etas=etas,
        options=prepared.config.section("aggregate"),
        metric=prepared.metric,
    )
    task = prepared.task
    mine = predict_codes(read_predictions(paths["selected"]).of("test"))
    best = max(fits, key=lambda fit: fit.score)
    labels = task.y["test"]
    interval = scores.difference(task.metric, labels, mine, best.codes, task.classes)
    reached = [reference.score(task.metric, labels, codes) for codes in (mine, best.codes)]
    words = (
        f"test {task.metric} {reached[0]:.4f} against {reached[1]:.4f}, difference "
        f"{scores.words(interval)}"
    )
    return scores.no_lower(interval), words


def _least(prepared: data.Prepared, grid: dict[tuple[str, str], list[Point]]) -> float:
    """Seconds for the Gram matrix of each slug's columns, or to read them once."""
    columns = [max(point.columns for point in of_source) for of_source in grid.values()]
    rows = len(prepared.task.rows["train"])
    multiplying = sum(2 * rows * count**2 for count in columns) / multiplications()
    return max(multiplying, sum(4 * rows * count for count in columns) / memory_bandwidth())
