"""The in-context learning stage: prompts in, predictions out."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence

import numpy as np

from probeline.activations.shards import open_shard
from probeline.baselines.icl.asking import Asker
from probeline.baselines.icl.fitting import Query
from probeline.baselines.icl.prompt import Template, template_of
from probeline.baselines.icl.rows import scored_rows
from probeline.baselines.icl.shots import class_shots, nearest_shots
from probeline.baselines.report import Cost, score_threshold, write_baseline
from probeline.data.label_text import label_texts
from probeline.data.store import Dataset, read_dataset
from probeline.errors import ProbelineError, one_of
from probeline.models.causal import load_causal
from probeline.probe.task import SPLITS, TaskData, task_data

DEFAULTS = {
    "shots": 4,
    "select": "class",
    "instruction": "",
    "example": None,
    "separator": None,
    "label_texts": None,
    "normalize": "mean",
    "calibrate": True,
    "context": None,
    "max_texts": {"train": 0},
}
_CHOICES = {"select": ("class", "nearest"), "normalize": ("mean", "sum")}


def icl(
    dataset_folder: str | os.PathLike,
    task_name: str,
    model_spec: Mapping,
    model_name: str,
    predictions: str | os.PathLike,
    scores: str | os.PathLike,
    options: Mapping,
    seed: int,
    metric: str | None = None,
    embedding_shard: str | os.PathLike | None = None,
) -> None:
    """Score the baseline.

    Parameters
    ----------
    model_spec : mapping
        An entry of `models:`, of a causal language model.
    predictions, scores : path
        HDF5 and JSON that are written. Rows that were not scored have logits 0 and do not count as
        defined. Logits are log p of the labels, or log (p / prior) when calibrated; for a
        multi-label task less a threshold that is chosen on validation.
    options : mapping
        `shots` (per class, or in all for `select: nearest`), `select`, `instruction`, `example`,
        `separator`, `label_texts`, `normalize`, `calibrate`, `context` (tokens; default the model's
        positions), `max_texts` (by split; null for all). `DEFAULTS` stand for those left out.
    seed : int
        Draws the examples. Which texts are scored, of a split that is not scored whole, is the same
        for every seed and model.
    embedding_shard : path, optional
        Embeddings of all texts by whichever model, for `select: nearest`.

    Raises
    ------
    ProbelineError
        If an option, the template or the model is not valid.

    Notes
    -----
    A training text that is an example itself is scored with its label in sight.
    """
    started = time.perf_counter()
    options = _checked({**DEFAULTS, **options}, embedding_shard)
    dataset = read_dataset(dataset_folder)
    whole = task_data(dataset, task_name, metric)
    # The same texts whatever the seed and the model: only those can be compared.
    rows, task = scored_rows(dataset, whole, options["max_texts"], seed=0)
    task.check_metric()
    texts = label_texts(task.labels, options["label_texts"])
    words = [own[0] for own in texts]
    template = template_of(options, dataset.pairs is not None, words)
    if options["select"] == "class":
        shots = class_shots(whole, options["shots"], seed)
        queries = class_queries(dataset, whole, rows, shots, template, words)
    else:
        with open_shard(embedding_shard, {"dataset_fingerprint": dataset.fingerprint}) as shard:
            embeddings = shard.read(rows=slice(0, dataset.rows))
        shots = nearest_shots(embeddings, whole, rows, options["shots"])
        queries = nearest_queries(dataset, whole, rows, shots, template, words)
    model = load_causal(model_spec)
    keys = ("context", "normalize", "calibrate")
    asker = Asker(model, template, texts, **{key: options[key] for key in keys})
    began = time.perf_counter()
    answers = asker.ask(queries)
    finished = time.perf_counter()
    found = answers.logits
    threshold = score_threshold(task, found[np.searchsorted(rows, task.rows["validation"])])
    if task.classes == 2 and not task.multilabel:
        found = found[:, 1:] - found[:, :1]
    logits = np.zeros((dataset.rows, found.shape[1]), dtype=np.float32)
    logits[rows] = found - threshold
    more = {
        **{key: options[key] for key in ("select", "normalize", "calibrate")},
        "shots": int(shots.shape[-1]),
        "shot_rows": shots.tolist() if options["select"] == "class" else None,
        **answers.report,
        "texts": {split: len(task.rows[split]) for split in SPLITS},
        "threshold": threshold,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": model.device.type,
        "seed": seed,
    }
    how = "nearest" if options["select"] == "nearest" else "per class"
    meta = {"model": model_name, "method": "icl", "variant": f"{options['shots']} {how}"}
    cost = Cost(finished - started, 0.0, finished - began, len(rows), 0)
    meta |= {"seed": seed}
    write_baseline(predictions, scores, dataset, task, logits, meta, cost, more, threshold)


def class_queries(
    dataset: Dataset,
    task: TaskData,
    rows: np.ndarray,
    shots: np.ndarray,
    template: Template,
    words: Sequence[str],
) -> list[Query]:
    """Queries of `rows` that all show the same examples, the training rows `shots`."""
    shown = [_shot(dataset, task, int(row), template, words) for row in shots]
    return [Query(*_text(dataset, row), shown) for row in rows]


def nearest_queries(
    dataset: Dataset,
    task: TaskData,
    rows: np.ndarray,
    shots: np.ndarray,
    template: Template,
    words: Sequence[str],
) -> list[Query]:
    """Queries of `rows`, each with examples of its own (n, k); the nearest stands by the text."""
    return [
        Query(
            *_text(dataset, row),
            [_shot(dataset, task, int(shot), template, words) for shot in own],
            reverse=True,
        )
        for row, own in zip(rows, shots, strict=True)
    ]


def _text(dataset: Dataset, row: int) -> tuple[str, str | None]:
    return dataset.texts[row], None if dataset.pairs is None else dataset.pairs[row]


def _shot(
    dataset: Dataset, task: TaskData, row: int, template: Template, words: Sequence[str]
) -> str:
    """One training text as an example; several labels are listed, sorted."""
    labels = task.y["train"][np.searchsorted(task.rows["train"], row)]
    own = [words[labels]] if labels.ndim == 0 else sorted(words[k] for k in np.flatnonzero(labels))
    return template.shot(*_text(dataset, row), ", ".join(own) or "none")


def _checked(options: dict, embedding_shard) -> dict:
    for name in options:
        if name not in DEFAULTS:
            raise ProbelineError(f"icl: {one_of(name, DEFAULTS)}")
    for name, choices in _CHOICES.items():
        if options[name] not in choices:
            raise ProbelineError(f"icl.{name}: {one_of(options[name], choices)}")
    options["max_texts"] = {**DEFAULTS["max_texts"], **options["max_texts"]}
    for split, limit in options["max_texts"].items():
        if split not in SPLITS:
            raise ProbelineError(f"icl.max_texts: {one_of(split, SPLITS)}")
        if limit is not None and limit < (0 if split == "train" else 1):
            raise ProbelineError(f"icl.max_texts.{split}: {limit} leaves nothing to score")
    if options["shots"] < 0:
        raise ProbelineError(f"icl.shots: {options['shots']} is below 0")
    if options["select"] == "nearest" and embedding_shard is None:
        raise ProbelineError(
            "icl.select: nearest needs embeddings of the texts; name a model that is extracted"
        )
    return options
