"""Files whose time of change lies in the future: the clock was set back, or is wrong elsewhere.

Snakemake goes by times of change: what is made now of a file from the future is older than it,
which Snakemake takes for an error after the job has done its work.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from probeline.cache.entries import KEY
from probeline.errors import ProbelineError
from probeline.files import explained

# Clocks of a cluster's machines are never quite the same.
_TOLERANCE = 60.0


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
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(path.stat().st_mtime))
        raise ProbelineError(
            f"{path}: changed at {when}, which is in the future; set the clock right, or give the "
            f"file a time that has been: touch '{path}'"
        )


def settle_times(folder: Path) -> int:
    """Give results from the future the present time, all of them the same; returns how many.

    None of them is then older than another that it is made from. Of a link it is the link's own
    time, by which Snakemake judges what a job has made; where it leads is settled too, but for an
    entry of a cache, which others use as well and may have stored.
    """
    now = time.time()
    # No more than this, unlike for inputs: a job that ends sooner than that would fail.
    limit = now + 1.0
    settled = set()
    for path in (folder / "results").rglob("*"):
        # What a job that was left behind removes meanwhile needs no time.
        with explained(path), suppress(FileNotFoundError):
            for follow in _own_times(path):
                if path.stat(follow_symlinks=follow).st_mtime > limit:
                    os.utime(path, (now, now), follow_symlinks=follow)
                    settled.add(path)
    return len(settled)


def _own_times(path: Path) -> tuple[bool, ...]:
    """Which times of `path` are its folder's own: with links followed, and without."""
    if not path.is_symlink():
        return (False,)
    shared = KEY.search(str(path.readlink())) or not path.exists()
    return (False,) if shared else (False, True)
