"""What interrupted jobs have left: temporary files, states to go on from, marks of Snakemake."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from probeline.doctor.findings import DELETE, INCOMPLETE, RUN, UNLOCK, Finding
from probeline.workflow.states import STATES, half_made, snakemake_locks


def temporary(name: str, locked: bool) -> Finding:
    """A file under a name that no finished job leaves."""
    if locked:
        reason = "temporary file of an interrupted job, or of one that is at work"
        return Finding(INCOMPLETE, name, reason, UNLOCK)
    return Finding(INCOMPLETE, name, "temporary file of an interrupted job", DELETE, name)


def states(folder: Path, pending: bool) -> Iterator[Finding]:
    """State folders; `pending` says whether a job is left that may go on from them."""
    locked = bool(snakemake_locks(folder))
    home = folder / STATES
    for path in sorted(_deepest(home)) if home.is_dir() else ():
        name = path.relative_to(folder).as_posix()
        if pending:
            yield Finding(INCOMPLETE, name, "state of an interrupted job, which goes on", RUN)
        elif locked:
            reason = "state of a job that nothing needs, or of one that is at work"
            yield Finding(INCOMPLETE, name, reason, UNLOCK)
        else:
            yield Finding(INCOMPLETE, name, "state of a job that nothing needs", DELETE, name)


def _deepest(folder: Path) -> Iterator[Path]:
    """The topmost folders that hold files, those of all stages; locks are no state, they stay."""
    for path in folder.iterdir():
        if path.is_dir():
            if any(inside.is_file() and inside.suffix != ".lock" for inside in path.iterdir()):
                yield path
            else:
                yield from _deepest(path)


def marks(folder: Path) -> Iterator[Finding]:
    """Outputs that Snakemake knows to be half-made, and its locks."""
    for name in half_made(folder):
        if (folder / name).exists():
            yield Finding(INCOMPLETE, name, "its job was killed while it wrote", RUN)
    if snakemake_locks(folder):
        reason = "the lock of another snakemake, or of one that was killed"
        yield Finding(INCOMPLETE, ".snakemake/locks", reason, UNLOCK)
