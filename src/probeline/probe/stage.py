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
from probeline.activations.shards import Shard, open_shard
from probeline.data.store import Dataset, read_dataset
from probeline.errors import ProbelineError
from probeline.probe.store import write_probe
from probeline.probe.task import TaskData, task_data
from probeline.probe.train import Probe, train_probe

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
        The `probe` section of the configuration. With `device` cuda all probes of one width are
        trained together, see `probeline.probe.batched_stage`.
    """
    if options.get("device", "cpu") == "cuda":
        # Here, so that a probe on the CPU does not wait for torch.
        from probeline.probe.batched_stage import cuda_device, probe_together

        device = cuda_device()
        probe_together(shards, outputs, dataset_folder, task_name, options, metric, device=device)
        return
    dataset = read_dataset(dataset_folder, texts=False)
    task = task_data(dataset, task_name, metric)
    for shard, output in zip(shards_of(outputs, shards), outputs, strict=True):
        _probe_one(shard, output, dataset, task, options)


def shards_of(
    outputs: Sequence[str | os.PathLike], shards: Sequence[str | os.PathLike]
) -> list[str | os.PathLike]:
    """The shard of each output, by its file name.

    Raises
    ------
    ProbelineError
        If one is missing.
    """
    by_name = {Path(shard).name: shard for shard in shards}
    for output in outputs:
        if Path(output).name not in by_name:
            raise ProbelineError(f"{output}: there is no shard of this name among the inputs")
    return [by_name[Path(output).name] for output in outputs]


def _probe_one(shard_path, output, dataset: Dataset, task: TaskData, options: Mapping) -> None:
    started = time.perf_counter()
    X, meta = read_rows(shard_path, dataset, task)
    probe = train_probe(X, task, options)
    seconds = time.perf_counter() - started
    keep_probe(output, probe, dataset, task, model=meta["model"], device="cpu", seconds=seconds)


def keep_probe(
    output: str | os.PathLike,
    probe: Probe,
    dataset: Dataset,
    task: TaskData,
    *,
    model: str,
    device: str,
    seconds: float,
) -> None:
    """Write a probe with what it is about, and log how it did.

    Parameters
    ----------
    device : {"cpu", "cuda"}
        Where it was trained.
    seconds : float
        What its training took, reading included; its share of what all took that were trained
        together.
    """
    representation, pooling, layer = parse_name(Path(output).name)
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
            "model": model,
            "representation": representation,
            "pooling": pooling,
            "layer": layer,
            "device": device,
            "seconds": seconds,
            "version": probeline.__version__,
        },
    )
    log.info(
        "%s.%s layer %d: validation %s %.4f, test %.4f, %d of %d neurons, %.0f %% of the "
        "weights, C %.3g, gap %.1e%s, %.1f s",
        representation,
        pooling,
        layer,
        task.metric,
        probe.validation_score,
        probe.test_score,
        step.neurons,
        len(probe.coefficients),
        100 * step.nonzero / probe.coefficients.size,
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
        X = {split: read_split(shard, dataset, task, split) for split in task.rows}
        return X, shard.meta


def read_split(shard: Shard, dataset: Dataset, task: TaskData, split: str) -> np.ndarray:
    """Read a shard's activations of the task's rows of one split: float32 (n, width)."""
    place, rows = dataset.split(split), task.rows[split]
    part = shard.read(rows=place)
    return part if len(rows) == len(part) else part[rows - place.start]
