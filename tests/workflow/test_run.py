"""`probeline run`: Snakemake after a run that was killed, and never two at once."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import snake


def command(folder: Path, *arguments: str) -> list[str]:
    line = [sys.executable, "-m", "probeline.cli", "run", "--directory", str(folder)]
    return [*line, "--cores", "1", *arguments]


def probeline_run(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(folder, *arguments),
        cwd=folder,
        env=snake.environment(**env),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_lock_left_by_a_killed_run_is_removed(copied):
    locks = copied / ".snakemake" / "locks"
    locks.mkdir(exist_ok=True)
    summary = copied / "results" / "summary.csv"
    for kind in ("input", "output"):
        (locks / f"0.{kind}.lock").write_text("results/summary.csv\n", encoding="utf-8")
    summary.unlink()
    (copied / ".probeline").mkdir(exist_ok=True)
    (copied / ".probeline" / "run.lock").write_text("running\n", encoding="utf-8")
    refused = snake.snakemake(copied)
    assert refused.returncode != 0
    assert "lock" in (refused.stdout + refused.stderr).lower()

    done = probeline_run(copied)

    assert done.returncode == 0, done.stdout + done.stderr
    assert summary.is_file()
    assert not list(locks.glob("*"))


def test_the_lock_of_another_snakemake_is_left_alone(copied):
    locks = copied / ".snakemake" / "locks"
    locks.mkdir(exist_ok=True)
    for kind in ("input", "output"):
        (locks / f"0.{kind}.lock").write_text("results/summary.csv\n", encoding="utf-8")
    (copied / "results" / "summary.csv").unlink()
    refused = probeline_run(copied)
    assert refused.returncode != 0
    assert "locked by another snakemake" in refused.stderr.splitlines()[-1]
    assert len(list(locks.iterdir())) == 2


def test_two_runs_in_one_folder_are_refused(project):
    path = project / ".probeline" / "run.lock"
    path.parent.mkdir()
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        done = probeline_run(project)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "another `probeline run`" in done.stderr
    assert not (project / "results").exists()


def test_a_snakemake_that_outlives_its_probeline_run_is_left_alone(project):
    """Killed alone, it leaves a Snakemake at work, whose lock is no leftover."""
    target = "results/datasets/notes/texts.parquet"
    with (project / "printed.txt").open("w") as printed:
        first = subprocess.Popen(
            command(project, target),
            cwd=project,
            env=snake.environment(),
            stdout=printed,
            stderr=printed,
            start_new_session=True,
        )
    locks = project / ".snakemake" / "locks"
    while not list(locks.glob("*")):
        assert first.poll() is None, (project / "printed.txt").read_text()
        time.sleep(0.01)
    first.kill()
    first.wait()
    os.killpg(first.pid, signal.SIGSTOP)
    try:
        second = probeline_run(project, target)
        assert list(locks.glob("*"))
    finally:
        os.killpg(first.pid, signal.SIGCONT)
    assert second.returncode == 1
    assert "another `probeline run` is working here" in second.stderr

    with (project / ".probeline" / "run.lock").open() as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)  # until the one at work has ended
    assert (project / target).is_file()
    assert probeline_run(project, target).returncode == 0


# Kills the job of the extraction as soon as it has begun its log, as the system does that is out of
# memory.
KILLER = """
import os, signal, sys, threading, time
from pathlib import Path

def kill():
    while not Path("logs/extract/notes/tiny.log").is_file():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)

if any("extract.py" in part for part in sys.orig_argv):
    threading.Thread(target=kill, daemon=True).start()
"""


def test_a_job_that_the_system_kills_is_named(project, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(KILLER, encoding="utf-8")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    tokens = "results/activations/notes/tiny/tokens.json"
    killed = probeline_run(project, tokens, PYTHONPATH=path)
    assert killed.returncode == 1
    (told,) = [line for line in killed.stderr.splitlines() if line.startswith("probeline: ")]
    assert told.startswith("probeline: extract_notes.tiny")
    assert "ended by signal SIGKILL, as a system does that is out of memory" in told
    assert told.endswith("log: logs/extract/notes/tiny.log")
    assert "Traceback" not in killed.stderr
    done = probeline_run(project, tokens)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (project / tokens).is_file()


def test_the_exit_status_is_snakemakes(project):
    (project / "notes.csv").unlink()
    assert probeline_run(project).returncode == 1
