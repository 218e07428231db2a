"""Whose code a classifier folder may run: whoever made the folder has not the say."""

from __future__ import annotations

import os
from pathlib import Path

from probeline.errors import ProbelineError
from probeline.files import read_json
from probeline.models.reference import read_config

_TOKENIZER = "tokenizer_config.json"


def check_trust(folder: str | os.PathLike, source: str, trusted: bool) -> None:
    """Refuse a folder whose model has Python code of its own, from `source`, unless trusted.

    Raises
    ------
    ProbelineError
        With what to read, and what to give then.
    """
    if not trusted:
        raise ProbelineError(
            f"{folder}: its model runs Python code of its own, from {source}; read that, "
            "and if you trust it give --trust-remote-code (in Python trust_remote_code=True)"
        )


def carries_code(folder: Path) -> bool:
    """Whether a model's folder names Python code and has it."""
    if not any(folder.glob("*.py")):
        return False
    described = [read_config(folder, str(folder))]
    if (folder / _TOKENIZER).is_file():
        described.append(read_json(folder / _TOKENIZER))
    return any("auto_map" in one for one in described)
