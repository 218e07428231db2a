"""What two working directories share through a cache: data, activations, tuned embeddings."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import snake
import tiny_project
from forward_passes import counted, passes
from rich.console import Console
from tiny_project import DATASET, MODEL, TASK, edited, sentences, write_csv

from probeline.cache import pruning, show, uses
from probeline.config import NO_MODEL

ACTIVATIONS = f"results/activations/{DATASET}/{MODEL}"
TOKENS = f"{ACTIVATIONS}/tokens.json"
LABELS = f"results/datasets/{DATASET}/dataset.json"
TUNED = f"results/lrsl/{DATASET}/{TASK}/{NO_MODEL}/tfidf/embedding/1"
CONFIG = edited(
    ("extract.poolings", ["mean"]),
    ("extract.representations", ["hidden"]),
    ("combinations", None),
    (
        "lrsl",
        {
            "sources": ["tfidf"],
            "embedder": "./model",
            "crossfit": 0,
            "tune": {"batch_size": 8, "learning_rate": 1e-3},
            "seeds": [1],
        },
    ),
)
TARGETS = (TOKENS, LABELS, f"{TUNED}.json")
ELIGIBLE = re.compile(r"Output file (\S+) will be (written to|obtained from) global")


def ran(folder: Path) -> set[str]:
    """Rules whose scripts wrote to their logs (`texts` does not): what comes from the cache has an
    empty one."""
    logs = (folder / "logs").rglob("*.log")
    return {path.relative_to(folder / "logs").parts[0] for path in logs if path.stat().st_size}


def run(folder: Path, cache: Path, *targets: str, server: str | None = None, **env: str) -> str:
    env = {"SNAKEMAKE_OUTPUT_CACHE": str(cache)} | env
    return snake.run(folder, "--cache", "--", *targets, server=server, **env)


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def first(tmp_path_factory, tiny_model, cache) -> Path:
    """A project that has put all it can into the cache, and counted its forward passes."""
    base = tmp_path_factory.mktemp("first")
    folder = tiny_project.build_project(base / "project", tiny_model, CONFIG)
    run(folder, cache, *TARGETS, **counted(base))
    return folder


@pytest.fixture(scope="module")
def second(tmp_path_factory, tiny_model, cache, first) -> Path:
    """Another one of the same settings, elsewhere."""
    base = tmp_path_factory.mktemp("second")
    folder = tiny_project.build_project(base / "place" / "project", tiny_model, CONFIG)
    run(folder, cache, *TARGETS, **counted(base))
    return folder


def test_the_second_directory_runs_no_forward_pass(first, second):
    assert passes(first.parent) > 0
    assert passes(second.parents[1]) == 0
    assert ran(first) == {"dataset", "extract", "tfidf", "triplets", "embed"}
    # Of the classifier whose answers are reranked the cache has nothing.
    assert ran(second) == {"tfidf", "triplets"}
    for name in ("texts.parquet", "texts.json", "labels.parquet", "dataset.json"):
        place = f"results/datasets/{DATASET}/{name}"
        assert (first / place).resolve() == (second / place).resolve()
    mine, theirs = ((folder / TUNED).resolve() for folder in (first, second))
    assert (first / TUNED).is_symlink()
    assert theirs == second.resolve() / TUNED
    own = {".snakemake_timestamp"}
    names = {path.name for path in theirs.iterdir()} - own
    assert names == {path.name for path in mine.iterdir()} - own
    assert all((theirs / name).resolve() == mine / name for name in names)


def test_nothing_runs_again_in_either(first, second, cache):
    for folder in (first, second):
        assert snake.planned(folder, *TARGETS) == []
        env = {"SNAKEMAKE_OUTPUT_CACHE": str(cache)}
        assert snake.planned(folder, "--cache", "--", *TARGETS, **env) == []


@pytest.fixture(scope="module")
def with_data(tmp_path_factory, tiny_model, cache, first, server) -> Path:
    """A project that has the data from the cache, and triplets of its own."""
    folder = tmp_path_factory.mktemp("data") / "project"
    tiny_project.build_project(folder, tiny_model, CONFIG)
    triplets = TUNED.replace("embedding/1", "triplets.parquet")
    run(folder, cache, LABELS, triplets, server=server)
    return folder


CHANGES = {
    "nothing": ([], {TOKENS: True, TUNED: True}),
    "max_length": ([(f"models.{MODEL}.max_length", 23)], {TOKENS: False, TUNED: True}),
    "dtype": ([(f"models.{MODEL}.dtype", "bfloat16")], {TOKENS: False, TUNED: True}),
    "storage": ([("extract.storage_dtype", "float32")], {TOKENS: False, TUNED: True}),
    "seed of the tuning": ([("lrsl.seeds", [2])], {TOKENS: True, TUNED: False}),
    "tuning": ([("lrsl.tune.learning_rate", 1e-4)], {TOKENS: True, TUNED: False}),
}


def from_cache(folder: Path, cache: Path, *arguments: str, **env: str) -> dict[str, bool]:
    """Whether each job that a run would start has its outputs in the cache, by its first output."""
    env = {"SNAKEMAKE_OUTPUT_CACHE": str(cache)} | env
    printed = snake.run(folder, "-n", *arguments, **env)
    return {path: found == "obtained from" for path, found in ELIGIBLE.findall(printed)}


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_setting_decides_has_an_entry_of_its_own(with_data, cache, tmp_path, change):
    edits, expected = CHANGES[change]
    path = tiny_project.write_config(tmp_path / "edited.yaml", edited(*edits, base=CONFIG))
    tuned = TUNED.replace("/1", "/2") if "seed" in change else TUNED
    found = from_cache(
        with_data, cache, "--configfile", str(path), "--cache", "--", TOKENS, f"{tuned}.json"
    )
    shard = f"{ACTIVATIONS}/hidden.mean.00.h5"
    assert found == {shard: expected[TOKENS], tuned: expected[TUNED]}


@pytest.mark.parametrize(("stage", "missed"), [("EXTRACT", TOKENS), ("TUNE", TUNED)])
def test_another_version_of_the_code_has_an_entry_of_its_own(
    with_data, cache, tmp_path, stage, missed
):
    library = tmp_path / "library"
    source = snake.ROOT / "src" / "probeline"
    shutil.copytree(source, library / "probeline", ignore=shutil.ignore_patterns("__pycache__"))
    versions = library / "probeline" / "versions.py"
    text = versions.read_text(encoding="utf-8")
    versions.write_text(re.sub(rf"(?m)^{stage} = \d+$", f"{stage} = 1001", text), encoding="utf-8")
    found = from_cache(
        with_data, cache, "--cache", "--", TOKENS, f"{TUNED}.json", PYTHONPATH=str(library)
    )
    shard = f"{ACTIVATIONS}/hidden.mean.00.h5"
    assert found == {shard: missed != TOKENS, TUNED: missed != TUNED}


def test_a_dataset_of_another_name_is_another(first, cache, tmp_path, tiny_model):
    """Names stand in the files themselves."""
    text = json.dumps(CONFIG).replace(f'"{DATASET}"', '"other"')
    project = tiny_project.build_project(tmp_path / "project", tiny_model, json.loads(text))
    run(project, cache, "results/datasets/other/dataset.json")
    assert ran(project) == {"dataset"}
    told = json.loads((project / "results/datasets/other/dataset.json").read_text())
    assert told["name"] == "other"


def test_a_type_that_the_device_decides_is_not_shared(project):
    config = edited((f"models.{MODEL}.dtype", "auto"))
    tiny_project.write_config(project / "config.yaml", config)
    printed = snake.run(project, "-n")
    assert "rule texts is eligible for caching" in printed
    assert "rule extract_" in printed
    assert not re.search(r"rule extract_\S+ is eligible", printed)


def hub(folder: Path, model: Path, commit: str) -> dict[str, str]:
    """Lay a model out as the hub's cache does, at a commit that is `main`."""
    repository = folder / "models--somebody--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(model, repository / "snapshots" / commit)
    return {"HF_HUB_CACHE": str(folder)}


def test_a_branch_that_has_moved_is_another_model(cache, tmp_path, tiny_model):
    moved = tiny_project.build_model(tmp_path / "moved", seed=5)
    config = edited((f"models.{MODEL}.path", "somebody/tiny"), base=CONFIG)
    commits = {"before": "a" * 40, "after": "b" * 40, "again": "a" * 40}
    extracted = []
    for name, commit in commits.items():
        weights = moved if name == "after" else tiny_model
        env = hub(tmp_path / "hub" / name, weights, commit)
        project = tiny_project.build_project(tmp_path / name, tiny_model, config)
        run(project, cache, TOKENS, **env)
        extracted.append("extract" in ran(project))
        assert (
            json.loads((project / f"results/models/{MODEL}.json").read_text())["commit"] == commit
        )
    assert extracted == [True, True, False]
    files = [(tmp_path / name / ACTIVATIONS / "hidden.mean.02.h5").resolve() for name in commits]
    assert files[0] == files[2] != files[1]
    assert files[0].read_bytes() != files[1].read_bytes()
    pinned = edited((f"models.{MODEL}.revision", commits["after"]), base=config)
    path = tiny_project.write_config(tmp_path / "pinned.yaml", pinned)
    options = ("--configfile", str(path), "--cache", "--", TOKENS)
    found = from_cache(
        tmp_path / "before", cache, *options, HF_HUB_CACHE=str(tmp_path / "hub/after")
    )
    assert found == {f"{ACTIVATIONS}/hidden.mean.00.h5": False}


# Mistakes


@pytest.mark.parametrize(
    ("location", "line"),
    [
        (None, "SNAKEMAKE_OUTPUT_CACHE is not set"),
        ("cache", "SNAKEMAKE_OUTPUT_CACHE: 'cache' is no full path"),
        ("/nowhere/cache", "SNAKEMAKE_OUTPUT_CACHE: /nowhere/cache: no such folder"),
    ],
)
def test_a_cache_that_cannot_be_is_refused_before_any_job(project, location, line):
    env = {} if location is None else {"SNAKEMAKE_OUTPUT_CACHE": location}
    done = snake.snakemake(project, "--cache", "--", LABELS, **env)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(line)
    assert not (project / "results").exists()


def test_a_cluster_needs_a_name(project, tmp_path):
    pytest.importorskip("snakemake_executor_plugin_slurm")
    env = {"SNAKEMAKE_OUTPUT_CACHE": str(tmp_path)}
    done = snake.snakemake(
        project, "--executor", "slurm", "-j", "1", "--cache", "--", LABELS, **env
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("--cache: Snakemake hands it on")
    assert not (project / "results").exists()
    assert not list((project / ".snakemake" / "locks").glob("*"))


# Pruning


def test_the_cache_knows_what_it_holds_and_for_whom(first, second, cache):
    contents = show.read_contents(cache)
    told = {
        (of.rule, of.dataset, of.model)
        for of in (contents.origins[entry.key] for entry in contents.entries)
    }
    assert told >= {
        ("texts", DATASET, ""),
        ("dataset", DATASET, ""),
        ("extract", DATASET, MODEL),
        ("embed", DATASET, ""),
    }
    keys = uses.linked(first)
    assert len(keys) == 4
    for key in keys:
        assert {first, second} <= set(contents.in_use.links[key])


def test_what_nobody_has_any_more_goes_and_is_made_again(
    cache, tmp_path, tiny_model, server, monkeypatch
):
    config = edited((f"models.{MODEL}.max_length", 9), base=CONFIG)
    project = tiny_project.build_project(tmp_path / "project", tiny_model, config)
    write_csv(project / "notes.csv", sentences(60, seed=9))
    run(project, cache, TOKENS, server=server)
    keys = set(uses.linked(project))
    assert len(keys) == 2
    later = show.time.time() + 2 * pruning.SETTLED
    monkeypatch.setattr(show.time, "time", lambda: later)
    printed = Console(quiet=True)
    show.prune(cache, show.read_contents(cache), printed, 3600, None, False)
    assert not uses.broken(project)
    # The folder is gone, and its owner says so.
    shutil.rmtree(project)
    show.prune(cache, show.read_contents(cache), printed, 3600, None, False)
    assert keys <= {entry.key for entry in show.read_contents(cache).entries}
    uses.forget(cache, project)
    show.prune(cache, show.read_contents(cache), printed, 3600, None, False)
    assert not keys & {entry.key for entry in show.read_contents(cache).entries}
    tiny_project.build_project(project, tiny_model, config)
    write_csv(project / "notes.csv", sentences(60, seed=9))
    run(project, cache, TOKENS, server=server)
    assert set(uses.linked(project)) == keys


def test_links_to_a_cache_that_is_gone(tmp_path, tiny_model):
    cache = tmp_path / "cache"
    cache.mkdir()
    project = tiny_project.build_project(tmp_path / "project", tiny_model)
    run(project, cache, LABELS)
    shutil.rmtree(cache)
    done = snake.snakemake(project, "-n", LABELS)
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"results/datasets/{DATASET}/dataset.json: what it leads to in")
    assert "(4 such links)" in line
    assert uses.unlink_broken(project) == 4
    snake.run(project, LABELS)
    assert (project / LABELS).is_file() and not (project / LABELS).is_symlink()
