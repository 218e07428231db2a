"""Where `probeline run` lets jobs run, by what it is told, and how it is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from snakemake.cli import get_argument_parser

from probeline.errors import ProbelineError
from probeline.workflow import run
from probeline.workflow.run import execution, is_dry, profile_folder, snakefile

# Notes what stands in the lock while it runs.
SNAKEMAKE = """
import sys
from pathlib import Path
print(Path(".probeline/run.lock").read_text(), "--unlock" in sys.argv, file=open("seen", "a"))
"""
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


@pytest.mark.parametrize(
    "arguments",
    [
        ["-n"],
        ["-np"],
        ["-nq"],
        ["-pn"],
        ["-Fnp", "summary"],
        ["-nj4"],
        ["--cores", "4", "-kn"],
        ["--dry-run"],
        ["--dryrun"],
        ["--dry-"],
        ["--dryr"],
        [],
        ["-p"],
        ["-j4"],
        ["-j", "4", "-q"],
        ["-qall"],
        ["-Rtexts"],
        ["-R", "nothing"],
        ["-e", "local"],
        ["-e", "dryrun"],
        ["-edryrun"],
        ["-Fpe", "dryrun"],
        ["--exec", "dryrun"],
        ["--executo=dryrun"],
        ["--executor", "dryrun", "summary"],
        ["--executor=dryrun"],
        ["--executor=local", "dryrun"],
        ["-Clr=n"],
        ["--nolock", "--notemp"],
        ["--no-hooks"],
        ["--config", "name=-n"],
        ["results/n"],
    ],
)
def test_a_dry_run_is_what_snakemake_takes_for_one(arguments):
    taken, _ = get_argument_parser().parse_known_args(arguments)
    assert is_dry(arguments) == (taken.dryrun or taken.executor == "dryrun")


def test_options_of_one_letter_without_a_value_are_those_of_snakemake():
    known = {
        option[1]: action.nargs == 0
        for action in get_argument_parser()._actions
        for option in action.option_strings
        if len(option) == 2
    }
    assert {letter for letter in known if is_dry([f"-{letter}n"])} == {
        letter for letter, alone in known.items() if alone
    }


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
from probeline.workflow.run import _outliving
with open(sys.argv[2], "w") as lock:
    print("status", _outliving([sys.executable, "-c", sys.argv[1]], lock))
"""


def test_a_ctrl_c_is_left_to_snakemake_which_has_jobs_to_cancel(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, CHILD, str(tmp_path / "lock")],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout.readline() == "ready\n"
        # As a terminal does: to all of them.
        os.killpg(process.pid, signal.SIGINT)
        printed, _ = process.communicate(timeout=60)
    assert printed == "status 7\n"


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A program in Snakemake's place, and a folder to run it in."""
    program = tmp_path / "snakemake.py"
    program.write_text(SNAKEMAKE, encoding="utf-8")
    command = [sys.executable, str(program)]
    monkeypatch.setattr(run, "snakemake_command", lambda folder: command)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_that_never_began_is_not_taken_for_one_that_was_killed(stand_in, monkeypatch):
    """Else the next one would remove the lock of a plain snakemake."""

    def refuse(folder):
        raise ProbelineError("results/x: cannot be written")

    with monkeypatch.context() as patched:
        patched.setattr(run, "settle_times", refuse)
        with pytest.raises(ProbelineError, match="cannot be written"):
            run.run_workflow(stand_in, [])
    _lock_by_snakemake(stand_in)
    assert run.run_workflow(stand_in, []) == 0
    assert (stand_in / "seen").read_text().split() == ["running", "False"]
    assert (stand_in / ".probeline" / "run.lock").read_text() == ""


def test_the_lock_of_a_killed_run_is_removed_once(stand_in, monkeypatch):
    lock = stand_in / ".probeline" / "run.lock"
    lock.parent.mkdir()
    lock.write_text("running\n")
    _lock_by_snakemake(stand_in)

    def refuse(folder):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(run, "settle_times", refuse)
        with pytest.raises(KeyboardInterrupt):
            run.run_workflow(stand_in, [])
    assert run.run_workflow(stand_in, []) == 0
    assert (stand_in / "seen").read_text().split() == ["running", "True", "running", "False"]


def test_states_of_jobs_that_are_done_go_where_nothing_was_left_to_do(stand_in, tmp_path):
    """Snakemake calls no onsuccess then; they are of a run that was killed at its very end."""
    mark = tmp_path / ".probeline" / "extract" / "notes" / "tiny" / "finished"
    mark.parent.mkdir(parents=True)
    mark.touch()
    run.run_workflow(stand_in, ["-np"])
    assert mark.is_file()
    run.run_workflow(stand_in, [])
    assert not mark.parent.exists()


def _lock_by_snakemake(folder):
    place = folder / ".snakemake" / "locks"
    place.mkdir(parents=True)
    (place / "0.input.lock").touch()
