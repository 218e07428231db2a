"""A dataset, shards of made-up activations, probes and neuron tables: all but a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from probeline.activations.shards import write_shard
from probeline.data.store import Dataset, read_dataset
from probeline.data.writing import write_dataset
from probeline.probe.stage import probe_shards
from probeline.probe.task import SPLITS, TaskData, task_data
from probeline.sparsify import sparsify

SIZES = {"train": 120, "validation": 50, "test": 50}
ETAS = [0.05, 0.3, 0.7, 1.0]
WIDTHS = {"hidden": 8, "ffn": 14}
LAYERS = {"hidden": [0, 1, 2, 3], "ffn": [1, 2, 3]}
PROBE = {
    "standardize": True,
    "penalties": "auto",
    "path_length": 6,
    "path_ratio": 0.05,
    "l1_ratio": 1.0,
    "class_weight": None,
    "tolerance": 1e-4,
    "max_iterations": 100,
}
AGGREGATE = {
    "depths": "all",
    "penalties": [0.01, 1.0],
    "path_length": 4,
    "path_ratio": 0.01,
    "l1_ratios": [0.0],
    "class_weight": None,
    "tolerance": 1e-5,
    "max_iterations": 200,
    "select": "best",
    "within": 0.02,
}


@dataclass
class SmallProject:
    """Paths and the truth behind them."""

    folder: Path
    data: Path
    metric: str | None
    shards: list[str] = field(default_factory=list)
    probes: list[str] = field(default_factory=list)
    tables: dict[tuple, str] = field(default_factory=dict)
    values: dict[tuple, np.ndarray] = field(default_factory=dict)

    @property
    def dataset(self) -> Dataset:
        return read_dataset(self.data, texts=False)

    @property
    def task(self) -> TaskData:
        return task_data(self.dataset, "label", self.metric)


def random_labels(kind: str, rows: int, rng) -> tuple[np.ndarray, int]:
    """Codes or indicators and the number of classes of 'binary', 'multiclass', 'multilabel'."""
    if kind == "multilabel":
        labels = rng.random((rows, 3)) < [0.5, 0.3, 0.2]
        labels[0], labels[1] = True, False
        return labels, 3
    classes = 2 if kind == "binary" else 4
    return rng.permutation(np.arange(rows) % classes), classes


def make_project(folder: Path, kind: str = "multiclass", metric: str | None = None, seed: int = 0):
    """Activations in which deeper layers know more of the label; probes and tables of them."""
    rng = np.random.default_rng(seed)
    rows = sum(SIZES.values())
    labels, classes = random_labels(kind, rows, rng)
    data = folder / "results/datasets/made"
    task = {
        "kind": "multi" if kind == "multilabel" else "single",
        "labels": [f"label {k}" for k in range(classes)],
        "counts": {},
    }
    manifest = write_dataset(
        data,
        {"name": "made", "tasks": {"label": task}},
        pa.table({"text": [f"text {i}" for i in range(rows)]}),
        SIZES,
        {"label": labels},
    )
    project = SmallProject(folder, data, metric)
    known = labels if kind == "multilabel" else np.eye(classes)[labels]
    for representation, layers in LAYERS.items():
        for pooling in ("max", "mean"):
            for layer in layers:
                values = _activations(rng, known, WIDTHS[representation], layer)
                _write(project, (representation, pooling, layer), values, manifest)
    probe_shards(project.shards, project.probes, data, "label", PROBE, metric)
    for representation in LAYERS:
        for pooling in ("max", "mean"):
            path = folder / "neurons" / f"{representation}.{pooling}.parquet"
            prefix = f"{representation}.{pooling}."
            sparsify([p for p in project.probes if Path(p).name.startswith(prefix)], path)
            project.tables[representation, pooling] = str(path)
    return project


def _activations(rng, known, width, layer) -> np.ndarray:
    values = rng.normal(size=(len(known), width))
    signal = known @ rng.normal(size=(known.shape[1], 4))
    values[:, :4] += 0.5 * layer * signal
    if layer == 0:
        values[:, 2] = 1.0
    return (values * rng.uniform(0.1, 3, width) + rng.normal(size=width)).astype(np.float32)


def _write(project, key, values, manifest) -> None:
    representation, pooling, layer = key
    name = f"{representation}.{pooling}.{layer:02d}.h5"
    path = project.folder / "activations" / name
    meta = {
        "model": "tiny",
        "revision": "sha256:0",
        "tokenizer_hash": "0",
        "dataset": "made",
        "dataset_fingerprint": manifest["fingerprint"],
        "dtype": "float32",
        "max_length": 16,
        "representation": representation,
        "pooling": pooling,
        "layer": layer,
    }
    write_shard(path, values, meta)
    project.shards.append(str(path))
    project.probes.append(str(project.folder / "probes" / name))
    project.values[key] = values


def split_rows(values: np.ndarray) -> dict[str, np.ndarray]:
    """Rows of each split."""
    cuts = np.cumsum([SIZES[split] for split in SPLITS])[:-1]
    return dict(zip(SPLITS, np.split(values, cuts), strict=True))
