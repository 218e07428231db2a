"""Files whose time of change lies in the future: the clock was set back, or is wrong elsewhere.

Snakemake goes by times of change: what is made now of a file from the future is older than it,
which Snakemake takes for an error after the job has done its work.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from probeline.cache.entries import key_of
from probeline.errors import ProbelineError
from probeline.files import explained, refused, walk

# Clocks of a cluster's machines are never quite the same.
_TOLERANCE = 60.0
# Of Snakemake, in every folder that is an output.
_TIMESTAMP = ".snakemake_timestamp"


def from_future(paths: Iterable[Path], tolerance: float = _TOLERANCE) -> list[Path]:
    """Those of `paths` that were changed later than now."""
    limit = time.time() + tolerance
    return [path for path in paths if path.exists() and path.stat().st_mtime > limit]


def refuse_future(paths: Iterable[Path]) -> None:
    """Refuse inputs from the future.

    Raises
    ------
    ProbelineError
        Naming the first of them.
    """
    for path in from_future(paths):
        raise ProbelineError(
            f"{path}: changed at {time_of(path)}, which is in the future; set the clock "
            f"right, or give the file a time that has been: touch '{path}'"
        )


def time_of(path: Path) -> str:
    """When a file was changed, in words."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(path.stat().st_mtime))


def settle_times(folder: Path) -> int:
    """Give results from the future the present time, all of them the same; returns how many.

    None of them is then older than another that it is made from. Of a link it is the link's own
    time, by which Snakemake judges what a job has made; where it leads is settled too, a folder
    with all that is in it, but for an entry of a cache, which others use as well and may have
    stored.
    """
    now = time.time()
    # No more than this, unlike for inputs: a job that ends sooner than that would fail.
    limit = now + 1.0
    settled = set()
    for path in _results(folder):
        # What a job that was left behind removes meanwhile needs no time.
        with explained(path), suppress(FileNotFoundError):
            for follow in _own_times(path):
                if path.stat(follow_symlinks=follow).st_mtime > limit:
                    os.utime(path, (now, now), follow_symlinks=follow)
                    settled.add(path)
    return len(settled)


def shared_from_future(folder: Path) -> dict[Path, Path]:
    """Results that lead to an entry of a cache from the future, and where the entry lies.

    `settle_times` leaves these as they are. Snakemake takes the time of an input from where its
    link leads, so that what is made from such an entry is never newer.
    """
    found = {}
    for path in filter(_is_entry, _results(folder)):
        with refused(path):
            # Of a folder that a job has made, the time is that of a file in it.
            stamp = path / _TIMESTAMP
            timed = stamp if stamp.is_file() else path
            if from_future([timed]):
                found[path] = timed.resolve()
    return found


def _results(folder: Path) -> Iterator[Path]:
    return walk(folder / "results", into=lambda path: not _is_entry(path))


def _is_entry(path: Path) -> bool:
    """Whether this is a link to an entry of a cache."""
    try:
        return path.is_symlink() and key_of(path) is not None
    except FileNotFoundError:
        return False


def _own_times(path: Path) -> tuple[bool, ...]:
    """Which times of `path` are its folder's own: with links followed, and without."""
    if not path.is_symlink() or _is_entry(path) or not path.exists():
        return (False,)
    return (False, True)
