"""The sentence-embedding baseline: mean-pooled last layer, normalised, L2 logistic regression."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import asdict

import numpy as np

from probeline.data.store import read_dataset
from probeline.files import write_json
from probeline.probe.stage import read_rows
from probeline.probe.task import task_data
from probeline.probe.train import train_probe
from probeline.results.predictions import shard_logits, write_predictions

log = logging.getLogger(__name__)
SOLVER = {"standardize": False, "l1_ratio": 0.0, "tolerance": 1e-4, "max_iterations": 300}


def normalized(X: np.ndarray) -> np.ndarray:
    """Rows of X (n, p) divided by their Euclidean length."""
    return X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), 1e-12)


def sentence_embedding(
    shard: str | os.PathLike,
    dataset_folder: str | os.PathLike,
    task_name: str,
    model_name: str,
    predictions: str | os.PathLike,
    scores: str | os.PathLike,
    options: Mapping,
    metric: str | None = None,
) -> None:
    """Train and score the baseline.

    Parameters
    ----------
    shard : path
        Hidden state of the last layer, mean pooling: what sentence-embedding models return.
    options : mapping
        `penalties`: scikit-learn C values; `class_weight`.

    Notes
    -----
    `texts_per_second` is null: nearly all of the time is the forward pass, which ran before.
    """
    started = time.perf_counter()
    dataset = read_dataset(dataset_folder, texts=False)
    task = task_data(dataset, task_name, metric)
    X, meta = read_rows(shard, dataset, task)
    X = {split: normalized(values) for split, values in X.items()}
    probe = train_probe(X, task, dict(options) | SOLVER)
    step = probe.step
    trained = time.perf_counter()
    logits = shard_logits(shard, dataset, lambda values: probe.logits(normalized(values)))
    described = {
        "model": model_name,
        "method": "sentence-embedding",
        "variant": f"hidden.mean.{meta['layer']}",
    }
    write_predictions(predictions, dataset, task, logits, described, step.threshold)
    seconds = time.perf_counter() - started
    write_json(
        scores,
        {
            "metric": task.metric,
            "layer": int(meta["layer"]),
            "dimensions": X["train"].shape[1],
            "validation_score": step.score,
            "test_score": probe.test_score,
            "seconds": seconds,
            "train_seconds": trained - started,
            "texts_per_second": None,
            "parameters_trained": probe.coefficients.size + probe.intercept.size,
            "step": asdict(step),
        },
    )
    log.info("sentence embedding: validation %.4f, test %.4f", step.score, probe.test_score)
