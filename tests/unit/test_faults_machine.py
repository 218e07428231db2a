"""A machine that refuses: each fault is one line, and what was there stays."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from faults import as_nobody, few_files, in_child, little_memory, small_files

from probeline import logs
from probeline.activations.shards import open_shard, write_shard
from probeline.data.store import read_dataset
from probeline.data.writing import write_dataset
from probeline.doctor import examine
from probeline.doctor.report import mending
from probeline.errors import ProbelineError
from probeline.files import read_json, replacing_folder, write_json
from probeline.results.frames import write_frame
from probeline.sealed import reading, sealing
from probeline.workflow.clock import refuse_future, settle_times, shared_from_future
from probeline.workflow.run import run_workflow

META = {"model": "org/name", "dataset_fingerprint": "f00d"}
SIZE = 1 << 21  # of what is written; what is there is small


def shard(path):
    write_shard(path / "a.h5", np.ones((SIZE // 256, 64), "f4"), META)


def sealed(path):
    with sealing(path / "a.h5") as file:
        file["x"] = np.zeros(SIZE, "u1")


def json(path):
    write_json(path / "a.h5", "x" * SIZE)


def dataset(path):
    rng = np.random.default_rng(0)
    texts = [rng.bytes(40).hex() for _ in range(SIZE // 40)]
    task = {"kind": "single", "labels": ["a", "b"], "counts": {}}
    sizes = {"train": len(texts) - 2, "validation": 1, "test": 1}
    codes = {"label": np.arange(len(texts)) % 2}
    about = {"name": "made", "tasks": {"label": task}}
    write_dataset(path, about, pa.table({"text": texts}), sizes, codes)


def table(path):
    frame = pd.DataFrame({"x": np.random.default_rng(0).random(SIZE // 8)})
    write_frame(frame, path / "a.csv", path / "a.h5")


def folder(path):
    with replacing_folder(path / "folder") as temporary:
        (temporary / "weights").write_bytes(b"x" * SIZE)


WRITERS = [shard, sealed, json, dataset, table, folder]


def state_of(path: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in path.rglob("*") if file.is_file()}


@pytest.fixture
def place():
    """A folder that anybody may use, with an earlier result; pytest's own are their owner's."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o777)
    (path / "a.h5").write_text("earlier")
    (path / "folder").mkdir()
    (path / "folder" / "weights").write_text("earlier")
    yield path
    path.chmod(0o777)
    shutil.rmtree(path)


def one_line(said: str, *words: str) -> None:
    assert said.startswith("ProbelineError: "), said
    assert "\n" not in said
    for word in words:
        assert word in said, said


@pytest.mark.parametrize("write", WRITERS)
def test_files_that_may_not_grow(place, write):
    before = state_of(place)
    said = in_child(lambda: write(place), small_files(SIZE // 8))
    one_line(said, str(place), "larger than files may be here")
    assert state_of(place) == before


@pytest.fixture
def small_disk(tmp_path):
    """A file system of half a megabyte."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(path)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield path
    subprocess.run(["umount", str(path)], check=True)


@pytest.mark.parametrize("write", WRITERS)
def test_full_disk(small_disk, write):
    (small_disk / "a.h5").write_text("earlier")
    before = state_of(small_disk)
    said = in_child(lambda: write(small_disk), lambda: None)
    one_line(said, str(small_disk), "no space left on the disk")
    assert state_of(small_disk) == before


@pytest.mark.parametrize("write", WRITERS)
def test_folder_that_may_not_be_written(place, write):
    before = state_of(place)
    place.chmod(0o555)
    said = in_child(lambda: write(place), as_nobody)
    one_line(said, str(place), "cannot be written: Permission denied", "give yourself the right")
    assert state_of(place) == before


def test_a_folder_that_may_not_be_listed_is_found_by_the_doctor(place):
    write_json(place / "results" / "scores" / "closed" / "a.json", {})
    write_json(place / "results" / "scores" / "b.json", {})
    (place / "results" / "link.json").symlink_to("scores/closed/a.json")
    (place / "results" / "scores" / "closed").chmod(0o000)

    def look():
        report = examine(place, None, "config.yaml: wrong")
        told = sorted(f"{f.kind} {f.path}: {f.reason}" for f in report.findings)
        raise ProbelineError(f"{told} {report.files} {mending(report, {}, [])}")

    said = in_child(look, as_nobody)
    (place / "results" / "scores" / "closed").chmod(0o755)
    link = "damaged results/link.json: cannot be read (Permission denied)"
    closed = "damaged results/scores/closed: cannot be listed: Permission denied; give yourself"
    one_line(said, link, closed, " 2 ")
    # What it holds may be whole.
    assert "closed" not in said.partition("rm -r")[2]


def test_a_run_in_a_folder_that_may_not_be_written(place):
    place.chmod(0o555)
    said = in_child(lambda: run_workflow(place, []), as_nobody)
    one_line(said, str(place), "cannot be written: Permission denied")


@pytest.fixture
def mine(place):
    """Results that nobody else may read."""
    dataset(place)
    shard(place)
    for file in place.glob("*.*"):
        file.chmod(0o000)
    return place


READERS = {
    "shard": lambda path: open_shard(path / "a.h5"),
    "dataset": lambda path: read_dataset(path),
    "sealed": lambda path: reading(path / "a.h5", "a readable file").__enter__(),
    "json": lambda path: read_json(path / "dataset.json"),
}


@pytest.mark.parametrize("name", READERS)
def test_files_that_may_not_be_read(mine, name):
    said = in_child(lambda: READERS[name](mine), as_nobody)
    one_line(said, str(mine), "cannot be read: Permission denied")


@pytest.mark.parametrize("name", READERS)
def test_too_many_open_files(mine, name):
    for file in mine.glob("*.*"):
        file.chmod(0o644)
    said = in_child(lambda: READERS[name](mine), few_files)
    one_line(said, str(mine), "Too many open files", "ulimit -n")
    READERS[name](mine)


@pytest.mark.parametrize("write", [shard, sealed, json, table])
def test_too_many_open_files_while_writing(place, write):
    before = state_of(place)
    said = in_child(lambda: write(place), few_files)
    one_line(said, str(place), "Too many open files", "ulimit -n")
    assert state_of(place) == before


def test_no_memory_is_a_line_in_the_log(tmp_path):
    log = tmp_path / "logs" / "job.log"

    def work():
        logs.set_up(str(log))
        with logs.reported():
            np.ones(1 << 28)

    said = in_child(work, little_memory(1 << 28))
    assert said == "SystemExit: 1"
    (line,) = log.read_text().splitlines()
    assert "ERROR out of memory: " in line and "--cores" in line


def test_no_memory_of_torch_is_a_line_in_the_log(tmp_path):
    import torch

    log = tmp_path / "job.log"

    def work():
        logs.set_up(str(log))
        with logs.reported():
            torch.empty(1 << 40).fill_(1)

    assert in_child(work, little_memory(1 << 28)) == "SystemExit: 1"
    (line,) = log.read_text().splitlines()
    assert "ERROR out of memory: " in line


def test_other_errors_keep_their_traceback(tmp_path):
    def work():
        logs.set_up(str(tmp_path / "job.log"))
        with logs.reported():
            raise RuntimeError("of our own making")

    assert in_child(work, lambda: None) == "SystemExit: 1"
    assert "Traceback" in (tmp_path / "job.log").read_text()


# The clock


def later(path: Path, seconds: float) -> None:
    then = time.time() + seconds
    os.utime(path, (then, then))


def test_inputs_from_the_future_are_refused(tmp_path):
    path = tmp_path / "notes.csv"
    path.write_text("text,label\n")
    later(path, 5)  # no two clocks are quite the same
    refuse_future([path, tmp_path / "missing.csv"])
    later(path, 3600)
    with pytest.raises(ProbelineError, match=r"notes\.csv: changed at .* future; .*touch '"):
        refuse_future([path])


def test_results_from_the_future_become_present_in_one_order(tmp_path):
    folder = tmp_path / "results" / "scores"
    folder.mkdir(parents=True)
    names = ("old", "first", "second")
    for number, name in enumerate(names):
        (folder / name).write_text(name)
        later(folder / name, (-100, 3600, 7200)[number])
    old = (folder / "old").stat().st_mtime
    assert settle_times(tmp_path) == 2
    times = {name: (folder / name).stat().st_mtime for name in names}
    assert times["old"] == old
    assert times["first"] == times["second"] <= time.time()
    assert settle_times(tmp_path) == 0


def test_an_entry_of_a_cache_keeps_its_time_and_the_link_does_not(tmp_path):
    """It may be somebody else's, whose time we may not change; Snakemake looks at the link."""
    folder, away = tmp_path / "work" / "results", tmp_path / "away"
    folder.mkdir(parents=True)
    away.mkdir()
    entry, other = away / f"{'a' * 64}_texts.parquet", away / "scratch.h5"
    for name, target in (("texts", entry), ("shard", other)):
        target.touch()
        later(target, 3600)
        (folder / name).symlink_to(target)
        ahead = time.time() + 7200
        os.utime(folder / name, (ahead, ahead), follow_symlinks=False)
    (folder / "dangling").symlink_to(away / "gone")
    before = entry.stat().st_mtime
    assert settle_times(tmp_path / "work") == 2
    assert entry.stat().st_mtime == before
    assert other.stat().st_mtime <= time.time()
    assert all((folder / name).lstat().st_mtime <= time.time() for name in ("texts", "shard"))
    assert settle_times(tmp_path / "work") == 0


def test_results_on_another_disk_are_settled_and_entries_of_a_cache_are_not(tmp_path):
    results, disk = tmp_path / "work" / "results", tmp_path / "disk"
    results.mkdir(parents=True)
    shard = disk / "notes" / "hidden.mean.00.h5"
    entry = tmp_path / "cache" / f"{'b' * 64}_folder" / "model.safetensors"
    for path in (shard, entry):
        path.parent.mkdir(parents=True)
        path.touch()
        later(path, 3600)
    (disk / "up").symlink_to(results)
    (results / "activations").symlink_to(disk)
    (results / "tuned").symlink_to(entry.parent)
    before = entry.stat().st_mtime
    assert settle_times(tmp_path / "work") == 1
    assert shard.stat().st_mtime <= time.time()
    assert entry.stat().st_mtime == before
    assert settle_times(tmp_path / "work") == 0


def stored(cache: Path, results: Path, name: str, seconds: float) -> Path:
    """An entry of a cache, and the link to it."""
    entry = cache / f"{name[0] * 64}_{name}"
    entry.write_text(name)
    later(entry, seconds)
    (results / name).symlink_to(entry)
    return entry


def test_entries_of_a_cache_from_the_future_are_known(tmp_path):
    cache, results = tmp_path / "cache", tmp_path / "results"
    cache.mkdir()
    results.mkdir()
    ahead = stored(cache, results, "ahead.h5", 3600)
    stored(cache, results, "b.h5", 5)  # no two clocks are quite the same
    stored(cache, results, "c.h5", -100)
    # A folder's time is that of Snakemake's file in it, where there is one.
    folder = cache / f"{'d' * 64}_folder"
    folder.mkdir()
    (folder / ".snakemake_timestamp").touch()
    later(folder, 3600)
    (results / "tuned").symlink_to(folder)
    (results / "gone").symlink_to(cache / f"{'e' * 64}_gone")
    (results / "own").touch()
    later(results / "own", 3600)
    assert shared_from_future(tmp_path) == {results / "ahead.h5": ahead}
    later(folder / ".snakemake_timestamp", 3600)
    assert shared_from_future(tmp_path)[results / "tuned"] == folder / ".snakemake_timestamp"


def test_a_run_says_why_what_is_made_from_such_an_entry_is_made_again(tmp_path, capfd):
    cache, results = tmp_path / "cache", tmp_path / "results"
    cache.mkdir()
    results.mkdir()
    entries = [stored(cache, results, name, 3600) for name in ("a.h5", "b.h5")]
    (tmp_path / "config.yaml").write_text("models: {}\n")
    run_workflow(tmp_path, ["-n"])
    first = capfd.readouterr().err.splitlines()[0]
    assert first.startswith(f"probeline: {results / 'a.h5'} (and 1 more): from a cache, changed at")
    assert first.endswith(f"touch '{entries[0]}'")
    assert "made again in every run" in first


# What a run says of its jobs


def test_the_lock_of_another_snakemake_is_the_last_line(tmp_path, capfd):
    locks = tmp_path / ".snakemake" / "locks"
    locks.mkdir(parents=True)
    for kind in ("input", "output"):
        (locks / f"0.{kind}.lock").write_text("results/summary.csv\n")
    (tmp_path / "config.yaml").write_text("models: {}\n")
    assert run_workflow(tmp_path, ["--cores", "1"]) == 1
    said = capfd.readouterr().err
    assert "locked by another snakemake" in said.splitlines()[-1]
