"""What lies in the cache. Snakemake writes a file per output: a key of 64 digits, then its name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

KEY = re.compile(r"[0-9a-f]{64}")
# Where Snakemake puts what it copies, until it is whole; stays behind a run that is killed.
_UNFINISHED = re.compile(r"tmp[a-z0-9_]{8}")


@dataclass(frozen=True)
class Entry:
    """The outputs of one job.

    Attributes
    ----------
    key : str
        64 hexadecimal digits.
    parts : dict of str to Path
        What follows the key in a name: the file or folder.
    size : int
        Bytes.
    made : float
        When the last of it was written by the job, in seconds since the epoch.
    stored : float
        When the last of it came into the cache.
    owner : str
        Who stored it.
    """

    key: str
    parts: dict[str, Path]
    size: int
    made: float
    stored: float
    owner: str


def key_of(link: Path) -> str | None:
    """The key of the entry that a link leads to, if it does; to a file in one as well."""
    found = (KEY.match(part) for part in link.readlink().parts)
    return next((match[0] for match in found if match), None)


def read_entries(folder: Path) -> list[Entry]:
    """Return the entries of a cache, by key. What vanishes meanwhile is left out."""
    parts: dict[str, dict[str, Path]] = {}
    for path in folder.iterdir():
        if match := KEY.match(path.name):
            parts.setdefault(match[0], {})[path.name[match.end() :]] = path
    found = (_entry(key, dict(sorted(parts[key].items()))) for key in sorted(parts))
    return [entry for entry in found if entry is not None]


def unfinished(folder: Path) -> list[Path]:
    """Return folders in which runs put what they are copying, or were when they were killed.

    Others make folders with such names; Snakemake's hold entries and nothing else.
    """
    return sorted(p for p in folder.iterdir() if _UNFINISHED.fullmatch(p.name) and _holds_keys(p))


def _holds_keys(path: Path) -> bool:
    try:
        return not path.is_symlink() and all(KEY.match(file.name) for file in path.iterdir())
    except OSError:  # no folder, gone, or closed to us
        return False


def last_change(path: Path) -> float:
    """Return when anything in `path` last changed, names included; 0 where nothing is."""
    return max((state.st_ctime for state in _states(path)), default=0.0)


def _entry(key: str, parts: dict[str, Path]) -> Entry | None:
    states = [state for path in parts.values() for state in _states(path)]
    if not states:
        return None
    files = [state for state in states if not _is_folder(state)]
    return Entry(
        key,
        parts,
        sum(state.st_size for state in files),
        max(state.st_mtime for state in files or states),
        max(state.st_ctime for state in states),
        user_name(states[0].st_uid),
    )


def user_name(number: int) -> str:
    """Return the name of a user, or the number where this machine knows none."""
    try:
        import pwd

        return pwd.getpwuid(number).pw_name
    except (ImportError, KeyError):
        return str(number)


def _is_folder(state: os.stat_result) -> bool:
    return (state.st_mode & 0o170000) == 0o040000


def _states(path: Path) -> Iterator[os.stat_result]:
    """Of a file, or of a folder and all that lies in it."""
    paths = [path]
    while paths:
        path = paths.pop()
        try:
            state = path.lstat()
            if _is_folder(state):
                paths += path.iterdir()
        except OSError:  # gone, or closed to us
            continue
        yield state
