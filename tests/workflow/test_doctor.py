"""`probeline doctor` on a project that has run, moved, damaged and with another configuration."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import snake
from tiny_project import DATASET, MODEL, edited, write_config

SHARD = f"results/activations/{DATASET}/{MODEL}/hidden.mean.01.h5"
NEURONS = f"results/neurons/{DATASET}/label/{MODEL}/ffn.max.parquet"
HEAD = f"results/classifiers/{DATASET}/label/{MODEL}/head.safetensors"


def probeline(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "probeline.cli", *map(str, arguments)],
        cwd=folder,
        env=snake.environment(),
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def untimed(folder: Path) -> pd.DataFrame:
    """The summary but for how long things took."""
    timed = ["seconds", "train_seconds", "texts_per_second"]
    return pd.read_csv(folder / "results/summary.csv").drop(columns=timed)


def spoil(path: Path, length: int | None = None) -> None:
    """Flip the last bit of a file, or cut it, as a bad disk does it: its times stay."""
    times, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content[:length])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_damage_is_mended_by_the_commands_that_are_printed(copied):
    """Also that a folder which was moved after its run is as good as before."""
    assert snake.planned(copied) == []
    healthy = probeline(copied, "doctor")
    assert healthy.returncode == 0, healthy.stdout + healthy.stderr
    assert healthy.stdout.count("\n") == 1
    assert "nothing wrong" in healthy.stdout and "without a checksum" not in healthy.stdout

    scores = untimed(copied)
    spoil(copied / SHARD)
    spoil(copied / HEAD)
    spoil(copied / NEURONS, 100)
    (copied / "results" / "my thesis.txt").write_text("mine")
    (copied / "results" / ".summary.csv.0123abcd.tmp").write_text("half")

    sick = probeline(copied, "doctor", "results")
    assert sick.returncode == 1
    lines = sick.stdout.splitlines()
    told = [line.split(":")[0].split(maxsplit=1) for line in lines[: lines.index("to mend:")]]
    assert set(map(tuple, told)) == {
        ("damaged", HEAD),
        ("damaged", NEURONS),
        ("damaged", SHARD),
        ("foreign", "results/my thesis.txt"),
        ("incomplete", "results/.summary.csv.0123abcd.tmp"),
    }
    assert lines[-1].endswith("3 damaged, 1 incomplete, 1 foreign")

    for command in lines[lines.index("to mend:") + 1 : -1]:
        name, *arguments = shlex.split(command, comments=True)
        if name == "probeline":
            done = probeline(copied, *arguments)
            assert done.returncode == 0, done.stderr + snake.logged_errors(copied)
        else:
            subprocess.run([name, *arguments], cwd=copied, check=True)
    mended = probeline(copied, "doctor")
    assert mended.returncode == 0, mended.stdout + mended.stderr
    pd.testing.assert_frame_equal(untimed(copied), scores)


def test_another_configuration_makes_results_stale_and_foreign(finished, tmp_path):
    config = write_config(
        tmp_path / "other.yaml",
        edited(("aggregate.path_length", 4), ("combinations", None)),
    )
    done = probeline(tmp_path, "doctor", finished, "--configfile", config)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    stale = [line for line in lines if line.startswith("stale ")]
    assert any("/aggregates/" in line and "other settings" in line for line in stale), lines
    foreign = [line for line in lines if line.startswith("foreign ")]
    (line,) = foreign
    assert "both.parquet: made by rule aggregate, for another configuration" in line
    run = f"  probeline run --directory {finished} --configfile {config}"
    assert run in lines


def test_a_wrong_configuration_leaves_the_rest_to_be_told(finished, tmp_path):
    config = write_config(tmp_path / "other.yaml", edited(("seeed", 4)))
    done = probeline(tmp_path, "doctor", finished, "--configfile", config)
    assert done.returncode == 1
    assert "did you mean 'seed'" in done.stdout
    assert "not told: what is stale or foreign" in done.stdout
    assert "nothing wrong" in done.stdout.splitlines()[-1]
