"""The classifier stage: of all grids of a model and task, the winner as a folder."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from probeline import versions
from probeline.activations.names import parse_name
from probeline.activations.shards import open_shard
from probeline.aggregate.grid import Candidate, choose
from probeline.aggregate.head import Head, fit_head
from probeline.aggregate.stage import load_columns, read_grid
from probeline.classifier.folder import write_classifier
from probeline.data.store import Dataset, read_dataset
from probeline.files import write_json
from probeline.probe.task import TaskData, task_data
from probeline.results.predictions import every_row, write_predictions

log = logging.getLogger(__name__)


def build_classifier(
    grids: Mapping[str, str | os.PathLike],
    tables: Mapping[str, Sequence[str | os.PathLike]],
    shards: Sequence[str | os.PathLike],
    dataset_folder: str | os.PathLike,
    task_name: str,
    model_name: str,
    model_spec: Mapping,
    out_folder: str | os.PathLike,
    predictions: Mapping[str, str | os.PathLike],
    scores: str | os.PathLike,
    etas: Sequence[float],
    options: Mapping,
    metric: str | None = None,
    version: int = versions.CLASSIFIER,
) -> None:
    """Choose among all slugs and write the classifier folder, predictions and scores.

    Two are fitted: what `options["select"]` chooses, which becomes the folder, and the sparsest
    within `options["within"]` of the best.

    Parameters
    ----------
    grids : mapping of slug to path
    tables : mapping of slug to the neuron tables it combines
    shards : sequence of path
    predictions : mapping of 'selected' and 'smallest' to path
    scores : path
        JSON for the summary.
    version : int
        Of the stage; kept in the provenance.
    """
    dataset = read_dataset(dataset_folder, texts=False)
    task = task_data(dataset, task_name, metric)
    etas = sorted(etas)
    found, slug_of = all_candidates(grids)
    result = {}
    for variant, rule in (("selected", options["select"]), ("smallest", "sparsest")):
        started = time.perf_counter()
        chosen = choose(found, rule, options["within"])
        slug = slug_of[id(chosen)]
        columns, activations = load_columns(tables[slug], shards, dataset, task, etas)
        head = fit_head(columns, task, chosen, etas, options)
        logits = _logits(head, activations.of(head.neurons), dataset)
        entry = _describe(head, slug, task, logits, time.perf_counter() - started)
        result[variant] = entry
        meta = {"model": model_name, "method": "stc", "variant": f"{variant}: {slug}"}
        write_predictions(predictions[variant], dataset, task, logits, meta, head.step.threshold)
        log.info(
            "%s: %s, eta %g, depth %d, %d neurons: test %s %.4f",
            variant,
            slug,
            entry["eta"],
            entry["depth"],
            entry["neurons"],
            task.metric,
            entry["test_score"],
        )
        if variant == "selected":
            shard_meta = _shard_meta(head, shards)
            provenance = {
                "dataset": dataset.name,
                "dataset_fingerprint": dataset.fingerprint,
                "model": model_name,
                "slug": slug,
                "select": rule,
                "stage_version": version,
                "pair": dataset.pair,
                "rows": {split: len(rows) for split, rows in task.rows.items()},
            }
            write_classifier(out_folder, head, task, model_spec, shard_meta, entry, provenance)
    write_json(scores, result)


def all_candidates(grids: Mapping) -> tuple[list[Candidate], dict[int, str]]:
    """The candidates of all grids, and the slug of each by its id()."""
    found, slug_of = [], {}
    for slug, path in grids.items():
        candidates = read_grid(path)[0]
        found += candidates
        slug_of |= {id(candidate): slug for candidate in candidates}
    return found, slug_of


def _logits(head: Head, values: np.ndarray, dataset: Dataset) -> np.ndarray:
    return every_row(dataset, lambda rows: head.logits(values[rows]))


def _describe(head: Head, slug: str, task: TaskData, logits: np.ndarray, seconds: float) -> dict:
    return {
        "slug": slug,
        "metric": task.metric,
        "eta": head.candidate.eta,
        "depth": head.depth,
        "neurons": len(head.neurons),
        "weights": int(np.count_nonzero(head.coefficients)),
        "validation_score": head.step.score,
        "test_score": task.score("test", logits[task.rows["test"]]),
        "seconds": seconds,
        "step": asdict(head.step),
    }


def _shard_meta(head: Head, shards: Sequence[str | os.PathLike]) -> dict:
    """Attributes of a shard the head reads; of any, where every weight is zero."""
    groups = head.neurons.groups()
    wanted = groups[0][:3] if groups else parse_name(Path(shards[0]).name)
    path = next(path for path in shards if parse_name(Path(path).name) == wanted)
    with open_shard(path) as shard:
        return shard.meta
