"""Running Snakemake on the repository's Snakefile, and reading what a dry run would do."""

from __future__ import annotations

import atexit
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SNAKEFILE = ROOT / "Snakefile"

_RULE = re.compile(r"^(?:local)?rule (?P<rule>[^\s:]+):$")
_WILDCARDS = re.compile(r"^    wildcards: (?P<wildcards>.+)$")
_REASON = re.compile(r"^    reason: (?P<reason>.+)$")
_GENERATED = re.compile(r"^(extract|join|probe)_.*$")


@dataclass(frozen=True)
class Job:
    """A job of a dry run; `stage` is the rule without the model's name and the group's number."""

    rule: str
    wildcards: dict[str, str]
    reason: str

    @property
    def stage(self) -> str:
        return _GENERATED.sub(r"\1", self.rule)


def environment(**changes: str) -> dict[str, str]:
    """Return the environment of a Snakemake run: quiet, offline, on few threads."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PROBELINE_", "SNAKEMAKE_"))
    }
    return kept | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | changes


def command(folder: Path, *arguments: str | Path) -> list[str]:
    """Return the command line of a run in `folder`."""
    line = [sys.executable, "-m", "snakemake", "-s", SNAKEFILE, "--directory", folder]
    return [str(part) for part in (*line, "--cores", "2", *arguments)]


def as_a_job(rule: str) -> list[str]:
    """Return the arguments that a cluster's executor gives the Snakemake of a job."""
    return [
        *("--allowed-rules", rule, "--force", "--nolock", "--ignore-incomplete", "--no-hooks"),
        *("--force-use-threads", "--target-files-omit-workdir-adjustment"),
        *("--max-inventory-time", "0", "--mode", "remote"),
    ]


def snakemake(
    folder: Path, *arguments: str | Path, server: str | None = None, **env: str
) -> subprocess.CompletedProcess:
    """Run Snakemake to its end, whatever that is; stdout and stderr are text.

    It is a fork of a process that has imported it. Jobs are new processes, or forks of the server
    at an address: for runs whose jobs are many and which are not about how a job begins.
    """
    line, chosen = command(folder, *arguments), environment(**env)
    with tempfile.TemporaryDirectory() as kept:
        files = [Path(kept, name) for name in ("stdout", "stderr")]
        order = {"arguments": line[3:], "folder": str(folder), "environment": chosen}
        order |= {file.name: str(file) for file in files}
        if chosen.get("PYTHONPATH") != os.environ.get("PYTHONPATH"):
            order["library"] = chosen["PYTHONPATH"]
        if server:
            order["jobs"] = server
        process = _process()
        print(json.dumps(order), file=process.stdin, flush=True)
        status = int(process.stdout.readline())
        printed = [file.read_text(encoding="utf-8") for file in files]
    return subprocess.CompletedProcess(line, status, *printed)


def new_process(folder: Path, *arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess:
    """The same by a command line in any current directory."""
    return subprocess.run(
        command(folder, *arguments),
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def run(folder: Path, *arguments: str | Path, server: str | None = None, **env: str) -> str:
    """Run Snakemake, which must succeed; return what it printed."""
    done = snakemake(folder, *arguments, server=server, **env)
    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed + logged_errors(folder)
    return printed


def planned(folder: Path, *arguments: str | Path, **env: str) -> list[Job]:
    """Return the jobs that a run would start, `all` left out, by a dry run, which must succeed."""
    return [job for job in jobs(run(folder, "-n", *arguments, **env)) if job.rule != "all"]


@cache
def _process() -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("snakemake_server.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(),
        text=True,
    )
    atexit.register(process.stdin.close)
    return process


def jobs(printed: str) -> list[Job]:
    """Read the jobs off Snakemake's output."""
    found: list[list] = []
    for line in printed.splitlines():
        if match := _RULE.match(line):
            found.append([match["rule"], {}, ""])
        elif found and (match := _WILDCARDS.match(line)):
            pairs = (pair.split("=", 1) for pair in match["wildcards"].split(", "))
            found[-1][1] = dict(pairs)
        elif found and (match := _REASON.match(line)):
            found[-1][2] = match["reason"]
    return [Job(*entry) for entry in found]


def stages(found: list[Job]) -> dict[str, int]:
    """Return {stage: number of jobs}, by name."""
    counts: dict[str, int] = {}
    for job in sorted(found, key=lambda job: job.stage):
        counts[job.stage] = counts.get(job.stage, 0) + 1
    return counts


def logged_errors(folder: Path) -> str:
    """Return the ERROR lines of all rules' logs, each after its file's name."""
    lines = []
    for path in sorted((folder / "logs").rglob("*.log")):
        for line in path.read_text(encoding="utf-8").splitlines():
            if " ERROR " in line:
                lines.append(f"{path.relative_to(folder)}: {line}")
    return "\n".join(lines)
