"""The probe stage on a GPU: all shards of a model in, their probes out, in one job."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from probeline.activations.shards import open_shard
from probeline.data.store import Dataset, read_dataset
from probeline.errors import ProbelineError
from probeline.models.devices import resolve_device
from probeline.probe.batched_train import batches, train_together
from probeline.probe.stage import keep_probe, read_split, shards_of
from probeline.probe.task import TaskData, task_data

log = logging.getLogger(__name__)

# The share of a GPU's free memory that a batch may take, and what it may take elsewhere, in bytes.
_SHARE = 0.8
_ELSEWHERE = 4 << 30


class StoredRows(Mapping):
    """A shard's activations of the task's rows by split, read when they are asked for.

    Parameters
    ----------
    path : path
        Of the shard.

    Attributes
    ----------
    model : str
    width : int
    """

    def __init__(self, path: str | os.PathLike, dataset: Dataset, task: TaskData):
        self._path, self._dataset, self._task = Path(path), dataset, task
        with self._open() as shard:
            self.model, self.width = shard.meta["model"], shard.width

    def _open(self):
        return open_shard(self._path, {"dataset_fingerprint": self._dataset.fingerprint})

    def __getitem__(self, split: str) -> np.ndarray:
        with self._open() as shard:
            return read_split(shard, self._dataset, self._task, split)

    def __iter__(self):
        return iter(self._task.rows)

    def __len__(self) -> int:
        return len(self._task.rows)


def cuda_device() -> torch.device:
    """The GPU.

    Raises
    ------
    ProbelineError
        If torch finds none, or was not built for it.
    """
    if not torch.cuda.is_available():
        raise ProbelineError(
            "probe.device: cuda is not available on this machine (torch finds no CUDA device); "
            "set probe.device: cpu, or run where there is a GPU"
        )
    return resolve_device("cuda")


def probe_together(
    shards: Sequence[str | os.PathLike],
    outputs: Sequence[str | os.PathLike],
    dataset_folder: str | os.PathLike,
    task_name: str,
    options: Mapping,
    metric: str | None = None,
    *,
    device: torch.device,
    memory: int | None = None,
) -> None:
    """Train one probe for each output: `probeline.probe.stage.probe_shards` in batches on a device.

    Parameters
    ----------
    shards, outputs, dataset_folder, task_name, options, metric
        As for `probe_shards`.
    memory : int, optional
        Bytes that a batch may take of the device. Default: most of what is free on a GPU, 4 GiB
        elsewhere.
    """
    dataset = read_dataset(dataset_folder, texts=False)
    task = task_data(dataset, task_name, metric)
    rows = [StoredRows(shard, dataset, task) for shard in shards_of(outputs, shards)]
    if memory is None:
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
        memory = _ELSEWHERE if free is None else int(_SHARE * free)
    for places in batches([each.width for each in rows], task, memory):
        started = time.perf_counter()
        probes = train_together([rows[i] for i in places], task, options, device)
        seconds = time.perf_counter() - started
        log.info("%d probes on %s together in %.1f s", len(places), device, seconds)
        for i, probe in zip(places, probes, strict=True):
            keep_probe(
                outputs[i],
                probe,
                dataset,
                task,
                model=rows[i].model,
                device=device.type,
                seconds=seconds / len(places),
            )
        if device.type == "cuda":
            # The next batch is of another shape.
            torch.cuda.empty_cache()
