"""Ages and sizes as people write them."""

from __future__ import annotations

import math
import re

from probeline.errors import ProbelineError

_AGES = {"h": 3600, "d": 86400, "w": 7 * 86400}
_SIZES = {
    "": 1,
    "B": 1,
    **{f"{letter}B": 1000**power for power, letter in enumerate("KMGT", start=1)},
    **{f"{letter}iB": 1024**power for power, letter in enumerate("KMGT", start=1)},
}
_NUMBER = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)", re.ASCII)


def parse_age(text: str, option: str) -> float:
    """Return the seconds in an age such as ``30d``, ``12h`` or ``2w``.

    Raises
    ------
    ProbelineError
        If it is none; the message begins with `option`.
    """
    match = _NUMBER.fullmatch(text.strip())
    if not match or match[2] not in _AGES:
        raise ProbelineError(
            f"{option}: '{text}' is no age; expected a number and h, d or w, such as 30d"
        )
    return float(match[1]) * _AGES[match[2]]


def parse_size(text: str, option: str) -> int:
    """Return the bytes in a size such as ``50GB``, ``1.5TB`` or ``200MiB``.

    Raises
    ------
    ProbelineError
        If it is none; the message begins with `option`.
    """
    units = {unit.lower(): factor for unit, factor in _SIZES.items()}
    match = _NUMBER.fullmatch(text.strip())
    if not match or match[2].lower() not in units:
        raise ProbelineError(
            f"{option}: '{text}' is no size; expected a number and B, KB, MB, GB, TB, KiB, MiB, "
            "GiB or TiB, such as 50GB"
        )
    return math.floor(float(match[1]) * units[match[2].lower()])


def age_text(seconds: float) -> str:
    """Return the age in its largest whole unit: ``3d``, ``5h``, ``12min``."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(0, int(seconds))}s"


def size_text(size: float) -> str:
    """Return the size in decimal units: ``1.2 GB``."""
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
