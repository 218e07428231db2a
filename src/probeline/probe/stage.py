"""The probe stage: shards in, probes out, several layers in one job."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

import probeline
from probeline.activations.names import parse_name
from probeline.activations.shards import open_shard
from probeline.data.store import Dataset, read_dataset
from probeline.errors import ProbelineError
from probeline.probe.store import write_probe
from probeline.probe.task import TaskData, task_data
from probeline.probe.train import train_probe

log = logging.getLogger(__name__)


def probe_shards(
    shards: Sequence[str | os.PathLike],
    outputs: Sequence[str | os.PathLike],
    dataset_folder: str | os.PathLike,
    task_name: str,
    options: Mapping,
    metric: str | None = None,
) -> None:
    """Train one probe for each output.

    Parameters
    ----------
    shards : sequence of path
        Among them the shard of every output; the outputs' file names say which.
    outputs : sequence of path
        Named like the shards: representation.pooling.layer.h5.
    options : mapping
        The `probe` section of the configuration.
    """
    dataset = read_dataset(dataset_folder, texts=False)
    task = task_data(dataset, task_name, metric)
    by_name = {Path(shard).name: shard for shard in shards}
    for output in outputs:
        shard = by_name.get(Path(output).name)
        if shard is None:
            raise ProbelineError(f"{output}: there is no shard of this name among the inputs")
        _probe_one(shard, output, dataset, task, options)


def _probe_one(shard_path, output, dataset: Dataset, task: TaskData, options: Mapping) -> None:
    started = time.perf_counter()
    representation, pooling, layer = parse_name(Path(output).name)
    X, meta = read_rows(shard_path, dataset, task)
    probe = train_probe(X, task, options)
    seconds = time.perf_counter() - started
    step = probe.step
    write_probe(
        output,
        probe,
        {
            "dataset": dataset.name,
            "dataset_fingerprint": dataset.fingerprint,
            "task": task.name,
            "labels": list(task.labels),
            "multilabel": task.multilabel,
            "metric": task.metric,
            "model": meta["model"],
            "representation": representation,
            "pooling": pooling,
            "layer": layer,
            "seconds": seconds,
            "version": probeline.__version__,
        },
    )
    log.info(
        "%s.%s layer %d: validation %s %.4f, test %.4f, %d of %d neurons, C %.3g, gap %.1e%s, "
        "%.1f s",
        representation,
        pooling,
        layer,
        task.metric,
        probe.validation_score,
        probe.test_score,
        step.neurons,
        len(probe.coefficients),
        step.C,
        step.gap,
        "" if step.converged else " (not converged)",
        seconds,
    )


def read_rows(
    path: str | os.PathLike, dataset: Dataset, task: TaskData
) -> tuple[dict[str, np.ndarray], dict]:
    """Read a shard's activations of the task's rows: ({split: float32 (n, width)}, attributes)."""
    with open_shard(path, {"dataset_fingerprint": dataset.fingerprint}) as shard:
        X = {}
        for split, rows in task.rows.items():
            part = shard.read(rows=dataset.split(split))
            start = dataset.split(split).start
            X[split] = part if len(rows) == len(part) else part[rows - start]
        return X, shard.meta
