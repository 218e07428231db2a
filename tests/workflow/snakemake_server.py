"""A process with Snakemake loaded, whose forks are runs.

Reads one JSON object a line from stdin and answers each with the exit status: what a new process
does, without the time that it takes to import Snakemake. An object has arguments, environment,
folder, files for stdout and stderr; maybe `library`, folders with another probeline, and `jobs`,
the address of a server that runs the jobs (see job_server.py).
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys

from forks import end_with
from job_client import client

_LONGEST = 600


def main() -> None:
    import snakemake.cli

    # What the Snakefile imports; none of it reads the environment when it is imported.
    import probeline.workflow.parsing
    import probeline.workflow.plan  # noqa: F401

    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            end_with(_run, snakemake.cli.main, order)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _use(library: str) -> None:
    """Have other code of probeline imported than what is loaded."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "probeline"]:
        del sys.modules[name]
    sys.path[:0] = library.split(os.pathsep)


def _run(snakemake, order: dict) -> None:
    signal.alarm(_LONGEST)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(order[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["folder"])
    if "library" in order:
        _use(order["library"])
    if "jobs" in order:
        # Snakemake puts it before a script's name, unquoted.
        sys.executable = shlex.join(client(order["jobs"]))
    sys.argv = ["snakemake", *order["arguments"]]
    snakemake(order["arguments"])


if __name__ == "__main__":
    main()
