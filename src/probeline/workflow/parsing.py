"""What the Snakefile does while it is parsed; mistakes of the user are lines, not a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from probeline.config import read
from probeline.errors import ProbelineError
from probeline.workflow.plan import Plan, load_plan
from probeline.workflow.sharing import note_use, refuse_broken, refuse_nameless, shared_folder


@contextmanager
def _lines() -> Iterator[None]:
    try:
        yield
    except ProbelineError as error:
        print(error, file=sys.stderr)
        sys.exit(1)


@_lines()
def own_config(basedir: str | os.PathLike) -> str:
    """The configuration of a run that is given none: the working directory's, else the default.

    It is read here already, since Snakemake's reader does not say what is wrong with a file.
    """
    own = Path("config.yaml")
    path = own if own.is_file() else Path(basedir) / own
    read(path)
    return str(path)


@_lines()
def shared_or_exit(asked: Sequence[str] | None, whole: bool) -> Path | None:
    """`shared_folder`; on a mistake its line is printed, and Snakemake ends with status 1.

    Parameters
    ----------
    whole : bool
        Whether this is the run itself, and no job of it: it also looks at what it has of a cache.
    """
    if whole:
        refuse_broken(Path())
    return shared_folder(asked)


@_lines()
def start_or_exit(shared: Path | None, asked: Sequence[str] | None, local: bool) -> None:
    """What a run does before its first job: the cache learns who uses it."""
    refuse_nameless(asked, local)
    note_use(shared, running=True)


@_lines()
def plan_or_exit(config: dict, files: Iterable[str | os.PathLike]) -> Plan:
    """`load_plan`; on mistakes all of them are printed, and Snakemake ends with status 1."""
    return load_plan(config, files)


def end_badly(logs: Iterable[str | os.PathLike]) -> None:
    """After a run that failed or was interrupted: nothing of it runs on, and what failed is told.

    Parameters
    ----------
    logs : iterable of paths
        Snakemake's own.
    """
    # Only here: no run that goes well needs them, nor the jobs of a cluster.
    from probeline.workflow.failures import failures
    from probeline.workflow.slurm import cancel_left

    for path in logs:
        try:
            text = Path(path).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        cancel_left(text)
        for line in failures(text, Path()):
            print(f"probeline: {line}", file=sys.stderr)
