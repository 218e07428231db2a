"""An undisturbed run of every stage, and a process that runs single jobs of it and kills them."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import every_stage
from artifacts import content
from every_stage import Job
from snake import environment

SEED = 20
KILLED = (-signal.SIGKILL, -signal.SIGXFSZ)
_LONGEST = 300.0
# About the run: times, and checksums of files that hold times.
_ABOUT = {"benchmarks", "provenance"}


class Zygote:
    """The process of zygote.py, as a context manager.

    Parameters
    ----------
    printed : Path
        File for what jobs print.
    """

    def __init__(self, printed: Path):
        self.printed = printed

    def __enter__(self) -> Zygote:
        script = Path(__file__).with_name("zygote.py")
        self._process = subprocess.Popen(
            [sys.executable, script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(PYTHONPATH=os.pathsep.join(sys.path)),
            text=True,
        )
        return self

    def __exit__(self, *_) -> None:
        self._process.stdin.close()
        self._process.wait(60)

    def run(self, job: Job, folder: Path, kill: dict | None = None) -> dict:
        """Run a job as Snakemake does: what it is to write is removed before.

        Returns
        -------
        dict
            status (negative: the signal), seconds, events, passes, steps; see zygote.py.
        """
        for name in job.output:
            _remove(folder / name)
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
        order = {"job": job.plain(), "folder": str(folder), "kill": kill or {}}
        order |= {"seconds": _LONGEST, "printed": str(self.printed)}
        print(json.dumps(order), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def said(self) -> str:
        return self.printed.read_text(encoding="utf-8", errors="replace")[-3000:]


class World:
    """What has run undisturbed, in a folder that test workers share.

    Attributes
    ----------
    jobs : dict of str to Job
        One of each stage.
    measured : dict of str to dict
        What the zygote said of them.
    """

    def __init__(self, base: Path):
        self._base = base
        described = json.loads((base / "jobs.json").read_text(encoding="utf-8"))
        self.jobs = {stage: Job(**one["job"]) for stage, one in described.items()}
        self.measured = {stage: one["measured"] for stage, one in described.items()}
        self._projects = {stage: base / one["project"] for stage, one in described.items()}

    def project(self, stage: str) -> Path:
        """The project in which the stage's job has run."""
        return self._projects[stage]

    @classmethod
    def build(cls, base: Path) -> World:
        """Run every job once."""
        whole = every_stage.build_project(base / "whole")
        tree = every_stage.build_tree(base / "tree")
        jobs = [(whole, job) for job in every_stage.jobs_of(whole)]
        targets = every_stage.PATHS, every_stage.JOINED
        jobs += [(tree, job) for job in every_stage.jobs_of(tree, *targets)]
        described = {}
        with Zygote(base / "undisturbed.txt") as zygote:
            for project, job in jobs:
                measured = zygote.run(job, project)
                assert measured["status"] == 0, zygote.said()
                if project == whole or job.stage not in described:
                    one = {"job": job.plain(), "measured": measured, "project": project.name}
                    described[job.stage] = one
        for project in (whole, tree):
            shutil.rmtree(project / ".probeline", ignore_errors=True)
        (base / "jobs.json").write_text(json.dumps(described), encoding="utf-8")
        return cls(base)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def moment(dice: random.Random, measured: dict, largest: int) -> dict:
    """Draw how a job is killed; see zygote.py.

    Parameters
    ----------
    measured : dict
        Of the undisturbed job.
    largest : int
        Bytes of its largest file.
    """
    kind = dice.choices(("after", "event", "byte", "end"), (4, 5, 2, 1))[0]
    if kind == "after":
        return {"after": dice.uniform(0, measured["seconds"])}
    if kind == "event":
        return {"event": dice.randint(1, measured["events"])}
    if kind == "byte":
        return {"byte": dice.randrange(1, largest)}
    return {"end": True}


def largest_file(folder: Path, job: Job) -> int:
    paths = [folder / name for name in job.output]
    files = [file for path in paths for file in ([path] if path.is_file() else path.rglob("*"))]
    return max(path.stat().st_size for path in files if path.is_file())


def check_same(found: Path, expected: Path, when: object = "") -> None:
    """Two folders have the same results, hidden leftovers included, outside timing fields."""
    ours, theirs = _results(found), _results(expected)
    assert set(ours) == set(theirs), f"{when}: {sorted(set(ours) ^ set(theirs))}"
    for name, path in theirs.items():
        same = ours[name].read_bytes() == path.read_bytes()
        assert same or content(ours[name]) == content(path), f"{when}: {name} differs"


def _results(folder: Path) -> dict[str, Path]:
    results = folder / "results"
    names = {str(path.relative_to(results)): path for path in results.rglob("*") if path.is_file()}
    return {name: path for name, path in names.items() if name.split("/")[0] not in _ABOUT}


def of_job(folder: Path, job: Job) -> dict[str, object]:
    """Content of what there is of a job's output."""
    return {name: content(folder / name) for name in job.output if (folder / name).exists()}
