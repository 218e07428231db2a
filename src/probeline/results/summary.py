"""One tidy table of every score: a row per method, variant and split."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from probeline.aggregate.stage import read_grid
from probeline.config import PATH_TASK
from probeline.data.store import read_dataset
from probeline.files import read_json
from probeline.probe.task import TaskData, task_data
from probeline.results.frames import write_frame
from probeline.results.hierarchy import path_task, paths_of
from probeline.results.intervals import bootstrap_interval
from probeline.results.predictions import read_predictions

COLUMNS = (
    "dataset",
    "task",
    "model",
    "method",
    "variant",
    "source",
    "seed",
    "representation",
    "pooling",
    "layer",
    "depth",
    "eta",
    "penalty",
    "neurons",
    "split",
    "metric",
    "score",
    "ci_low",
    "ci_high",
    "seconds",
)
_WHOLE = ("seed", "layer", "depth", "neurons")


def metric_of(scores: str | os.PathLike) -> str:
    """The metric a scores file (stc.json) is about."""
    return read_json(scores)["selected"]["metric"]


def write_summary(
    entries: Sequence[Mapping], csv: str | os.PathLike, parquet: str | os.PathLike, seed: int
) -> None:
    """Write the summary as CSV and Parquet.

    Parameters
    ----------
    entries : sequence of mapping
        One per (dataset, task, model): those three names, `source` (the model's path), and the
        files `layers`, `stc`, `sentence_embedding` (or None), `grids` by slug, and the folder
        `predictions`. For whole paths through a hierarchy, the task `path`, those names, `source`
        and `methods`: mappings with `path` (predictions) and `variant` (None: the file's own).
    seed : int
        Of the bootstrap and of the `seed` column.

    Notes
    -----
    `penalty` is scikit-learn's C. Rows of methods have 95 % bootstrap intervals over the texts of
    the split; the single probes and grids, which the figures show, have none.
    """
    rows = [row for entry in entries for row in _rows(entry, seed)]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    for column in _WHOLE:
        frame[column] = frame[column].astype("Int64")
    write_frame(frame, csv, parquet)


def _rows(entry: Mapping, seed: int) -> Iterator[dict]:
    base = {key: entry[key] for key in ("dataset", "task", "model", "source")} | {"seed": seed}
    if entry["task"] == PATH_TASK:
        yield from _path_rows(base, entry["methods"], seed)
        return
    stc = read_json(entry["stc"])
    metric = stc["selected"]["metric"]
    base["metric"] = metric
    dataset = read_dataset(Path("results/datasets") / entry["dataset"], texts=False)
    task = task_data(dataset, entry["task"], metric)
    folder = Path(entry["predictions"])
    layers = pq.read_table(entry["layers"]).to_pylist()
    for method, flag in (("last-layer", "last"), ("probe", "best")):
        row = next(row for row in layers if row[flag])
        found = _layer(row) | {"method": method, "variant": _name(row)}
        yield from _both(base | found, row, folder / f"{method}.h5", task, seed)
    if entry["sentence_embedding"]:
        row = read_json(entry["sentence_embedding"])
        found = {
            "method": "sentence-embedding",
            "variant": "l2",
            "representation": "hidden",
            "pooling": "mean",
            "layer": row["layer"],
            "depth": row["layer"],
            "penalty": row["step"]["C"],
            "neurons": row["dimensions"],
            "seconds": row["seconds"],
        }
        yield from _both(base | found, row, folder / "sentence-embedding.h5", task, seed)
    for variant, file in (("selected", "stc.h5"), ("smallest", "stc-smallest.h5")):
        row = stc[variant]
        found = _slug(row["slug"]) | {
            "method": "stc",
            "variant": variant,
            "depth": row["depth"],
            "eta": row["eta"],
            "penalty": row["step"]["C"],
            "neurons": row["neurons"],
            "seconds": row["seconds"],
        }
        yield from _both(base | found, row, folder / file, task, seed)
    for slug, path in entry["grids"].items():
        yield from _grid(base, slug, path)
    for row in layers:
        found = base | _layer(row) | {"method": "probe", "variant": f"layer: {_name(row)}"}
        for split in ("validation", "test"):
            yield found | {"split": split, "score": row[f"{split}_score"]}


def _grid(base: Mapping, slug: str, path: str) -> Iterator[dict]:
    found, position, test, meta = read_grid(path)
    chosen = found[position]
    row = (
        dict(base)
        | _slug(slug)
        | {
            "method": "stc",
            "variant": f"best of {slug}",
            "depth": chosen.depth,
            "eta": chosen.eta,
            "penalty": chosen.step.C,
            "neurons": meta["final"]["neurons"],
            "seconds": meta["seconds"],
        }
    )
    yield row | {"split": "validation", "score": meta["final"]["score"]}
    yield row | {"split": "test", "score": test}


def _path_rows(base: Mapping, methods: Sequence[Mapping], seed: int) -> Iterator[dict]:
    """What differs from level to level (layer, neurons, ...) is left empty."""
    dataset = read_dataset(Path("results/datasets") / base["dataset"], texts=False)
    paths = paths_of(dataset)
    for method in methods:
        meta = read_predictions(method["path"]).meta
        task = path_task(dataset, paths, meta["metric"])
        variant = method["variant"] or meta["variant"]
        found = {"metric": task.metric, "method": meta["method"], "variant": variant}
        yield from _both(base | found, None, Path(method["path"]), task, seed)


def _both(
    row: Mapping, scores: Mapping | None, path: Path, task: TaskData, seed: int
) -> Iterator[dict]:
    """A row per split; its score is of the predictions where no stage has stored one."""
    predictions = read_predictions(path)
    for split in ("validation", "test"):
        logits = predictions.of(split)
        score = scores[f"{split}_score"] if scores else task.score(split, logits)
        low, high = bootstrap_interval(task.metric, task.y[split], logits, task.classes, seed)
        interval = {"ci_low": low, "ci_high": high}
        yield dict(row) | {"split": split, "score": score} | interval


def _layer(row: Mapping) -> dict:
    return {
        "representation": row["representation"],
        "pooling": row["pooling"],
        "layer": row["layer"],
        "depth": row["layer"],
        "penalty": row["C"],
        "neurons": row["neurons"],
        "seconds": row["seconds"],
    }


def _name(row: Mapping) -> str:
    return f"{row['representation']}.{row['pooling']}.{row['layer']}"


def _slug(slug: str) -> dict:
    """A combination's name takes the place of the representation."""
    representation, _, pooling = slug.partition(".")
    return {"representation": representation, "pooling": pooling or None}


def read_summary(path: str | os.PathLike = "results/summary.parquet") -> pd.DataFrame:
    """Read the summary; columns `COLUMNS`."""
    return pd.read_parquet(path).replace({np.nan: None})
