"""Is a file whole, as far as its format can tell? Without what its job has said of it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import yaml

from probeline import hdf5
from probeline.activations.parts import PartedShard
from probeline.activations.shards import open_part, open_shard
from probeline.errors import ProbelineError
from probeline.files import refused
from probeline.models.weights import check_safetensors
from probeline.sealed import reading

_PNG, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
# Long texts stand in tables too.
csv.field_size_limit(1 << 30)


def trouble(path: Path) -> str | None:
    """What is wrong with a file, in a few words; None if nothing is, or its format is not known."""
    check = _CHECKS.get(path.suffix)
    if check is None:
        return None
    try:
        with refused(path):
            check(path)
    except ProbelineError as error:
        return _without_remedy(str(error).removeprefix(f"{path}: "))
    except MemoryError:
        raise
    # As many kinds as there are ways to be broken.
    except Exception as error:
        return f"cannot be read ({' '.join(str(error).split()) or type(error).__name__})"
    return None


def shard_trouble(path: Path, part: bool, advance: Callable[[int], object]) -> str | None:
    """The same for a shard, or a part of one, all of whose rows are read; `advance` gets the bytes
    of each step."""
    try:
        with (open_part if part else open_shard)(path) as shard:
            size = path.stat().st_size
            if isinstance(shard, PartedShard) or not shard.rows:
                # An index has looked at its parts; their rows are read where they lie.
                advance(size)
                return None
            row = size / shard.rows
            shard.check(lambda rows: advance(int(rows * row)))
    except ProbelineError as error:
        return _without_remedy(str(error).removeprefix(f"{path}: ").removeprefix("damaged: "))
    return None


def _without_remedy(message: str) -> str:
    """The doctor has remedies of its own. Some messages end without one."""
    return message.rpartition("; ")[0] or message


def _hdf5(path: Path) -> None:
    with reading(path, "a readable file") as file:
        hdf5.attributes(file)


def _json(path: Path) -> None:
    json.loads(path.read_text(encoding="utf-8"))


def _npy(path: Path) -> None:
    # Not `load`, which takes other formats too, and room for as many values as the file claims.
    np.lib.format.open_memmap(path, "r")


def _parquet(path: Path) -> None:
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        for _ in file.iter_batches():
            pass


def _csv(path: Path) -> None:
    with path.open(encoding="utf-8", newline="") as handle:
        rows = csv.reader(handle, strict=True)
        width = len(next(rows, []))
        for row in rows:
            if len(row) != width:
                raise ValueError(f"line {rows.line_num}: {len(row)} columns, not {width}")


def _yaml(path: Path) -> None:
    yaml.safe_load(path.read_text(encoding="utf-8"))


def _text(path: Path) -> None:
    path.read_text(encoding="utf-8")


def _svg(path: Path) -> None:
    if not path.read_text(encoding="utf-8").rstrip().endswith("</svg>"):
        raise ValueError("cut off")


def _png(path: Path) -> None:
    content = path.read_bytes()
    if not (content.startswith(_PNG) and content.endswith(_PNG_END)):
        raise ValueError("cut off, or no PNG")


_CHECKS = {
    ".h5": _hdf5,
    ".json": _json,
    ".npy": _npy,
    ".parquet": _parquet,
    ".safetensors": check_safetensors,
    ".csv": _csv,
    ".yaml": _yaml,
    ".md": _text,
    ".svg": _svg,
    ".png": _png,
}
