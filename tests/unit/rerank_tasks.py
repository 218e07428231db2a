"""Tasks of random labels with logits that know something of them, and similarities."""

from __future__ import annotations

import numpy as np

from probeline.probe.task import TaskData

SIZES = {"train": 40, "validation": 60, "test": 70}


def random_task(kind: str = "multiclass", metric: str | None = None, seed: int = 0) -> TaskData:
    rng = np.random.default_rng(seed)
    labels = ("no", "yes") if kind == "binary" else ("rain", "wind", "snow", "sun", "fog")
    rows, y, first = {}, {}, 0
    for split, n in SIZES.items():
        rows[split] = np.arange(first, first + n)
        first += n
        if kind == "multilabel":
            y[split] = (rng.random((n, len(labels))) < 0.4).astype(np.uint8)
        else:
            y[split] = rng.integers(0, len(labels), n)
    multilabel = kind == "multilabel"
    metric = metric or ("micro-f1" if multilabel else "accuracy")
    return TaskData("label", labels, multilabel, metric, rows, y)


def guesses(task: TaskData, split: str, seed: int, strength: float = 1.5) -> np.ndarray:
    """Float32 (n, K) that is higher where the label is true, with noise."""
    rng = np.random.default_rng(seed)
    y = task.y[split]
    true = y if task.multilabel else np.eye(task.classes)[y]
    return (strength * (true - 0.5) + rng.normal(size=true.shape)).astype(np.float32)


def cosines(task: TaskData, split: str, seed: int) -> np.ndarray:
    return np.tanh(0.5 * guesses(task, split, seed)).astype(np.float32)
