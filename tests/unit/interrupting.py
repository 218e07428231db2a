"""Trainings that are killed, or stopped, right after so many checkpoints."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from probeline.finetune.checkpoints import Checkpoints

_SCRIPT = """
import os, signal, sys
from pathlib import Path, PosixPath
sys.path.insert(0, {tests!r})
from probeline.finetune.checkpoints import Checkpoints
seal, count = Checkpoints.seal, []

def sealed(self, step, record):
    seal(self, step, record)
    count.append(step)
    if len(count) == {seals}:
        os.kill(os.getpid(), signal.SIGKILL)

Checkpoints.seal = sealed
{training}
"""


class Stopped(Exception):
    pass


def kill_after(seals: int, training: str) -> None:
    """Run the code of a training in a process of its own, which must die of the kill."""
    script = _SCRIPT.format(tests=str(Path(__file__).parent), seals=seals, training=training)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL


def stop_after(monkeypatch, seals: int) -> None:
    """Let a training in this process be stopped."""
    whole, count = Checkpoints.seal, []

    def seal(self, step, record):
        whole(self, step, record)
        count.append(step)
        if len(count) == seals:
            raise Stopped

    monkeypatch.setattr(Checkpoints, "seal", seal)
