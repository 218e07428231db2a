"""The join stage: several parts of an extraction become one, without a copy."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from probeline.activations.names import LENGTHS, part_folder
from probeline.activations.parts import write_index
from probeline.activations.tokens import token_summary
from probeline.errors import ProbelineError
from probeline.files import read_json, replacing, write_json

logger = logging.getLogger(__name__)

# What is counted; the rest of a timing says how the work was done.
_SUMS = (
    "seconds",
    "extraction_seconds",
    "texts",
    "tokens",
    "blocks",
    "resumed_blocks",
    "batches",
    "bytes",
)


def write_lengths(folder: Path, lengths: np.ndarray) -> None:
    """Keep the token counts (int32, before truncation) of a part's texts for `join_parts`."""
    with replacing(folder / LENGTHS) as temporary, temporary.open("wb") as handle:
        np.save(handle, lengths, allow_pickle=False)


def join_parts(folder: Path, parts: int, names: Iterable[str]) -> None:
    """Make every shard of an extraction out of its parts; `tokens.json` and `timing.json` too.

    Parts stay where they are. What is written equals an extraction in one part: shards read the
    same and have the same attributes, `tokens.json` is the same file.

    Parameters
    ----------
    folder : Path
        Holds a folder `part-1-of-N`, ... for each part; shards are written here.
    parts : int
    names : iterable of str
        File names of the shards.

    Raises
    ------
    ProbelineError
        If a part is missing, damaged, unfinished, of other rows or of another run.
    """
    folders = [part_folder(number, parts) for number in range(1, parts + 1)]
    metas = [write_index(folder / name, [f"{part}/{name}" for part in folders]) for name in names]
    meta = metas[0]
    lengths = np.concatenate([_lengths(folder / part / LENGTHS) for part in folders])
    if len(lengths) != meta["rows"]:
        raise ProbelineError(
            f"{folder}: the files {LENGTHS} of its parts are of {len(lengths)} texts, its shards "
            f"of {meta['rows']}; delete the parts and run the same command again"
        )
    write_json(folder / "tokens.json", token_summary(lengths, meta["offsets"], meta["max_length"]))
    timings = [_timing(folder / part / "timing.json") for part in folders]
    write_json(folder / "timing.json", _joined(timings))
    logger.info("%s: %d shards of %d parts", folder, len(metas), parts)


def _lengths(path: Path) -> np.ndarray:
    try:
        with path.open("rb") as handle:
            found = np.lib.format.read_array(handle, allow_pickle=False)
    except FileNotFoundError:
        raise ProbelineError(f"{path}: no such file; run the same command again") from None
    except (OSError, ValueError, EOFError) as error:
        raise ProbelineError(
            f"{path}: damaged ({error}); delete it and run the same command again"
        ) from None
    if found.dtype != np.int32 or found.ndim != 1:
        raise ProbelineError(
            f"{path}: not one int32 per text; delete it and run the same command again"
        )
    return found


def _timing(path: Path) -> dict:
    found = read_json(path)
    for key in _SUMS:
        if not isinstance(found, dict) or type(found.get(key)) not in (int, float):
            raise ProbelineError(
                f"{path}: '{key}' is missing or no number; delete it and run the same command again"
            )
    return found


def _joined(timings: Sequence[dict]) -> dict:
    """Sums over the parts; a text's seconds are those of the part it was in."""
    sums = {key: round(sum(timing[key] for timing in timings), 3) for key in _SUMS}
    spent = sums["extraction_seconds"]
    speed = round(sums["texts"] / spent, 2) if spent else None
    return {**timings[0], **sums, "texts_per_second": speed, "parts": len(timings)}
