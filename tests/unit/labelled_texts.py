"""Small dataset folders of real words, in which a text's words tell its label."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from tiny_models import WORDS

from probeline.data.writing import write_dataset

SIZES = {"train": 24, "validation": 12, "test": 12}
LABELS = ("second_half", "stock-markets", "rain", "longSpeech")


def labelled(
    folder: Path,
    kind: str = "multiclass",
    pairs: bool = False,
    labels=LABELS,
    codes=None,
    sizes=SIZES,
    hierarchy: bool = False,
) -> Path:
    """Write a dataset; `kind` is binary, multiclass or multilabel.

    `codes` replaces the labels of all rows. With `hierarchy` some rows have no label.
    """
    rng = np.random.default_rng(0)
    rows = sum(sizes.values())
    names = list(labels[:2] if kind == "binary" else labels)
    if codes is None:
        codes = np.arange(rows) % len(names)
        if kind == "multilabel":
            codes = rng.random((rows, len(names))) < 0.4
            codes[: len(names)] |= np.eye(len(names), dtype=bool)
        elif hierarchy:
            codes[::5] = -1
    texts = [_text(rng, codes[row]) for row in range(rows)]
    columns = {"text": texts}
    if pairs:
        columns["text_pair"] = [_text(rng, codes[row]) for row in range(rows)]
    task = {"kind": "multi" if kind == "multilabel" else "single", "labels": names, "counts": {}}
    write_dataset(
        folder,
        {"name": "labelled", "tasks": {"label": task}},
        pa.table(columns),
        sizes,
        {"label": codes},
    )
    return folder


def _text(rng, codes) -> str:
    """Two to nine words: a few of each label's own, the rest of all."""
    own = np.flatnonzero(codes) if np.ndim(codes) else [int(codes)]
    words = list(rng.choice(WORDS[:30], size=rng.integers(2, 7)))
    words += [WORDS[30 + code] for code in own if code >= 0]
    return " ".join(rng.permutation(words).tolist())
