"""The extract rule: taken up again after a kill, and shared between working directories."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import snake
import tiny_project
from tiny_project import DATASET, MODEL, edited, sentences, write_csv

from probeline.activations.shards import open_shard

SHARDS = [
    *(f"ffn.{pooling}.{layer:02d}.h5" for pooling in ("max", "mean") for layer in (1, 2)),
    *(f"hidden.{pooling}.{layer:02d}.h5" for pooling in ("max", "mean") for layer in (0, 1, 2)),
]
TOKENS = f"results/activations/{DATASET}/{MODEL}/tokens.json"


def activations(folder: Path, model: str = MODEL) -> Path:
    return folder / "results" / "activations" / DATASET / model


def timing(folder: Path, model: str = MODEL) -> dict:
    return json.loads((activations(folder, model) / "timing.json").read_text(encoding="utf-8"))


def extracted(folder: Path, model: str = MODEL) -> bool:
    """Whether the extract script ran: Snakemake makes an empty log for what the cache had."""
    path = folder / "logs" / "extract" / DATASET / f"{model}.log"
    return path.exists() and path.stat().st_size > 0


# A kill


BLOCKS = 100


def slow_project(folder: Path, model: Path) -> Path:
    """A project whose extraction has many small blocks, each of which waits for the disk."""
    config = edited(
        ("extract.block_texts", 2),
        ("extract.representations", ["hidden"]),
        ("extract.poolings", ["mean"]),
        ("combinations", None),
    )
    tiny_project.build_project(folder, model, config)
    write_csv(folder / "notes.csv", sentences(BLOCKS * 2))
    return folder


def journal(folder: Path) -> int:
    """Return how many blocks are complete."""
    path = folder / ".probeline" / "extract" / DATASET / MODEL / "journal.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def kill_amid_extraction(folder: Path) -> int:
    """Run until some blocks are complete, then kill Snakemake and its jobs with signal 9."""
    process = subprocess.Popen(
        snake.command(folder, TOKENS),
        cwd=folder,
        env=snake.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until = time.monotonic() + 300
        while journal(folder) < 5:
            assert process.poll() is None, snake.logged_errors(folder)
            assert time.monotonic() < until
            time.sleep(0.01)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = journal(folder)
    time.sleep(0.5)
    assert journal(folder) == done, "a job outlived its Snakemake"
    assert done < BLOCKS
    return done


def test_a_killed_extraction_goes_on_and_yields_the_same_bits(tmp_path, tiny_model, server):
    killed = slow_project(tmp_path / "killed", tiny_model)
    done = kill_amid_extraction(killed)
    assert not activations(killed).exists() or not list(activations(killed).glob("*.h5"))
    snake.run(killed, "--unlock")
    # The profile beside the Snakefile makes incomplete files again.
    snake.run(killed, TOKENS, server=server)
    assert done <= timing(killed)["resumed_blocks"] < BLOCKS
    assert timing(killed)["texts"] == 2 * BLOCKS

    undisturbed = slow_project(tmp_path / "undisturbed", tiny_model)
    snake.run(undisturbed, TOKENS, server=server)
    assert timing(undisturbed)["resumed_blocks"] == 0
    names = [*(f"hidden.mean.{layer:02d}.h5" for layer in (0, 1, 2)), "tokens.json"]
    same, other, missing = filecmp.cmpfiles(
        activations(killed), activations(undisturbed), names, shallow=False
    )
    assert (same, other, missing) == (names, [], [])
    assert not (killed / ".probeline" / "extract" / DATASET / MODEL).exists()
    assert snake.planned(killed, TOKENS) == []


# On a node's own disk


def test_staged_in_tmpdir_with_the_threads_of_the_rule(tmp_path, tiny_model):
    config = edited(("extract.representations", ["hidden"]), ("combinations", None))
    project = tiny_project.build_project(tmp_path / "project", tiny_model, config)
    node = tmp_path / "node"
    node.mkdir()
    snake.run(project, TOKENS, "--default-resources", "staging=tmpdir", TMPDIR=str(node))
    # A folder that only the shards' state was in.
    (staged,) = node.glob(f"probeline-{os.getuid()}/*/extract/{DATASET}")
    assert not list(staged.iterdir())
    for layer in range(3):
        with open_shard(activations(project) / f"hidden.mean.{layer:02d}.h5") as shard:
            assert shard.rows == 120
    # Of the 8 that the rule asks for, the run has 2, and torch by itself would take one.
    assert snake.environment()["OMP_NUM_THREADS"] == "1"
    assert timing(project)["threads"] == 2


# The cache between working directories


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def first(tmp_path_factory, tiny_model, cache, server) -> Path:
    """A project that has put its shards into the cache."""
    folder = tiny_project.build_project(tmp_path_factory.mktemp("first") / "project", tiny_model)
    env = {"SNAKEMAKE_OUTPUT_CACHE": str(cache)}
    snake.run(folder, "--cache", "--", TOKENS, server=server, **env)
    return folder


def test_shards_in_the_cache_are_up_to_date(first, cache):
    assert all((activations(first) / name).is_symlink() for name in SHARDS)
    assert snake.planned(first, TOKENS) == []
    assert snake.planned(first, "--cache", "--", TOKENS, SNAKEMAKE_OUTPUT_CACHE=str(cache)) == []


def test_a_second_directory_has_the_shards_from_the_cache(
    first, cache, tmp_path, tiny_model, server
):
    other = tmp_path / "models" / "other"
    tiny_project.build_model(other, seed=1)
    # Another analysis, other names of the labels, another place, and a second model: the first
    # one's shards are the same.
    config = edited(
        (
            f"datasets.{DATASET}.label_names",
            {"food": "meals", "sport": "games", "weather": "sky"},
        ),
        ("models.other", {"path": str(other), "max_length": 24}),
        ("probe.poolings", ["mean"]),
        ("seed", 7),
    )
    second = tiny_project.build_project(tmp_path / "elsewhere" / "second", tiny_model, config)
    targets = [
        TOKENS,
        f"results/activations/{DATASET}/other/tokens.json",
        f"results/probes/{DATASET}/label/{MODEL}/hidden.mean.02.h5",
    ]
    env = {"SNAKEMAKE_OUTPUT_CACHE": str(cache)}
    snake.run(second, "--cache", "--", *targets, server=server, **env)
    assert extracted(first) and not extracted(second)
    assert timing(second) == timing(first)
    for name in [*SHARDS, "tokens.json"]:
        assert (activations(second) / name).resolve() == (activations(first) / name).resolve()
    # The other model was run, into entries of its own.
    assert extracted(second, "other")
    for name in SHARDS:
        mine = (activations(second) / name).resolve()
        theirs = (activations(second, "other") / name).resolve()
        assert mine != theirs
        assert mine.read_bytes() != theirs.read_bytes()
    assert snake.planned(second, "--cache", "--", *targets, **env) == []


def entry(folder: Path, cache: Path) -> str:
    """Return the cache entry that a project's extraction belongs to."""
    (link,) = {(activations(folder) / name).resolve().name[:64] for name in SHARDS}
    assert (cache / f"{link}{SHARDS[0]}").is_file()
    return link


@pytest.mark.parametrize("change", ["model", "texts", "more stored"])
def test_what_differs_has_an_entry_of_its_own(first, cache, tmp_path, tiny_model, server, change):
    more = [("extract.poolings", ["first", "max", "mean"])] if change == "more stored" else []
    project = tiny_project.build_project(tmp_path / "project", tiny_model, edited(*more))
    if change == "model":
        (project / "model").unlink()
        tiny_project.build_model(project / "model", seed=2)
    elif change == "texts":
        write_csv(project / "notes.csv", sentences(120, seed=5))
    entries = len(list(cache.iterdir()))
    env = {"SNAKEMAKE_OUTPUT_CACHE": str(cache)}
    snake.run(project, "--cache", "--", TOKENS, server=server, **env)
    assert extracted(project)
    assert entry(project, cache) != entry(first, cache)
    assert len(list(cache.iterdir())) > entries


def test_a_hub_model_is_pinned_and_read_without_a_network(tmp_path, tiny_model):
    commit = "0123456789abcdef" * 2 + "01234567"
    repository = tmp_path / "hub" / "models--somebody--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots").mkdir()
    shutil.copytree(tiny_model, repository / "snapshots" / commit)
    config = edited((f"models.{MODEL}.path", "somebody/tiny"), (f"models.{MODEL}.layers", 2))
    project = tiny_project.build_project(tmp_path / "project", tiny_model, config)
    env = {"HF_HUB_CACHE": str(tmp_path / "hub")}
    snake.run(project, TOKENS, **env)
    pinned = json.loads((project / "results" / "models" / f"{MODEL}.json").read_text())
    assert pinned == {"path": "somebody/tiny", "commit": commit}
    # The layer count is no reason to fetch anew, nor is a branch that has moved on since.
    config = edited((f"models.{MODEL}.path", "somebody/tiny"))
    tiny_project.write_config(project / "config.yaml", config)
    assert snake.planned(project, TOKENS, **env) == []
