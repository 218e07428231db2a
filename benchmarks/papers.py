"""The papers' full matrix as it is shipped, ready to be planned anywhere."""

from __future__ import annotations

from pathlib import Path

import yaml

CONFIG = Path(__file__).resolve().parents[1] / "configs/papers/stc.yaml"


def matrix(folder: Path) -> dict:
    """The configuration: 10 models on every dataset, 12 on the one they were fine-tuned on.

    A plan asks whether a dataset's files are there and does not read them: empty ones stand in
    `folder`.
    """
    config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    for entry in config["datasets"].values():
        if entry["loader"] != "hub":
            for name in entry["splits"].values():
                path = folder / entry["path"] / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
    return config | {"data_root": str(folder)}
