"""Scores of every layer's probe in one table, and the predictions of the best and the last one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from probeline.activations.names import parse_name
from probeline.data.store import read_dataset
from probeline.files import replacing
from probeline.probe.store import read_probe
from probeline.probe.task import task_data
from probeline.results.predictions import shard_logits, write_predictions


def compare_layers(
    probes: Sequence[str | os.PathLike],
    shards: Sequence[str | os.PathLike],
    dataset_folder: str | os.PathLike,
    task_name: str,
    model_name: str,
    table: str | os.PathLike,
    predictions: Mapping[str, str | os.PathLike],
    metric: str | None = None,
) -> None:
    """Write the table of all probes and the predictions of two of them.

    `probe` is the best single layer by validation; `last-layer` the best pooling of the last
    layer's hidden state (of its FFN activation where hidden states were not probed).

    Parameters
    ----------
    probes, shards : sequence of path
        Same file names in both.
    table : path
        Parquet: representation, pooling, layer, validation_score, test_score, log_loss, C,
        neurons, width, gap, converged, seconds, best, last.
    predictions : mapping of 'probe' and 'last-layer' to path
    """
    rows = sorted(map(_row, probes), key=lambda r: (r["representation"], r["pooling"], r["layer"]))
    best = min(rows, key=_rank)
    last = last_layer(rows)
    for row in rows:
        row["best"], row["last"] = row is best, row is last
    paths = [row.pop("path") for row in rows]
    with replacing(table) as temporary:
        pq.write_table(pa.Table.from_pylist(rows), temporary)
    dataset = read_dataset(dataset_folder, texts=False)
    task = task_data(dataset, task_name, metric)
    by_name = {Path(shard).name: shard for shard in shards}
    for method, row in (("probe", best), ("last-layer", last)):
        path = next(p for p, r in zip(paths, rows, strict=True) if r is row)
        probe, _ = read_probe(path)
        logits = shard_logits(by_name[Path(path).name], dataset, probe.logits)
        variant = f"{row['representation']}.{row['pooling']}.{row['layer']}"
        meta = {"model": model_name, "method": method, "variant": variant}
        write_predictions(predictions[method], dataset, task, logits, meta, probe.step.threshold)


def last_layer(rows: Sequence[Mapping]) -> Mapping:
    """The row of the last layer: hidden state before FFN, then the best by validation."""
    hidden = [row for row in rows if row["representation"] == "hidden"] or list(rows)
    top = max(row["layer"] for row in hidden)
    return min((row for row in hidden if row["layer"] == top), key=_rank)


def _rank(row: Mapping) -> tuple:
    return (-row["validation_score"], row["log_loss"], row["layer"])


def _row(path: str | os.PathLike) -> dict:
    probe, meta = read_probe(path)
    representation, pooling, layer = parse_name(Path(path).name)
    return {
        "path": path,
        "representation": representation,
        "pooling": pooling,
        "layer": layer,
        "validation_score": probe.validation_score,
        "test_score": probe.test_score,
        "log_loss": probe.step.log_loss,
        "C": probe.step.C,
        "neurons": probe.step.neurons,
        "width": len(probe.coefficients),
        "gap": probe.step.gap,
        "converged": probe.step.converged,
        "seconds": meta["seconds"],
    }
