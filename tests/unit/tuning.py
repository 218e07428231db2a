"""Triplets of a toy set, and one call that tunes a tiny embedder on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from tiny_models import WORDS

from probeline.data.store import read_dataset
from probeline.lrsl.tune import tune

OPTIONS = {"epochs": 3, "batch_size": 4, "learning_rate": 1e-3, "warmup": 0.2}


def texts_of(labels) -> dict[str, str]:
    """A word of the tiny tokenizers' vocabulary for each label."""
    return {label: WORDS[4 + code] for code, label in enumerate(labels)}


def toy_triplets(data: Path, count: int = 160) -> pa.Table:
    """For training texts in turn: a true label, and the next label that is not true."""
    dataset = read_dataset(data)
    labels, y = dataset.tasks["label"]["labels"], dataset.labels("label")
    texts, entries = texts_of(labels), []
    for row in range(dataset.offsets["train"][1]):
        true = np.atleast_1d(y[row]) if y.ndim == 1 else np.flatnonzero(y[row])
        false = [code for code in range(len(labels)) if code not in true]
        for code in true if false else ():
            entries.append(
                {
                    "row": row,
                    "text": dataset.texts[row],
                    "label": labels[code],
                    "positive": texts[labels[code]],
                    "negative_label": labels[false[row % len(false)]],
                    "negative": texts[labels[false[row % len(false)]]],
                }
            )
    return pa.Table.from_pylist(entries[:count])


def run(
    data: Path,
    embedder: Path,
    folder: Path,
    seed: int = 1,
    table=None,
    keep_state=False,
    **options,
) -> Path:
    """Tune into `folder`; return the embedding's folder."""
    tune(
        toy_triplets(data) if table is None else table,
        data,
        "label",
        {"path": str(embedder), "device": "cpu"},
        folder / "embedding",
        folder / "state",
        OPTIONS | options,
        seed,
        texts_of(read_dataset(data).tasks["label"]["labels"]),
        template="about {label}",
        keep_state=keep_state,
    )
    return folder / "embedding"
