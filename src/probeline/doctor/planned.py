"""What the present configuration makes, and what of it Snakemake would make again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from probeline.errors import ProbelineError
from probeline.workflow.run import snakemake_command

# Of `snakemake --summary`.
_COLUMNS = ["output_file", "date", "rule", "log-file(s)", "status", "plan"]
MISSING = "missing"
FOLLOWS = "what it is made from has to be made again"
_REASONS = {
    "params changed": "made with other settings, or by another version",
    "set of input files changed": "made from other files",
    "updated input files": "older than what it is made from",
    "rule implementation changed": "made by another version of its rule",
}


@dataclass(frozen=True)
class Output:
    """An output of the present configuration.

    Attributes
    ----------
    rule : str
    job : str
        The same for all outputs of a job that has run.
    pending : bool
        Whether Snakemake would make it again.
    status : str
        As `snakemake --summary` has it.
    """

    rule: str
    job: str
    pending: bool
    status: str

    @property
    def reason(self) -> str:
        return _REASONS.get(self.status, FOLLOWS)


def planned(folder: Path, arguments: Sequence[str]) -> dict[str, Output]:
    """Ask Snakemake for all outputs of a run, by path from `folder`.

    Parameters
    ----------
    arguments : sequence of str
        Those of `probeline run`, such as ``--configfile my.yaml``.

    Raises
    ------
    ProbelineError
        If Snakemake cannot plan the run; with what it says.
    """
    command = [*snakemake_command(folder), "--cores", "1", *arguments, "--summary"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line.split("\t") for line in done.stdout.splitlines() if line.count("\t") == 5]
    if done.returncode or _COLUMNS not in lines:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise ProbelineError("\n".join(said[-3:]) or "snakemake --summary said nothing")
    found = {}
    for path, _, rule, log, status, plan in lines[lines.index(_COLUMNS) + 1 :]:
        job = f"{rule} {path if log == '-' else log}"
        found[_named(path, folder)] = Output(rule, job, plan == "update pending", status)
    return found


def _named(path: str, folder: Path) -> str:
    """An output's name from `folder`, without a slash at its end."""
    return os.path.relpath(folder / path, folder)
