"""Start Snakemake on probeline's Snakefile, after a run that was killed too."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import IO

import probeline
from probeline.errors import ProbelineError
from probeline.files import explained
from probeline.locks import Lock, take
from probeline.workflow.clock import settle_times, shared_from_future, time_of
from probeline.workflow.states import RUN_LOCK, forget_finished, snakemake_locks

# Cut short, or among other options of one letter that take no value.
_DRY = re.compile(r"--dry(-|-?ru?n?)|-[DFSafhklptv]*n.*")
_DRY_EXECUTOR = re.compile(r"(--exec(u(t(or?)?)?)?=|-[DFSafhklptv]*e=?)dryrun")


def snakefile() -> Path:
    """The Snakefile of the checkout this library is installed from.

    Raises
    ------
    ProbelineError
        If the library was installed without it.
    """
    path = Path(probeline.__file__).resolve().parents[2] / "Snakefile"
    if not path.is_file():
        raise ProbelineError(
            f"{path}: no Snakefile: install probeline from a checkout (pip install -e .), or give "
            "snakemake the Snakefile with -s"
        )
    return path


def snakemake_command(folder: Path) -> list[str]:
    """The command that starts Snakemake on our Snakefile in `folder`, arguments to be added."""
    return [
        *(sys.executable, "-m", "snakemake"),
        *("--snakefile", str(snakefile()), "--directory", str(folder)),
    ]


def is_running(folder: Path) -> bool:
    """Whether a `probeline run` works in `folder` now; False where a disk has no locks."""
    try:
        with (folder / RUN_LOCK).open("rb") as handle:
            return take(handle, shared=True) is Lock.BUSY
    except (FileNotFoundError, NotADirectoryError):
        return False


def profile_folder(name: str) -> Path:
    """The folder of a workflow profile: one that `name` leads to, else one beside the Snakefile.

    Raises
    ------
    ProbelineError
        If neither is there.
    """
    shipped = snakefile().parent / "profiles"
    for folder in (Path(name).expanduser(), shipped / name):
        if any(folder.glob("config*.yaml")):
            return folder.absolute()
    known = ", ".join(sorted(path.parent.name for path in shipped.glob("*/config.yaml")))
    raise ProbelineError(
        f"--workflow-profile {name}: no folder with a config.yaml; give one, or the name of one of "
        f"those in {shipped}: {known}"
    )


def execution(cores: str | None, profile: str | None, arguments: Sequence[str]) -> list[str]:
    """Snakemake's arguments that say where jobs run: here on all cores, if nothing else does.

    On a cluster `--cores` would keep the threads of its jobs to those that are here.
    """
    found = ["--workflow-profile", str(profile_folder(profile))] if profile else []
    elsewhere = ("--executor", "-e", "--profile", "--cores", "-c", "--jobs", "-j")
    said = profile or any(one.partition("=")[0] in elsewhere for one in arguments)
    if cores is None and not said:
        cores = "all"
    return [*found, *(["--cores", cores] if cores else [])]


def run_workflow(folder: Path, arguments: Sequence[str]) -> int:
    """Run the workflow in `folder`; returns Snakemake's exit status.

    The lock that a killed `probeline run` left behind is removed first, never that of another
    Snakemake, nor while the Snakemake that the killed one had started works on; incomplete files
    are made again.

    Parameters
    ----------
    arguments : sequence of str
        Passed on to `snakemake`, such as ``--cores 8 --configfile my.yaml``.

    Raises
    ------
    ProbelineError
        If another `probeline run` works in the same folder, or it can be none.
    """
    command = snakemake_command(folder)
    with _alone(folder) as (lock, alone):
        if alone and _died(lock) and snakemake_locks(folder):
            unlock = [*command, *arguments, "--unlock", "--quiet", "all"]
            subprocess.run(unlock, check=False, stdout=subprocess.DEVNULL)
        # What fails from here on, before Snakemake starts, leaves no lock of ours.
        lock.truncate(0)
        dry = is_dry(arguments)
        settled = 0 if dry else settle_times(folder)
        if settled:
            _say(f"{folder}: {settled} results were from the future; they are of now from now on")
        _tell_shared_from_future(folder)
        locks = snakemake_locks(folder)
        status = _outliving([*command, *arguments, "--rerun-incomplete"], lock)
        if status == 1 and locks and locks == snakemake_locks(folder):
            _say(
                f"{folder}: locked by another snakemake that works here, or by one that was "
                "killed; wait for it, or if there is none: probeline run --unlock"
            )
        # Snakemake's own end of a run does so too, but not if there was nothing left to do.
        if status == 0 and not dry:
            forget_finished(folder)
        return status


def is_dry(arguments: Iterable[str]) -> bool:
    """Whether Snakemake is only to say what it would do."""
    words = list(arguments)
    pairs = [f"{one}={other}" for one, other in pairwise(words)]
    return any(map(_DRY.fullmatch, words)) or any(map(_DRY_EXECUTOR.fullmatch, [*words, *pairs]))


def _tell_shared_from_future(folder: Path) -> None:
    """Say in one line why what is made from entries of a cache is made again and again."""
    found = shared_from_future(folder)
    if not found:
        return
    path, entry = min(found.items())
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    _say(
        f"{path}{more}: from a cache, changed at {time_of(entry)}, which is in the future: until "
        "then what is made from it is made again in every run; if no clock is wrong here, give "
        f"the entry a time that has been: touch '{entry}'"
    )


def _died(lock: IO[str]) -> bool:
    """Whether the run before did not come to its end."""
    lock.seek(0)
    return bool(lock.read())


def _outliving(command: Sequence[str], lock: IO[str]) -> int:
    """Run a program to its own end; it holds the lock, too, and is left alone by what ends us.

    The lock's file says that it runs until it has ended and, being Snakemake, removed its own lock.
    Killed alone, we leave it at work. A Ctrl-C of the terminal it hears itself, and Snakemake needs
    its time then, to cancel the jobs of a cluster; `subprocess.run` would kill it.
    """
    lock.write("running\n")
    lock.flush()
    try:
        with subprocess.Popen(command, pass_fds=[lock.fileno()]) as process:
            while True:
                try:
                    return process.wait()
                except KeyboardInterrupt:
                    continue
    finally:
        lock.truncate(0)


def _say(line: str) -> None:
    print(f"probeline: {line}", file=sys.stderr)


@contextmanager
def _alone(folder: Path) -> Iterator[tuple[IO[str], bool]]:
    """Hold the folder; yields the open lock, and False where a disk has none and we may not be."""
    path = folder / RUN_LOCK
    try:
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = path.open("a+")
    except OSError as error:
        raise ProbelineError(
            f"{folder}: cannot be a folder to run in: {error.strerror}; give --directory a folder, "
            "or the name of a new one"
        ) from None
    with handle:
        lock = take(handle)
        if lock is Lock.BUSY:
            raise ProbelineError(
                f"{folder}: another `probeline run` is working here; wait for it or stop it"
            )
        if lock is Lock.IMPOSSIBLE:
            _say(f"{path}: cannot be locked: {lock.value}; keep to one `probeline run` in a folder")
        yield handle, lock is Lock.HELD
