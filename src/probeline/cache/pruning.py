"""Which entries may go, and how they go while others work."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from probeline.cache.entries import KEY, Entry, last_change, unfinished
from probeline.cache.uses import OWN, InUse, own_folder
from probeline.errors import ProbelineError
from probeline.files import explained
from probeline.locks import Lock, take

# What was stored within the last hour may be on its way into a folder; what a killed run left
# behind is known by lying there for a day.
SETTLED, _LEFT = 3600, 86400
_REMOVED = "removed"


@dataclass(frozen=True)
class Choice:
    """What may go.

    Attributes
    ----------
    entries : list of Entry
        Least recently used first.
    short : int
        Bytes by which the cache stays above the size that was asked for, since the rest is used.
    young : int
        Entries that nothing uses, and that stay because they were stored within the last hour.
    """

    entries: list[Entry]
    short: int
    young: int


def choose(
    entries: list[Entry],
    used: Mapping[str, float],
    in_use: Container[str],
    now: float,
    older_than: float | None = None,
    keep: int | None = None,
) -> Choice:
    """Choose what goes: what was not used for long, then until no more than a size is kept.

    Parameters
    ----------
    entries : list of Entry
        Those that are probeline's.
    used : mapping of str to float
        When each was last used, in seconds since the epoch, by its key.
    in_use : container of keys of entries
        Those that some folder uses: they stay.
    now : float
    older_than : float, optional
        Seconds.
    keep : int, optional
        Bytes, of all `entries` together.
    """
    unused = [entry for entry in entries if entry.key not in in_use]
    free = [entry for entry in unused if now - entry.stored > SETTLED]
    free.sort(key=lambda entry: (used[entry.key], entry.key))
    limit = math.inf if older_than is None else older_than
    chosen = [entry for entry in free if now - used[entry.key] > limit]
    left = sum(entry.size for entry in entries) - sum(entry.size for entry in chosen)
    if keep is not None:
        for entry in free[len(chosen) :]:
            if left <= keep:
                break
            chosen.append(entry)
            left -= entry.size
    return Choice(chosen, 0 if keep is None else max(0, left - keep), len(unused) - len(free))


def leftovers(cache: Path, now: float) -> list[Path]:
    """Return what runs that were killed while they stored something have left behind."""
    return [path for path in unfinished(cache) if now - last_change(path) > _LEFT]


def remove(
    cache: Path, entries: list[Entry], others: list[Path], look: Callable[[], InUse]
) -> tuple[list[str], list[str]]:
    """Remove entries, unless a run begins to use one meanwhile.

    They are first moved aside, where no run finds them any more; then the working directories are
    looked at once more, and what has come to be used is put back. A kill in between loses
    nothing: the next call decides again.

    Parameters
    ----------
    cache : Path
    entries : list of Entry
    others : list of Path
        Leftovers.
    look : callable
        Returns what is used now.

    Returns
    -------
    removed : list of str
        Keys that are gone.
    refused : list of str
        A line each for what the operating system does not let go.

    Raises
    ------
    ProbelineError
        If nothing may be moved in this cache, or another call removes something.
    """
    with explained(cache / OWN):
        aside = own_folder(cache, _REMOVED)
    with _alone(cache):
        refused = [line for entry in entries for line in _moved(entry, aside)]
        in_use = look()
        gone = (_settled(path, cache, in_use) for path in list(aside.iterdir()))
        removed = list(dict.fromkeys(key for key in gone if key))
    return removed, refused + [line for path in others for line in _cleared(path)]


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """Hold the cache against another call."""
    path = cache / OWN / "lock"
    new = not path.exists()
    # Over NFS only what is open for writing can be locked.
    with path.open("a") as handle:
        if new:
            path.chmod(cache.stat().st_mode & 0o666)
        lock = take(handle)
        if lock is Lock.BUSY:
            raise ProbelineError(
                f"{cache}: another `probeline cache` removes entries; run again when it has ended"
            )
        if lock is Lock.IMPOSSIBLE:
            raise ProbelineError(
                f"{path}: cannot be locked: {lock.value}, so that two that remove entries at once "
                "could lose some in use; run it on a machine where the disk has locks"
            )
        yield


def _moved(entry: Entry, aside: Path) -> list[str]:
    """Move the files of an entry; all of them stay where one cannot be moved."""
    moved = []
    for path in entry.parts.values():
        try:
            path.replace(aside / path.name)
            moved.append(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            for other in moved:
                (aside / other.name).replace(other)
            return [f"{path}: of {entry.owner}, cannot be removed: {os.strerror(error.errno)}"]
    return []


def _settled(path: Path, cache: Path, in_use: Container[str]) -> str | None:
    """Put back what is used, delete the rest; returns the key of what is gone."""
    match = KEY.match(path.name)
    used = match is not None and match[0] in in_use
    # Not over what a run has made anew meanwhile.
    if used and not (cache / path.name).exists():
        path.replace(cache / path.name)
        return None
    _deleted(path)
    return None if used or match is None else match[0]


def _cleared(path: Path) -> list[str]:
    """Delete what a folder holds of entries; it stays if something else has come into it."""
    try:
        lines = [line for file in path.iterdir() if KEY.match(file.name) for line in _deleted(file)]
        path.rmdir()
    except FileNotFoundError:
        return []
    except OSError as error:
        return [f"{path}: cannot be removed: {os.strerror(error.errno)}"]
    return lines


def _deleted(path: Path) -> list[str]:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except FileNotFoundError:
        return []
    except OSError as error:
        return [f"{path}: cannot be removed: {os.strerror(error.errno)}"]
    return []
