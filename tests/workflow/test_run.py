"""`probeline run`: Snakemake after a run that was killed, and never two at once."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

import snake


def probeline_run(folder: Path) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "probeline.cli", "run", "--directory", str(folder)]
    return subprocess.run(
        [*line, "--cores", "1"],
        cwd=folder,
        env=snake.environment(),
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
    assert probeline_run(copied).returncode != 0
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


def test_the_exit_status_is_snakemakes(project):
    (project / "notes.csv").unlink()
    assert probeline_run(project).returncode == 1
