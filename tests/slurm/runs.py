"""Running Snakemake with the repository's profile on the tests' cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import snake
from cluster import Cluster, Done

# What is slow for the sake of large clusters; no accounting database; small nodes.
QUICK = [
    *("--max-threads", "1"),
    *("--latency-wait", "10"),
    *("--slurm-status-command", "squeue"),
    *("--slurm-init-seconds-before-status-checks", "1"),
    *("--seconds-between-status-checks", "1"),
    *("--max-status-checks-per-second", "10"),
]


def environment(cluster: Cluster, **more: str) -> dict[str, str]:
    """Of a user of the cluster: the repository's library, and this environment's programs."""
    found = snake.environment(**cluster.environment, **more)
    found["PATH"] = f"{Path(sys.executable).parent}:{found['PATH']}"
    paths = [str(snake.ROOT / "src"), found.get("PYTHONPATH")]
    found["PYTHONPATH"] = ":".join(filter(None, paths))
    return {name: value for name, value in found.items() if not name.startswith("PYTEST_")}


def _hear_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Run:
    """Snakemake at work in a folder, its output in `run.log` there; a context manager.

    `env` are variables that its environment has besides.
    """

    def __init__(self, cluster: Cluster, folder: Path, *arguments: str | Path, **env: str):
        self.cluster, self.folder = cluster, folder
        self._log = folder / "run.log"
        command = [sys.executable, "-m", "snakemake", *arguments, "-s", snake.SNAKEFILE]
        command += ["--directory", folder, *QUICK]
        command += ["--workflow-profile", snake.ROOT / "profiles" / "slurm"]
        with self._log.open("w") as handle:
            self._process = subprocess.Popen(
                [str(part) for part in command],
                cwd=folder,
                env=environment(cluster, **env),
                stdin=subprocess.DEVNULL,
                stdout=handle,
                stderr=subprocess.STDOUT,
                # Else a Ctrl-C would be one for the tests too. What starts tests in the background
                # may ignore it, and a child would inherit that.
                start_new_session=True,
                preexec_fn=_hear_interrupts,
            )

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    @property
    def printed(self) -> str:
        return self._log.read_text(encoding="utf-8")

    @property
    def lines(self) -> list[str]:
        """What probeline itself says of failed jobs."""
        return [line for line in self.printed.splitlines() if line.startswith("probeline: ")]

    def wait(self, seconds: float = 900) -> int:
        """Wait for the end; returns the exit status."""
        return self._process.wait(timeout=seconds)

    def interrupt(self) -> None:
        """Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    def until(self, ready: Callable[[], object], seconds: float = 300):
        """Wait for something to be true; returns it."""
        end = time.monotonic() + seconds
        while not (found := ready()):
            assert self._process.poll() is None, self.printed
            assert time.monotonic() < end, self.printed
            time.sleep(0.2)
        return found


def finished(cluster: Cluster, folder: Path, *arguments: str | Path, **env: str) -> str:
    """Run to the end, which must be a good one; returns what was printed."""
    with Run(cluster, folder, *arguments, **env) as run:
        assert run.wait() == 0, run.printed + snake.logged_errors(folder)
        return run.printed


def jobs_of(cluster: Cluster, folder: Path) -> list[Done]:
    """Jobs of one folder that have ended."""
    return [job for job in cluster.done() if cluster.shown(job.id).get("WorkDir") == str(folder)]


def processes(job: int, script: str) -> list[int]:
    """Processes of a job that run one of the workflow's scripts."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes()
            known = (folder / "environ").read_bytes()
        except OSError:
            continue
        of_job = f"SLURM_JOB_ID={job}\0".encode() in known
        if of_job and f".{script}.py".encode() in words and b"-c" not in words.split(b"\0"):
            found.append(int(folder.name))
    return found


def stop(pids: list[int]) -> None:
    """Let processes hang."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
