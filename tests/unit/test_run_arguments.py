"""Where `probeline run` lets jobs run, by what it is told, and how it is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from probeline.errors import ProbelineError
from probeline.workflow.run import execution, profile_folder, snakefile

PROFILES = snakefile().parent / "profiles"


@pytest.mark.parametrize(
    "cores, arguments, expected",
    [
        (None, [], ["--cores", "all"]),
        (None, ["-n"], ["--cores", "all"]),
        ("2", [], ["--cores", "2"]),
        # Jobs elsewhere are not kept to the cores of this machine.
        (None, ["--executor", "slurm", "--jobs", "9"], []),
        (None, ["--executor=slurm"], []),
        (None, ["--profile", "mine"], []),
        (None, ["-c", "3"], []),
    ],
)
def test_all_cores_of_this_machine_unless_something_else_is_said(cores, arguments, expected):
    assert execution(cores, None, arguments) == expected


def test_a_profile_by_its_name_or_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert profile_folder("slurm") == PROFILES / "slurm"
    assert execution(None, "slurm", []) == ["--workflow-profile", str(PROFILES / "slurm")]
    assert execution("4", "slurm", [])[2:] == ["--cores", "4"]
    own = tmp_path / "slurm"
    own.mkdir()
    (own / "config.v9+.yaml").write_text("jobs: 1\n", encoding="utf-8")
    # As for any program, a folder that is here comes first.
    assert profile_folder("slurm") == own
    assert profile_folder("./slurm") == own


def test_a_profile_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for name in ("absent", "empty"):
        with pytest.raises(ProbelineError, match=f"--workflow-profile {name}: .*default, slurm"):
            profile_folder(name)


# Hears a Ctrl-C, and needs longer than a moment to end.
CHILD = """
import signal, sys, time
try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(1.5)
    sys.exit(7)
"""
PARENT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from probeline.workflow.run import _waited_for
print("status", _waited_for([sys.executable, "-c", sys.argv[1]]))
"""


def test_a_ctrl_c_is_left_to_snakemake_which_has_jobs_to_cancel():
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, CHILD],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout.readline() == "ready\n"
        # As a terminal does: to all of them.
        os.killpg(process.pid, signal.SIGINT)
        printed, _ = process.communicate(timeout=60)
    assert printed == "status 7\n"
