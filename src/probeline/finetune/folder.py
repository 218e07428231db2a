"""What the folders of trained models have in common: a file's name, and who may read them."""

from __future__ import annotations

from pathlib import Path

TRAINING = "training.json"


def readable(folder: Path, like: Path) -> None:
    """Give all files the mode of `like`.

    safetensors makes files that are their owner's alone to read, but folders are handed on.
    """
    mode = like.stat().st_mode
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)
