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
from probeline.probe.matrix import fit_scaler
from probeline.probe.path import best_step, run_path
from probeline.probe.stage import read_rows
from probeline.probe.task import task_data
from probeline.probe.threshold import evaluate
from probeline.probe.train import linear_logits
from probeline.results.predictions import write_predictions

log = logging.getLogger(__name__)
_SOLVER = {"tolerance": 1e-4, "max_iterations": 300}


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
    """
    started = time.perf_counter()
    dataset = read_dataset(dataset_folder, texts=False)
    task = task_data(dataset, task_name, metric)
    raw, meta = read_rows(shard, dataset, task)
    X = {split: normalized(values) for split, values in raw.items()}
    scaler = fit_scaler(X["train"], standardize=False)
    XT, validation = scaler.apply(X["train"]), scaler.apply(X["validation"])
    steps, fits = [], []
    for class_weight in task.class_weights(options["class_weight"]):
        path = run_path(
            XT,
            task.loss(class_weight),
            lambda fit: evaluate(task, validation.T @ fit.coefficients + fit.intercept),
            dict(options) | _SOLVER,
            l1_ratio=0.0,
            class_weight=class_weight,
        )
        steps += path[0]
        fits += path[1]
    chosen = best_step(steps)
    step = steps[chosen]
    coefficients = np.zeros((len(scaler.kept), fits[chosen].coefficients.shape[1]), np.float32)
    coefficients[scaler.kept] = fits[chosen].coefficients
    logits = {
        split: linear_logits(values, scaler, coefficients, fits[chosen].intercept)
        - np.float32(step.threshold)
        for split, values in X.items()
    }
    test = task.score("test", logits["test"])
    described = {
        "dataset": dataset.name,
        "dataset_fingerprint": dataset.fingerprint,
        "model": model_name,
        "method": "sentence-embedding",
        "variant": f"hidden.mean.{meta['layer']}",
    }
    write_predictions(predictions, task, logits, described)
    seconds = time.perf_counter() - started
    write_json(
        scores,
        {
            "metric": task.metric,
            "layer": int(meta["layer"]),
            "dimensions": X["train"].shape[1],
            "validation_score": step.score,
            "test_score": test,
            "seconds": seconds,
            "step": asdict(step),
        },
    )
    log.info("sentence embedding: validation %.4f, test %.4f", step.score, test)
