"""`probeline doctor`: what is wrong with a folder of results, and which command mends it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from probeline.doctor.examine import RESULTS, Report, artifacts, examine, require_results
from probeline.doctor.findings import Finding
from probeline.doctor.planned import planned
from probeline.doctor.report import print_report
from probeline.errors import ProbelineError
from probeline.workflow.run import is_running

__all__ = ["Finding", "Report", "doctor", "examine"]


def doctor(
    folder: str | Path, arguments: Sequence[str] = (), console: Console | None = None
) -> int:
    """Examine a folder and print what is wrong with it.

    Parameters
    ----------
    folder : path
        Where `results/` lies, or that folder itself.
    arguments : sequence of str
        Those of `probeline run`, such as ``--configfile my.yaml``.

    Returns
    -------
    int
        0 if nothing is wrong, else 1.

    Raises
    ------
    ProbelineError
        If there are no results, or a run is making them now.
    """
    console, folder = console or Console(), Path(folder)
    if folder.name == RESULTS and not (folder / RESULTS).is_dir():
        folder = folder.parent
    require_results(folder)
    if is_running(folder):
        raise ProbelineError(f"{folder}: a `probeline run` is working here; wait for it to end")
    outputs = unplanned = None
    try:
        outputs = planned(folder, arguments)
    except ProbelineError as error:
        unplanned = str(error)
    with _progress(console) as progress:
        total = sum(map(_size, artifacts(folder)))
        task = progress.add_task("reading", total=total)
        report = examine(folder, outputs, unplanned, lambda count: progress.advance(task, count))
    print_report(report, outputs, arguments, console)
    return 1 if report.findings or unplanned else 0


def _size(path: Path) -> int:
    """Bytes that are to be read; what cannot be is told when it is its turn."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    return Progress(
        *columns,
        TransferSpeedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
