"""One tidy table of every score: a row per method, variant, seed and split."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from probeline.aggregate.stage import read_grid
from probeline.config import PATH_TASK
from probeline.data.store import Dataset, read_dataset
from probeline.files import read_json
from probeline.probe.task import TaskData
from probeline.results.frames import write_frame
from probeline.results.predictions import read_predictions
from probeline.results.runs import SPLITS, Run, mean_rows, run_rows, scores_of
from probeline.results.seeds import named_mean
from probeline.results.truth import checked_predictions, task_of

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
    "train_seconds",
    "texts_per_second",
    "parameters_trained",
    "seeds",
    "std",
)
_WHOLE = ("seed", "layer", "depth", "neurons", "parameters_trained", "seeds")
_REAL = (
    *("eta", "penalty", "score", "ci_low", "ci_high"),
    *("seconds", "train_seconds", "texts_per_second", "std"),
)
_COSTS = ("seconds", "train_seconds", "texts_per_second", "parameters_trained")


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
        One per (dataset, task, model): those three names, `source` (the model's path), and

        - of a model: the files `layers` and `stc`, `grids` by slug, the folder `predictions`;
        - of a model, or of none (TF-IDF, scores made elsewhere): `baselines`, mappings with
          `method` and `runs`, each of these with `seed` (None: it has none), `scores` and
          `predictions`; of reranking with `source` too, the method that is reranked, and in each
          run the name of its predictions; of a method with several series of runs `series`, the
          one they are of;
        - of whole paths through a hierarchy, the task `path`, instead of all these: `methods`,
          mappings with `method`, `paths` (predictions, a file per seed), `variant` (None: the
          file's own) and, of reranking, `source`.
    seed : int
        Of the bootstrap, and of the `seed` column where a run has none of its own.

    Raises
    ------
    ProbelineError
        If a file is missing or broken, or predictions are of another dataset or task.

    Notes
    -----
    `penalty` is scikit-learn's C. Rows of methods have 95 % bootstrap intervals over the texts of
    the split that they answer; the single probes and grids, which the figures show, have none.

    A method with several seeds has, beside a row for each, one of the variant 'mean of S seeds',
    with their mean, their standard deviation `std` and an interval over texts and seeds
    (`probeline.results.seeds`).

    `source` is where a model comes from, and of reranking (`lrsl`) the predictions that were
    reranked: `stc`, or `finetune-42`, and `finetune` for the mean over its seeds.

    `seconds` are those of the job's work, `train_seconds` those of fitting, `texts_per_second` is
    from text to answer, null where a forward pass that belongs to it ran before and apart (also
    that of a classifier that is reranked, or that makes shortlists of labels).
    `parameters_trained` counts weights and intercepts, also those that were fitted to 0.
    """
    rows = [row for entry in entries for row in _rows(entry, seed)]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    frame = frame.astype(dict.fromkeys(_WHOLE, "Int64") | dict.fromkeys(_REAL, np.float64))
    write_frame(frame, csv, parquet)


def _rows(entry: Mapping, seed: int) -> Iterator[dict]:
    base = {key: entry[key] for key in ("dataset", "task", "model", "source")} | {"seed": seed}
    dataset = read_dataset(Path("results/datasets") / entry["dataset"], texts=False)
    if entry["task"] == PATH_TASK:
        for method in entry["methods"]:
            yield from _path_rows(base, method, dataset, seed)
        return
    if "stc" in entry:
        yield from _sparse_rows(base, entry, dataset, seed)
    for baseline in entry["baselines"]:
        yield from _baseline_rows(base, baseline, dataset, seed)


def _sparse_rows(base: Mapping, entry: Mapping, dataset: Dataset, seed: int) -> Iterator[dict]:
    """What is trained on the stored activations of a model: probes, grids, STC."""
    stc = read_json(entry["stc"])
    task = task_of(dataset, entry["task"], stc["selected"]["metric"])
    base = {**base, "metric": task.metric}
    folder = Path(entry["predictions"])
    layers = pq.read_table(entry["layers"]).to_pylist()
    for method, flag in (("last-layer", "last"), ("probe", "best")):
        row = next(row for row in layers if row[flag])
        found = _layer(row, task) | {"method": method, "variant": _name(row)}
        yield from _stored(base | found, row, folder / f"{method}.h5", dataset, task, seed)
    for variant, file in (("selected", "stc.h5"), ("smallest", "stc-smallest.h5")):
        row = stc[variant]
        found = _slug(row["slug"]) | {
            "method": "stc",
            "variant": variant,
            "depth": row["depth"],
            "eta": row["eta"],
            "penalty": row["step"]["C"],
            "neurons": row["neurons"],
            **_fitted(row["seconds"], row["neurons"], task),
        }
        yield from _stored(base | found, row, folder / file, dataset, task, seed)
    for slug, path in entry["grids"].items():
        yield from _grid(base, slug, path, task)
    for row in layers:
        found = base | _layer(row, task) | {"method": "probe", "variant": f"layer: {_name(row)}"}
        for split in SPLITS:
            yield found | {"split": split, "score": row[f"{split}_score"], "seeds": 1}


def _stored(
    row: Mapping, scores: Mapping, path: Path, dataset: Dataset, task: TaskData, seed: int
) -> Iterator[dict]:
    """Rows of a method whose scores a stage has stored."""
    found = {split: scores[f"{split}_score"] for split in SPLITS}
    yield from run_rows(Run(row, found, checked_predictions(path, dataset, task)), task, seed)


def _grid(base: Mapping, slug: str, path: str, task: TaskData) -> Iterator[dict]:
    found, position, test, meta = read_grid(path)
    chosen, neurons = found[position], meta["final"]["neurons"]
    row = {
        **base,
        **_slug(slug),
        "method": "stc",
        "variant": f"best of {slug}",
        "depth": chosen.depth,
        "eta": chosen.eta,
        "penalty": chosen.step.C,
        "neurons": neurons,
        **_fitted(meta["seconds"], neurons, task),
        "seeds": 1,
    }
    yield row | {"split": "validation", "score": meta["final"]["score"]}
    yield row | {"split": "test", "score": test}


def _baseline_rows(base: Mapping, baseline: Mapping, dataset: Dataset, seed: int) -> Iterator[dict]:
    """A baseline's runs and, where there are several seeds, their mean."""
    method, runs = baseline["method"], []
    for given in baseline["runs"]:
        scores = read_json(given["scores"])
        task = task_of(dataset, base["task"], scores["metric"])
        predictions = checked_predictions(given["predictions"], dataset, task)
        row = {
            **base,
            "metric": task.metric,
            "method": method,
            "variant": predictions.meta["variant"],
            "seed": seed if given["seed"] is None else given["seed"],
            **{key: scores[key] for key in _COSTS},
            **_described(method, scores),
            **{key: given[key] for key in ("source",) if key in given},
        }
        reached = {split: scores[f"{split}_score"] for split in SPLITS}
        runs.append(Run(row, reached, predictions))
    yield from _with_mean(runs, task, seed, baseline)


def _described(method: str, scores: Mapping) -> dict:
    """What a baseline's classifier reads, in the words of the other methods."""
    if method == "tfidf":
        return {"penalty": scores["C"]}
    if method not in ("sentence-embedding", "zero-shot"):
        return {}
    place = {"representation": "hidden", "pooling": "mean"}
    place |= {"layer": scores["layer"], "depth": scores["layer"]}
    if method == "zero-shot":
        return place
    more = {"penalty": scores["step"]["C"], "neurons": scores["dimensions"]}
    return place | more | {"variant": "l2"}


def _path_rows(base: Mapping, method: Mapping, dataset: Dataset, seed: int) -> Iterator[dict]:
    """What differs from level to level (layer, neurons, ...) is left empty."""
    runs = []
    for path in method["paths"]:
        meta = read_predictions(path).meta
        task = task_of(dataset, PATH_TASK, meta["metric"])
        predictions = checked_predictions(path, dataset, task)
        row = {
            **base,
            "metric": task.metric,
            "method": method["method"],
            "variant": method["variant"] or meta["variant"],
            "seed": int(meta.get("seed", seed)),
            **({"source": meta["source"]} if "source" in method else {}),
        }
        runs.append(Run(row, scores_of(predictions, task), predictions))
    yield from _with_mean(runs, task, seed, method)


def _with_mean(runs: Sequence[Run], task: TaskData, seed: int, method: Mapping) -> Iterator[dict]:
    """Rows of every run and of their mean, whose `source` and `series` are those of all of them."""
    common = {"source": method["source"]} if "source" in method else {}
    if "series" in method:
        common["variant"] = named_mean(len(runs), method["series"])
    for run in runs:
        yield from run_rows(run, task, seed)
    for row in mean_rows(runs, task, seed):
        yield row | common


def _fitted(seconds: float, features: int, task: TaskData) -> dict:
    """What a linear classifier over some features cost."""
    outputs = 1 if task.classes == 2 and not task.multilabel else task.classes
    return {
        "seconds": seconds,
        "train_seconds": seconds,
        "parameters_trained": (features + 1) * outputs,
    }


def _layer(row: Mapping, task: TaskData) -> dict:
    return {
        "representation": row["representation"],
        "pooling": row["pooling"],
        "layer": row["layer"],
        "depth": row["layer"],
        "penalty": row["C"],
        "neurons": row["neurons"],
        **_fitted(row["seconds"], row["width"], task),
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
