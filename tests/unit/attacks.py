"""Files that would run a program if they were read as pickles; all they do is make a folder."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import torch

MARKER = "PROBELINE_TEST_MARKER"


class Bomb:
    """Makes the folder that the environment variable names, when it is unpickled."""

    def __reduce__(self):
        return (os.mkdir, (os.environ[MARKER],))


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps({"weight": Bomb()}))


def torch_zip(path: Path) -> None:
    torch.save({"weight": Bomb()}, path)


def torch_legacy(path: Path) -> None:
    torch.save({"weight": Bomb()}, path, _use_new_zipfile_serialization=False)


FORMATS: dict[str, Callable[[Path], None]] = {
    "pickle": pickled,
    "torch zip": torch_zip,
    "torch legacy": torch_legacy,
}


def with_code(folder: Path, classes: dict[str, str], name: str = "config.json") -> None:
    """Add Python code to a model's folder, and the `auto_map` that leads to it."""
    path = folder / name
    described = json.loads(path.read_text(encoding="utf-8")) | {"auto_map": classes}
    path.write_text(json.dumps(described), encoding="utf-8")
    code = f"import os\nos.mkdir(os.environ[{MARKER!r}])\n"
    (folder / "modeling_mine.py").write_text(code, encoding="utf-8")
