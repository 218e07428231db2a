"""Small dataset folders, written by the library's own writer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from probeline.data.writing import write_dataset


def write_texts(folder: Path, texts, pairs=None, name: str = "tiny") -> Path:
    """Write `texts` as a dataset of two alternating labels: half train, a quarter each the rest."""
    rows = len(texts)
    columns = {"text": list(texts)} | ({"text_pair": list(pairs)} if pairs else {})
    half, quarter = rows // 2, rows // 4
    sizes = {"train": half, "validation": quarter, "test": rows - half - quarter}
    task = {"kind": "single", "labels": ["no", "yes"], "counts": {}}
    write_dataset(
        folder,
        {"name": name, "tasks": {"label": task}},
        pa.table(columns),
        sizes,
        {"label": np.arange(rows) % 2},
    )
    return folder
