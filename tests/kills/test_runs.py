"""A whole `probeline run` is killed again and again, and comes to the same results in the end."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import snake
from test_stages import KILLS
from world import SEED, check_same

pytestmark = [pytest.mark.kill, pytest.mark.slow]

RUNS = max(2, KILLS // 15)
_CHILDREN = "/proc/{pid}/task/{pid}/children"


def started(folder: Path) -> int:
    """How many jobs have begun, in all runs."""
    return len(list((folder / "logs").rglob("*.log")))


def begin(folder: Path) -> subprocess.Popen:
    # As many threads as what it is compared with: the bits of a pass may depend on it.
    line = [sys.executable, "-m", "probeline.cli", "run", "--directory", folder, "--cores", "2"]
    with (folder / "printed.txt").open("a") as printed:
        return subprocess.Popen(
            line,
            cwd=folder,
            env=snake.environment(),
            stdout=printed,
            stderr=printed,
            start_new_session=True,
        )


def kill(process: subprocess.Popen, alone: bool) -> None:
    """Kill a run with all that it has started; or `alone`, without the jobs, which work on."""
    if alone:
        children = Path(_CHILDREN.format(pid=process.pid)).read_text().split()
        for child in map(int, children):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def left_at_work(folder: Path) -> list[str]:
    """Processes that work in the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").readlink() == folder:
                found.append((process / "cmdline").read_text().replace("\0", " "))
    return found


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds processes through /proc")
def test_a_run_is_killed_and_started_again(project, finished, record_property):
    dice, kills, how = random.Random(SEED), 0, []
    while kills < RUNS:
        process = begin(project)
        jobs, pause = started(project) + dice.randint(0, 2), dice.uniform(0, 3)
        while process.poll() is None and started(project) < jobs:
            time.sleep(0.01)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(pause)
        if process.poll() is not None:
            break
        how.append(dice.random() < 0.3)
        kill(process, alone=how[-1])
        kills += 1
    assert kills > 1
    last = begin(project)
    assert last.wait(900) == 0, (project / "printed.txt").read_text()[-5000:]
    # Jobs that an earlier run had left may still be writing the same again.
    deadline = time.monotonic() + 120
    while left := left_at_work(project):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    check_same(project, finished)
    assert not list((project / ".probeline").rglob("*.h5"))
    assert snake.planned(project) == []
    record_property("stage", "a whole run")
    record_property("kills", kills)
    record_property("survived", kills)
    record_property("how", f"{kills - sum(how)} whole, {sum(how)} without the jobs")
