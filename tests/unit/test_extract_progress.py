"""Progress: a bar with texts/s and the time left on a terminal, plain log lines elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = """
import logging, sys
from probeline.activations import progress
logging.basicConfig(level=logging.INFO, stream=sys.stdout)
progress._SECONDS_BETWEEN_LINES = 0.0
with progress.Progress("minilm", 40, done=10) as bar:
    for _ in range(3):
        bar.step(10)
"""


def test_log_lines_without_a_terminal():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    assert "minilm: 20 of 40 texts" in lines[0]
    assert "texts/s" in lines[0]
    assert lines[-1].endswith("0 s left")


def test_bar_on_a_terminal():
    pty = pytest.importorskip("pty", reason="needs a Unix terminal")
    import termios

    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    os.set_blocking(ours, False)
    done = subprocess.run(
        [sys.executable, "-c", CODE], stdout=subprocess.PIPE, stderr=theirs, text=True, check=True
    )
    shown = os.read(ours, 100_000).decode()
    os.close(theirs)
    os.close(ours)
    assert "10/40" in shown
    assert "text/s" in shown
    assert len(done.stdout.splitlines()) == 1  # the summary at the end
