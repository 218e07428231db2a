"""The bootstrap as its definition says: a loop over drawn rows, scored by scikit-learn.

Areas under curves are counted pair by pair.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy.special import softmax
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from probeline.data.store import Dataset, read_dataset
from probeline.data.writing import write_dataset

KINDS = {"binary": 2, "multiclass": 5, "multilabel": 4}
METRICS = {
    "binary": ("accuracy", "macro-f1", "micro-f1", "matthews", "roc-auc"),
    "multiclass": ("accuracy", "macro-f1", "micro-f1", "matthews", "roc-auc"),
    "multilabel": ("accuracy", "macro-f1", "micro-f1", "roc-auc"),
}
OTHERS = 6  # rows of train and of validation
CASES = [(kind, metric) for kind, metrics in METRICS.items() for metric in metrics]


def made(kind: str, n: int, seed: int = 0, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Labels, one class in a single row so that most resamples miss it, and logits with ties."""
    rng = np.random.default_rng(seed)
    if kind == "multilabel":
        labels = (rng.random((n, 4)) < [0.5, 0.3, 0.1, 0]).astype(np.uint8)
        labels[0, 3] = 1
        known = 2.0 * labels - 1
    else:
        labels = rng.integers(0, KINDS[kind] - (kind == "multiclass"), n)
        if kind == "multiclass":
            labels[0] = 4
        known = 2.0 * np.eye(KINDS[kind])[labels]
    logits = known + np.random.default_rng(seed + 1).normal(0, noise, known.shape)
    return labels, np.round(logits, 1).astype(np.float32)


def sklearn_score(metric: str, labels: np.ndarray, logits: np.ndarray) -> float:
    """NaN where the labels allow no score."""
    if metric == "roc-auc":
        return _area(labels, logits)
    predicted = (logits > 0).astype(int) if labels.ndim == 2 else logits.argmax(axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if metric == "accuracy":
            return accuracy_score(labels, predicted)
        if metric == "matthews":
            return matthews_corrcoef(labels, predicted)
        average = metric.removesuffix("-f1")
        return f1_score(labels, predicted, average=average, zero_division=0)


def _area(labels: np.ndarray, logits: np.ndarray) -> float:
    if labels.ndim == 1 and logits.shape[1] == 2:
        kinds, values = labels[:, None] == 1, logits[:, 1:] - logits[:, :1]
    elif labels.ndim == 1:
        kinds = labels[:, None] == np.arange(logits.shape[1])
        values = softmax(logits.astype(np.float64), axis=1)
    else:
        kinds, values = labels, logits
    areas = []
    for positive, value in zip(np.asarray(kinds, bool).T, values.T, strict=True):
        if 0 < positive.sum() < len(positive):
            # Over all pairs; scikit-learn's checks take ten times as long as this.
            apart = value[positive][:, None] - value[~positive]
            areas.append(np.mean((apart > 0) + 0.5 * (apart == 0)))
    return float(np.mean(areas)) if areas else float("nan")


def naive_scores(
    metric: str, labels: np.ndarray, logits: list[np.ndarray], seed: int, resamples: int
) -> np.ndarray:
    """Scores (methods, resamples) of rows drawn one resample after the other."""
    rng, n = np.random.default_rng(seed), len(labels)
    scores = []
    for _ in range(resamples):
        rows = rng.integers(0, n, n)
        scores.append([sklearn_score(metric, labels[rows], values[rows]) for values in logits])
    return np.array(scores).T


def dataset_of(folder: Path, labels: dict[str, np.ndarray], **manifest) -> Dataset:
    """Write labels by task, of the test rows; those of the other splits repeat them."""
    rows = {task: np.resize(y, (2 * OTHERS, *y.shape[1:])) for task, y in labels.items()}
    columns = {task: np.concatenate([rows[task], y]) for task, y in labels.items()}
    n = len(next(iter(columns.values())))
    tasks = {}
    for task, y in columns.items():
        names = [f"{task} {k}" for k in range(y.shape[1] if y.ndim == 2 else y.max() + 1)]
        kind = "multi" if y.ndim == 2 else "single"
        tasks[task] = {"kind": kind, "labels": names, "counts": {}}
    write_dataset(
        folder,
        {"name": "made", "tasks": tasks, **manifest},
        pa.table({"text": [f"text {i}" for i in range(n)]}),
        {"train": OTHERS, "validation": OTHERS, "test": n - 2 * OTHERS},
        columns,
    )
    return read_dataset(folder, texts=False)


def drawn_seeds(seeds: int, seed: int, place: int, resamples: int) -> list[np.ndarray]:
    """Which seeds of a method each resample takes, one resample after the other."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(place,)))
    return [rng.integers(0, seeds, seeds) if seeds > 1 else np.array([0]) for _ in range(resamples)]
