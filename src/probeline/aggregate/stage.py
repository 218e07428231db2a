"""The aggregate stage: neuron tables and shards of one or several (representation, pooling) in,
the scored grid out."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from probeline.activations.names import parse_name
from probeline.aggregate.grid import Candidate, Columns, choose, prepare, search
from probeline.aggregate.head import Head, fit_head
from probeline.aggregate.neurons import Neurons, candidates, read_activations
from probeline.data.store import Dataset, read_dataset
from probeline.errors import ProbelineError
from probeline.files import replacing
from probeline.probe.path import Step
from probeline.probe.task import TaskData, task_data

log = logging.getLogger(__name__)


def aggregate(
    tables: Sequence[str | os.PathLike],
    shards: Sequence[str | os.PathLike],
    dataset_folder: str | os.PathLike,
    task_name: str,
    slug: str,
    out: str | os.PathLike,
    etas: Sequence[float],
    options: Mapping,
    metric: str | None = None,
) -> None:
    """Search the grid of one slug and write it as Parquet: a row per point, with its test score
    for the one point that validation chose and null elsewhere.

    Parameters
    ----------
    tables, shards : sequence of path
        Neuron tables, and the shards of their layers.
    slug : str
        'representation.pooling', or a combination's name.
    options : mapping
        The `aggregate` section of the configuration.
    """
    started = time.perf_counter()
    dataset = read_dataset(dataset_folder, texts=False)
    task = task_data(dataset, task_name, metric)
    etas = sorted(etas)
    columns, activations = load_columns(tables, shards, dataset, task, etas)
    found = search(columns, task, etas, options)
    chosen = choose(found, "best", 0.0)
    head = fit_head(columns, task, chosen, etas, options)
    test = task.score("test", head.logits(select(activations, head)[task.rows["test"]]))
    seconds = time.perf_counter() - started
    write_grid(out, found, chosen, head, test, {"slug": slug, "seconds": seconds})
    log.info(
        "%s: %d points over %d neurons; chosen eta %g, depth %d, %d neurons: validation %s %.4f, "
        "test %.4f, %.1f s",
        slug,
        len(found),
        len(columns.neurons),
        chosen.eta,
        chosen.depth,
        len(head.neurons),
        task.metric,
        head.step.score,
        test,
        seconds,
    )


class Activations:
    """Raw activations of candidate neurons, found again by what they are.

    Attributes
    ----------
    neurons : Neurons
    values : ndarray of float32, shape (rows, p)
    """

    def __init__(self, neurons: Neurons, values: np.ndarray):
        self.neurons, self.values = neurons, values
        self._index = {key: i for i, key in enumerate(_keys(neurons))}

    def of(self, neurons: Neurons) -> np.ndarray:
        """Activations (rows, m) of some of the neurons, in their order."""
        return self.values[:, [self._index[key] for key in _keys(neurons)]]


def _keys(neurons: Neurons) -> list[tuple]:
    return list(
        zip(
            neurons.representation.tolist(),
            neurons.pooling.tolist(),
            neurons.layer.tolist(),
            neurons.neuron.tolist(),
            strict=True,
        )
    )


def select(activations: Activations, head: Head) -> np.ndarray:
    """Raw activations (rows, p) of a head's neurons."""
    return activations.of(head.neurons)


def load_columns(
    tables: Sequence[str | os.PathLike],
    shards: Sequence[str | os.PathLike],
    dataset: Dataset,
    task: TaskData,
    etas: Sequence[float],
) -> tuple[Columns, Activations]:
    """Read the candidate neurons of the tables and their activations, raw and standardised."""
    neurons = candidates(tables, etas)
    by_key = {parse_name(Path(shard).name): shard for shard in shards}
    values = read_activations(neurons, by_key, dataset.fingerprint, dataset.rows)
    return prepare(neurons, values, task), Activations(neurons, values)


def write_grid(
    out: str | os.PathLike,
    found: Sequence[Candidate],
    chosen: Candidate,
    head: Head,
    test: float,
    meta: Mapping,
) -> None:
    """Write the grid. File metadata `probeline` holds the slug, seconds and the final fit."""
    rows = [candidate.row() for candidate in found]
    position = found.index(chosen)
    table = pa.Table.from_pylist(rows)
    flags = [i == position for i in range(len(rows))]
    table = table.append_column("chosen", pa.array(flags))
    scores = pa.array([test if flag else None for flag in flags], pa.float64())
    table = table.append_column("test_score", scores)
    described = dict(meta) | {"final": asdict(head.step) | {"neurons": len(head.neurons)}}
    table = table.replace_schema_metadata({"probeline": json.dumps(described)})
    with replacing(out) as temporary:
        pq.write_table(table, temporary)


def read_grid(path: str | os.PathLike) -> tuple[list[Candidate], int, float, dict]:
    """Read a grid: (candidates, position of the chosen one, its test score, metadata).

    Raises
    ------
    ProbelineError
        If the file is missing or is no grid.
    """
    try:
        table = pq.read_table(path)
        meta = json.loads((table.schema.metadata or {})[b"probeline"])
        rows = table.to_pylist()
        names = Step.__dataclass_fields__
        found = [
            Candidate(r["eta"], r["depth"], r["available"], Step(**{k: r[k] for k in names}))
            for r in rows
        ]
        position = next(i for i, row in enumerate(rows) if row["chosen"])
        return found, position, rows[position]["test_score"], meta
    except FileNotFoundError:
        raise ProbelineError(f"{path}: no such grid; run the aggregate stage") from None
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError, StopIteration) as error:
        raise ProbelineError(
            f"{path}: not a readable grid ({error}); delete it and run again"
        ) from None
