"""State folders of jobs, from which a killed job goes on.

They lie outside the outputs, which Snakemake deletes when a job has failed or was killed: also when
the job was done, but Snakemake was killed before it took note. So what is done stays here until a
run has come to its end.

A run that is killed may leave jobs behind that work on. The next run's job of that name waits for
them: a folder has one user at a time.
"""

from __future__ import annotations

import base64
import binascii
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from probeline.locks import Lock, take

STATES = Path(".probeline")
RUN_LOCK = STATES / "run.lock"
_FINISHED = "finished"
_SNAKEMAKE = Path(".snakemake")

logger = logging.getLogger(__name__)


@contextmanager
def held(*names: str, folder: Path | None = None, made: str | os.PathLike = "") -> Iterator[Path]:
    """Hold the state folder of a job, alone; it need not exist.

    Parameters
    ----------
    names : str
        Its place below `STATES`: the stage, then what tells the job from others of it.
    folder : path, optional
        Where it lies instead; its lock lies below `STATES` all the same.
    made : path, optional
        A result of the job, without which its state is not forgotten: after its end the job can
        still fail, and Snakemake delete what it has made.

    Yields
    ------
    Path
        If it is still there in the end, it is marked as one of a job that is done.
    """
    place = STATES.joinpath(*names)
    folder = folder or place
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.with_name(f"{place.name}.lock").open("w") as handle:
        _wait(handle, folder)
        yield folder
        if folder.is_dir():
            (folder / _FINISHED).write_text(str(made), encoding="utf-8")


def _wait(handle, folder: Path) -> None:
    lock = take(handle)
    if lock is Lock.BUSY:
        logger.info("%s: an earlier run's job is still at work there; waiting for it", folder)
        lock = take(handle, wait=True)
    if lock is Lock.IMPOSSIBLE:
        logger.warning("%s: cannot be locked here: %s", folder, lock.value)


def snakemake_locks(folder: Path) -> set[str]:
    """Names of Snakemake's locks in a folder: one works there or was killed, it alone can tell."""
    return {path.name for path in (folder / _SNAKEMAKE / "locks").glob("*")}


def half_made(folder: Path) -> list[str]:
    """Outputs, by name, of jobs that have begun there and not ended, as Snakemake has noted them.

    Its notes are files named by the output in base64. A long name is cut, and all of its parts but
    the last are folders that begin with an ``@``.
    """
    home = folder / _SNAKEMAKE / "incomplete"
    notes = (path.relative_to(home).parts for path in home.rglob("*") if path.is_file())
    return sorted(_decoded("".join(part.removeprefix("@") for part in note)) for note in notes)


def _decoded(name: str) -> str:
    try:
        return base64.urlsafe_b64decode(name).decode()
    except (binascii.Error, UnicodeDecodeError):
        return name


def forget_finished(folder: Path = Path()) -> None:
    """Delete the state folders of jobs that are done, in a run's working directory.

    As long as Snakemake has noted jobs there that have begun and not ended, from an earlier run for
    other targets, all stays; and always that of a job whose result is not there.
    """
    if half_made(folder):
        return
    for mark in list((folder / STATES).rglob(_FINISHED)):
        # A model may be called so.
        if mark.is_file() and (folder / mark.read_text(encoding="utf-8")).exists():
            shutil.rmtree(mark.parent, ignore_errors=True)
