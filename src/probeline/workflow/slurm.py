"""What SLURM is asked beside Snakemake's executor."""

from __future__ import annotations

import re
import shutil
import subprocess
from contextlib import suppress

_RUN = re.compile(r"^SLURM run ID: (?P<id>\S+)$", re.MULTILINE)
_SECONDS = 60


def cancel_left(log: str) -> None:
    """Cancel what is left of a run that has ended, by the name that all its jobs have.

    Interrupted, the executor cancels the jobs that it has submitted; those that it is about to
    submit, in the pause that it makes before, are submitted all the same. Nobody waits for them,
    and the next run would make the same files beside them.

    Parameters
    ----------
    log : str
        Text of Snakemake's log of the run.
    """
    program = shutil.which("scancel")
    for name in dict.fromkeys(_RUN.findall(log)):
        if program:
            _quietly([program, "--quiet", f"--name={name}"])


def _quietly(command: list[str]) -> None:
    """Run it; a controller that does not answer is no reason to hold up the end of a run."""
    nowhere = subprocess.DEVNULL
    with suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(
            command, check=False, stdin=nowhere, stdout=nowhere, stderr=nowhere, timeout=_SECONDS
        )
