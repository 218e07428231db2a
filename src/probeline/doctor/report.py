"""Telling what the doctor has found."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console

from probeline.doctor.examine import Report
from probeline.doctor.findings import (
    DAMAGED,
    DELETE,
    FORCE,
    FOREIGN,
    KINDS,
    RUN,
    UNLOCK,
    Finding,
)
from probeline.doctor.planned import FOLLOWS, Output


def print_report(
    report: Report,
    outputs: dict[str, Output] | None,
    arguments: Sequence[str],
    console: Console,
) -> None:
    """Print a line per trouble, files with the same one together, then the commands.

    Parameters
    ----------
    outputs : dict or None
        What `examine` was given.
    arguments : sequence of str
        What `probeline run` needs to make these results.
    """

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    for line in _lines(report.findings):
        say(line)
    if report.unplanned is not None:
        say("not told: what is stale or foreign, since the configuration cannot be planned:")
        say(report.unplanned)
    commands = mending(report, outputs or {}, arguments)
    if commands:
        say("to mend:")
        for command in commands:
            say(f"  {command}")
    say(_counts(report))


def mending(report: Report, outputs: dict[str, Output], arguments: Sequence[str]) -> list[str]:
    """The commands that mend what was found, in their order."""
    wanted = {mend: [f for f in report.findings if f.mend == mend] for mend in (*_MENDS,)}
    commands = []
    damaged = [finding.path for finding in wanted[FORCE] if finding.kind == DAMAGED]
    cached = [_elsewhere(report.folder, path) for path in damaged]
    foreign = [f.target for f in wanted[DELETE] if f.kind == FOREIGN]
    rest = _topmost(f.target for f in wanted[DELETE] if f.kind != FOREIGN)
    delete = [str(report.folder / target) for target in rest]
    delete += [path for path in dict.fromkeys(cached) if path]
    if delete:
        commands.append(shlex.join(["rm", "-r", *delete]))
    if foreign:
        paths = [str(report.folder / target) for target in _topmost(foreign)]
        commands.append(f"{shlex.join(['rm', '-r', *paths])}  # if nothing is to use them again")
    run = ["probeline", "run"]
    run += [] if report.folder == Path() else ["--directory", str(report.folder)]
    run += arguments
    if wanted[UNLOCK]:
        commands.append(f"{shlex.join([*run, '--unlock'])}  # if no other snakemake works here")
    if wanted[FORCE]:
        # Of all outputs of a job one is enough.
        jobs = {
            (outputs[f.target].job if f.target in outputs else f.target): f.target
            for f in reversed(wanted[FORCE])
        }
        commands.append(shlex.join([*run, "--forcerun", *sorted(jobs.values())]))
    elif wanted[RUN]:
        commands.append(shlex.join(run))
    return commands


_MENDS = (FORCE, RUN, DELETE, UNLOCK)


def _lines(findings: Iterable[Finding]) -> list[str]:
    together: dict[tuple, list[str]] = {}
    for finding in findings:
        key = (KINDS.index(finding.kind), finding.reason == FOLLOWS, finding.group, finding.reason)
        together.setdefault(key, []).append(finding.path)
    lines = []
    for (kind, _, _, reason), paths in sorted(together.items(), key=lambda item: item[0][:2]):
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        lines.append(f"{KINDS[kind]:<10} {paths[0]}{more}: {reason}")
    return lines


def _topmost(paths: Iterable[str]) -> list[str]:
    """Paths without those that lie in others of them."""
    found: list[str] = []
    for path in sorted(set(paths)):
        if not any(path.startswith(f"{other}/") for other in found):
            found.append(path)
    return found


def _elsewhere(folder: Path, name: str) -> str | None:
    """Where a linked file lies: in a cache that would hand the damage out again."""
    path = folder / name
    linked = next(
        (one for one in (path, *path.parents) if one != folder and one.is_symlink()), None
    )
    if linked is None or not linked.is_relative_to(folder / "results"):
        return None
    return str(linked.resolve())


def _counts(report: Report) -> str:
    read = f"{report.files:,} files, {report.bytes / 1e6:,.1f} MB read"
    if report.unverified:
        read += f", {report.unverified:,} of them without a checksum"
    if not report.findings:
        return f"{read}: nothing wrong"
    counts = {kind: sum(f.kind == kind for f in report.findings) for kind in KINDS}
    return f"{read}: " + ", ".join(f"{n:,} {kind}" for kind, n in counts.items() if n)
