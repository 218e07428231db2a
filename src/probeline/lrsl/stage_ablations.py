"""The ablations stage: both embeddings, all texts of validation and test."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from probeline.data.label_text import label_texts
from probeline.data.store import Dataset, read_dataset
from probeline.lrsl.ablations import Hardness, Similarities, ablations, write_ablations
from probeline.lrsl.choice import forms_of
from probeline.lrsl.embedding import joined, label_vectors, load_embedder
from probeline.lrsl.stage_data import answered, top_labels
from probeline.lrsl.stage_rerank import tuned_spec
from probeline.lrsl.temperature import fit_temperature
from probeline.probe.task import TaskData

_SPLITS = ("validation", "test")
# Numbers of top labels that are looked at beside the configured one.
_TOPS = (2, 3, 5)


def run_ablations(
    dataset_folder: str | os.PathLike,
    task_name: str,
    predictions: str | os.PathLike,
    embedder: Mapping,
    tuned: str | os.PathLike | None,
    crossfitted: bool,
    out: str | os.PathLike,
    settings: Mapping,
    seed: int,
) -> None:
    """Score every part of a reranking with and without.

    Parameters
    ----------
    predictions, embedder, tuned, settings
        As in `probeline.lrsl.stage_rerank.rerank_predictions`.
    crossfitted : bool
        Whether the triplets of the tuned embedding come from cross-fitted logits.
    out : path
        Parquet, see `probeline.lrsl.ablations`.
    """
    options = settings["options"]
    dataset = read_dataset(dataset_folder)
    found, task = answered(predictions, dataset, task_name, settings["metric"])
    logits = {split: found.logits[task.rows[split]] for split in _SPLITS}
    kinds = {"untuned": None} | ({"tuned": tuned} if tuned else {})
    similarities = [
        Similarities(
            name,
            crossfitted if name == "tuned" else None,
            _cosines(dataset, task, tuned_spec(embedder, place), settings),
        )
        for name, place in kinds.items()
    ]
    table = ablations(
        task,
        logits,
        similarities,
        forms_of(options["forms"], options["powers"], options["weights"], None),
        _tops(options["k"], task.classes),
        _hardness(task, logits["validation"], options),
        seed,
        options["candidates"] == "top_k",
    )
    write_ablations(table, Path(out))


def _cosines(
    dataset: Dataset, task: TaskData, spec: Mapping, settings: Mapping
) -> dict[str, np.ndarray]:
    loaded = load_embedder(spec)
    texts = label_texts(task.labels, settings["label_texts"])
    how = settings["options"]["label_similarity"]
    vectors = label_vectors(loaded, texts, settings["template"], how)
    found = {}
    for split in _SPLITS:
        rows = task.rows[split]
        pairs = None if dataset.pairs is None else [dataset.pairs[row] for row in rows]
        chosen = joined([dataset.texts[row] for row in rows], pairs)
        found[split] = vectors.similarities(loaded.encode(chosen, f"{split} texts embedded"))
    return found


def _tops(k: int | str, classes: int) -> list[int]:
    return sorted({top_labels(k, classes), *(top for top in _TOPS if top <= classes)})


def _hardness(task: TaskData, logits: np.ndarray, options: Mapping) -> Hardness:
    rule = options["threshold"]
    temperature = 1.0
    if options["temperature"]:
        temperature = fit_temperature(logits, task.y["validation"], task.multilabel)
    return Hardness(
        options["hardness"], "misclassified" if rule == "validation" else rule, temperature
    )
