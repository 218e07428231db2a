"""Toy sets that tiny random models learn, and one call that fine-tunes on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from tiny_models import WORDS

from probeline.data.writing import write_dataset
from probeline.finetune.kind import REGULAR
from probeline.finetune.stage import finetune

# Words of the tiny tokenizers' vocabulary; the first ones tell the classes apart.
SIGNS, FILLERS = WORDS[:4], WORDS[10:40]
SIZES = {"train": 48, "validation": 24, "test": 24}
FAST = {"epochs": 6, "learning_rate": 5e-3, "batch_size": 8, "warmup": 0.0}


def toy_texts(codes, seed: int = 0) -> list[str]:
    """One text per code: the class's sign repeated among fillers, of varied length."""
    rng = np.random.default_rng(seed)
    texts = []
    for code in codes:
        words = [*rng.choice(FILLERS, rng.integers(1, 6)), *[SIGNS[code]] * 3]
        texts.append(" ".join(rng.permutation(words)))
    return texts


def write_toy(
    folder: Path, classes: int = 2, pairs: bool = False, undefined: bool = False, train: int = 48
) -> Path:
    """A separable single-label set: the sign of the text, or of its pair, says the class."""
    rng = np.random.default_rng(0)
    sizes = SIZES | {"train": train}
    rows = sum(sizes.values())
    codes = rng.permutation(np.arange(rows) % classes)
    texts = toy_texts(codes)
    columns = {"text": texts}
    if pairs:
        columns = {"text": [FILLERS[row % 5] for row in range(rows)], "text_pair": texts}
    if undefined:
        codes = np.where(np.arange(rows) % 7 == 3, -1, codes)
    return _write(folder, columns, codes, [f"label {k}" for k in range(classes)], "single", sizes)


def write_multilabel(folder: Path, train: int = 160) -> Path:
    """Three labels, each present where its sign is."""
    rng = np.random.default_rng(0)
    sizes = SIZES | {"train": train}
    rows = sum(sizes.values())
    has = rng.random((rows, 3)) < 0.4
    texts = []
    for row in has:
        words = list(rng.choice(FILLERS, 2))
        for label in np.flatnonzero(row):
            words += [SIGNS[label]] * 3
        texts.append(" ".join(rng.permutation(words)))
    return _write(folder, {"text": texts}, has, ["a", "b", "c"], "multi", sizes)


def _write(folder: Path, columns: dict, codes, labels: list[str], kind: str, sizes: dict) -> Path:
    task = {"kind": kind, "labels": labels, "counts": {}}
    write_dataset(
        folder,
        {"name": "toy", "tasks": {"label": task}},
        pa.table(columns),
        sizes,
        {"label": codes},
    )
    return folder


def run(
    data: Path,
    model: Path,
    folder: Path,
    seed: int = 1,
    metric=None,
    spec=None,
    kind=REGULAR,
    keep_state=False,
    **options,
) -> Path:
    """Fine-tune into `folder`; return the model's folder."""
    finetune(
        data,
        "label",
        "tiny",
        {"path": str(model), "device": "cpu", **(spec or {})},
        folder / "model",
        folder / "predictions.h5",
        folder / "scores.json",
        folder / "state",
        {**FAST, **options},
        seed,
        metric,
        kind,
        keep_state,
    )
    return folder / "model"
