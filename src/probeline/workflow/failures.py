"""After a run that failed: which jobs did, and why, a line each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from probeline.provenance import record_path

_ERROR = re.compile(r"^\S+ \S+ ERROR (.+)$", re.MULTILINE)
_TAIL = 1 << 16
_KILLED = (
    "the job ended without a word, as when it is killed for want of memory; give it more, or run "
    "fewer jobs at once (--cores), then run the same command again"
)


def failed_jobs(folder: Path, since: float) -> Iterator[str]:
    """Say which jobs failed, from their logs: the error, or that there is none.

    Parameters
    ----------
    folder : Path
        Where `logs/` and `results/` lie.
    since : float
        When the run began; jobs that were not started after it are left out.
    """
    for log in sorted((folder / "logs").rglob("*.log")):
        changed = log.stat().st_mtime
        if changed < since:
            continue
        errors = _ERROR.findall(_tail(log))
        name = log.relative_to(folder)
        if errors:
            yield f"{name}: {errors[-1]}"
        elif not _recorded(folder / record_path(name.as_posix()), changed):
            yield f"{name}: {_KILLED}"


def _tail(log: Path) -> str:
    with log.open("rb") as handle:
        handle.seek(max(0, log.stat().st_size - _TAIL))
        return handle.read().decode("utf-8", "replace")


def _recorded(record: Path, changed: float) -> bool:
    """Whether a job came to its end: it writes its record after the last line of its log."""
    return record.is_file() and record.stat().st_mtime >= changed
