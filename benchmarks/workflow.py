"""What Snakemake costs: a whole run, a run with nothing to do, a plan of the largest matrix."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import yaml

from benchmarks import papers
from benchmarks.bench import Bench, plain_environment
from benchmarks.rows import Outcome, Part, combined
from benchmarks.timing import interleaved, medians, spread

ROOT = Path(__file__).resolve().parents[1]
_REPEATS = (1, 3)
_DRY_REPEATS = (3, 5)
# At quick sizes half of the default's texts and poolings: jobs of about the same weight, fewer.
_FEW = {"train": 660, "validation": 220, "test": 220}
_POOLINGS = ["max", "mean"]
# As an executor calls it in a job; then CPU seconds and MB at the peak.
_JOB = """
import json, resource, sys
from benchmarks.peak import own_peak
from snakemake.cli import main
snakefile, target, rule = sys.argv[1:]
try:
    main(["-n", "--quiet", "--snakefile", snakefile, "--target-jobs", target]
        + ["--allowed-rules", rule, "--cores", "1", "--force", "--nolock", "--no-hooks"]
        + ["--ignore-incomplete", "--target-files-omit-workdir-adjustment", "--mode", "remote"])
except SystemExit as end:
    if end.code:
        raise
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps([used.ru_utime + used.ru_stime, own_peak() / 1e6]))
"""
_IDLE, _MATRIX, _START = "nothing to do", "papers' matrix", "start"


def against_one_process(bench: Bench) -> Outcome:
    """P7: the default run under Snakemake over the same calls in one process."""
    folders: dict[str, list[Path]] = {"snakemake": [], "one process": []}

    def side(name: str):
        def timed() -> float:
            folder = _project(bench, name.replace(" ", "-"))
            folders[name].append(folder)
            began = time.perf_counter()
            done = _run(_command(bench, name, folder), folder)
            seconds = time.perf_counter() - began
            _check(done, folder)
            return seconds

        return timed

    seconds = interleaved({name: side(name) for name in folders}, bench.size(*_REPEATS))
    finished = folders["snakemake"][-1]
    _check_alike(finished, folders["one process"][-1])
    bench.once("finished run", lambda: finished)
    middle = medians(seconds)
    ratio = middle["snakemake"] / middle["one process"]
    jobs = len(list((finished / "logs").rglob("*.log")))
    what = "half of the default run's texts and poolings" if bench.quick else "the default run"
    what += ", no reranking"
    note = (
        f"{what}, {bench.threads} cores: {middle['snakemake']:.1f} s "
        f"({spread(seconds['snakemake'])}) against {middle['one process']:.1f} s; {jobs} jobs"
    )
    met = ratio <= 1.25
    if bench.quick and not met:
        # What does not grow with the work weighs more here than in the whole run.
        met = None
        note += "; the whole run is longer beside the same overhead, so that --full decides"
    return Outcome(ratio, met, note, 1 / bench.threads)


def dry_runs(bench: Bench) -> Outcome:
    """P8: seconds to find that there is nothing to do, and to plan the papers' matrix."""
    idle = bench.once("finished run", lambda: _finished(bench))
    matrix = _matrix(bench)
    printed = {}

    def dry(name: str, folder: Path):
        def run() -> None:
            done = _run(_snakemake(bench, folder, "-n"), folder)
            _check(done)
            printed[name] = done.stdout + done.stderr

        return run

    sides = {
        _IDLE: dry(_IDLE, idle),
        _MATRIX: dry(_MATRIX, matrix),
        _START: lambda: _check(_run([sys.executable, "-m", "snakemake", "--version"], matrix)),
    }
    seconds = interleaved(sides, bench.size(*_DRY_REPEATS), once=bench.size([_MATRIX], []))
    if "Nothing to be done" not in printed[_IDLE]:
        raise RuntimeError("a finished run has something left to do")
    middle = medians(seconds)
    parts = [Part(_IDLE, middle[_IDLE], 3.0), Part(_MATRIX, middle[_MATRIX], 20.0)]
    notes = [
        f"seconds; the matrix has {jobs_of(printed[_MATRIX]):,} jobs ({spread(seconds[_MATRIX])})",
        f"nothing to do: {spread(seconds[_IDLE])}, of which Snakemake's own start "
        f"{middle[_START]:.1f} s",
    ]
    return combined(parts, notes, middle[_START])


def cluster_job(bench: Bench) -> Outcome:
    """P14: what a job of a cluster spends before its work, in the papers' matrix.

    CPU seconds and memory of the Snakemake in the job, which reads the Snakefile again and plans
    the one job; beside that of a Snakefile with next to nothing in it.
    """
    matrix = _matrix(bench)
    empty = matrix / "empty.smk"
    empty.write_text('rule nothing:\n    output: "x"\n    shell: "touch x"\n', encoding="utf-8")
    dataset = next(iter(yaml.safe_load((matrix / "config.yaml").read_text())["datasets"]))
    jobs = {
        "job": [str(ROOT / "Snakefile"), f"texts:dataset={dataset}", "texts"],
        "empty": [str(empty), "nothing:", "nothing"],
    }
    found: dict[str, list[list[float]]] = {name: [] for name in jobs}
    for _ in range(bench.size(*_DRY_REPEATS)):
        for name, (snakefile, target, rule) in jobs.items():
            done = _run([sys.executable, "-c", _JOB, snakefile, target, rule], matrix)
            _check(done)
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
    cost, own = (
        [medians({"": [one[part] for one in found[name]]})[""] for part in (0, 1)] for name in jobs
    )
    parts = [
        Part("CPU seconds beyond Snakemake's own", cost[0] - own[0], 3.0),
        Part("MB beyond its own", cost[1] - own[1], 60.0),
    ]
    note = (
        f"in all {cost[0]:.1f} s, {cost[1]:.0f} MB; an empty rule {own[0]:.1f} s, {own[1]:.0f} MB"
    )
    return combined(parts, [note])


def _matrix(bench: Bench) -> Path:
    """A folder with the papers' matrix as its configuration."""
    matrix = bench.folder("papers")
    matrix.mkdir()
    config = matrix / "config.yaml"
    config.write_text(yaml.safe_dump(papers.matrix(matrix), sort_keys=False), encoding="utf-8")
    return matrix


def jobs_of(printed: str) -> int:
    """The number of jobs that a dry run announces."""
    found = re.findall(r"^total\s+(\d+)\s*$", printed, re.MULTILINE)
    if not found:
        raise RuntimeError("the dry run does not say how many jobs it would start")
    return int(found[-1])


def _finished(bench: Bench) -> Path:
    folder = _project(bench, "snakemake")
    _check(_run(_snakemake(bench, folder), folder), folder)
    return folder


def _project(bench: Bench, name: str) -> Path:
    """A folder with the default configuration but its reranking, on fewer texts at quick sizes."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    # Training takes longer than all that Snakemake adds.
    config["lrsl"]["sources"] = []
    if bench.quick:
        config["datasets"]["bbc"]["max_texts"] = _FEW
        config["extract"]["poolings"] = _POOLINGS
    config["models"]["minilm"]["device"] = "cpu"
    folder = bench.folder(name)
    folder.mkdir()
    text = yaml.safe_dump(config, sort_keys=False)
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    return folder


def _command(bench: Bench, name: str, folder: Path) -> list[str]:
    if name == "snakemake":
        return _snakemake(bench, folder)
    return [sys.executable, "-m", "benchmarks.one_process", "config.yaml", str(bench.threads)]


def _snakemake(bench: Bench, folder: Path, *more: str) -> list[str]:
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    return [*command, "--directory", str(folder), "--cores", str(bench.threads), *more]


def _run(command: Sequence[str], folder: Path) -> subprocess.CompletedProcess:
    # The jobs' programs are this environment's; this package is found from anywhere.
    environment = plain_environment()
    paths = [str(ROOT), environment.get("PYTHONPATH")]
    environment["PYTHONPATH"] = ":".join(filter(None, paths))
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment.get('PATH', '')}"
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def results(folder: Path) -> set[str]:
    """Files of results, by path; what Snakemake writes about its own jobs is none."""
    found = (path for path in (folder / "results").rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix() for path in found}
    own = ("results/benchmarks/", "results/models/", "results/provenance/")
    return {name for name in names if not name.startswith(own) and "/.snakemake" not in name}


def _check_alike(one: Path, other: Path) -> None:
    """Refuse to compare runs that have not made the same files."""
    different = sorted(results(one) ^ results(other))
    if different:
        raise RuntimeError(f"only one of the two runs has made {', '.join(different[:5])}")


def _check(done: subprocess.CompletedProcess, folder: Path | None = None) -> None:
    """Refuse a run that failed or, in `folder`, has left no summary."""
    if done.returncode:
        last = (done.stdout + done.stderr).strip().splitlines()[-1:]
        raise RuntimeError(f"a run ended with status {done.returncode}: {' '.join(last)}")
    if folder and not (folder / "results/summary.csv").is_file():
        raise RuntimeError("a run has written no summary")
