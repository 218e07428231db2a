"""Caches made by hand, as Snakemake would have filled them."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np

from probeline.activations.shards import write_shard

DAY = 86400.0


def key(name: str) -> str:
    """A key that begins with `name`, hexadecimal digits."""
    return name.ljust(64, "0")


def aged(path: Path, days: float) -> Path:
    """Let a file, or all in a folder, be made some days ago."""
    when = time.time() - days * DAY
    for part in [path, *(path.rglob("*") if path.is_dir() else [])]:
        os.utime(part, (when, when))
    return path


def store_texts(cache: Path, name: str, dataset: str = "notes", days: float = 0, size: int = 100):
    """Texts of a dataset; the table is `size` bytes that nobody reads."""
    told = {"name": dataset, "rows": 7}
    aged(_write(cache / f"{key(name)}_manifest.json", json.dumps(told)), days)
    return aged(_write(cache / f"{key(name)}_texts.parquet", "x" * size), days)


def store_labels(cache: Path, name: str, dataset: str = "notes") -> Path:
    told = {"name": dataset, "rows": 7, "tasks": {"coarse": {}, "fine": {}}}
    _write(cache / f"{key(name)}_manifest.json", json.dumps(told))
    return _write(cache / f"{key(name)}_labels.parquet", "")


def store_shards(
    cache: Path, name: str, model: str = "tiny", revision: str = "", **part: int
) -> list[Path]:
    """Two shards of an extraction, or of a part of one, and what stands beside them."""
    meta = {"dataset": "notes", "model_name": model, "model": f"org/{model}", "revision": revision}
    meta |= {"max_length": 24, "dtype": "float32"}
    found = []
    for layer in (0, 1):
        path = cache / f"{key(name)}hidden.mean.{layer:02}.h5"
        write_shard(path, np.zeros((7, 3), np.float16), meta | {"layer": layer} | part)
        found.append(path)
    return [*found, _write(cache / f"{key(name)}tokens.json", "{}")]


def store_embedding(cache: Path, name: str) -> Path:
    """The folder of a tuned embedding, and what says which it is."""
    folder = cache / f"{key(name)}_folder"
    (folder / "1_Pooling").mkdir(parents=True)
    settings = {"dataset": "notes", "task": "label", "seed": 3, "embedder": "/models/small"}
    _write(folder / "embedding.json", json.dumps({"settings": settings}))
    _write(folder / "1_Pooling" / "config.json", "{}")
    _write(cache / f"{key(name)}_identity.json", "{}")
    return folder


def project(folder: Path, *targets: Path) -> Path:
    """A working directory with links to entries."""
    place = folder / "results" / "datasets" / "notes"
    place.mkdir(parents=True)
    for number, target in enumerate(targets):
        (place / f"{number}-{target.name[-20:]}").symlink_to(target)
    return folder


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path
