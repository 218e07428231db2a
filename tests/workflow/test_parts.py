"""Jobs that share an extraction: same results as one job, each by itself in the cache."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import snake
import tiny_project
from tiny_project import DATASET, MODEL, edited

from probeline.activations.shards import open_shard
from probeline.errors import ProbelineError

PARTS = 3
ACTIVATIONS = f"results/activations/{DATASET}/{MODEL}"
TOKENS = f"{ACTIVATIONS}/tokens.json"
SUMMARY = "results/summary.csv"
CLOCKS = ["seconds", "train_seconds", "texts_per_second"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tiny_model, server) -> tuple[Path, Path]:
    """Two runs up to the summary: by one extraction job, and by three after that."""
    joined = tmp_path_factory.mktemp("parts") / "joined"
    tiny_project.build_project(joined, tiny_model, small())
    snake.run(joined, SUMMARY, server=server)
    single = joined.with_name("single")
    shutil.copytree(joined, single, symlinks=True)
    tiny_project.write_config(joined / "config.yaml", small(("extract.parts", PARTS)))
    snake.run(joined, SUMMARY, server=server)
    return joined, single


def small(*changes: tuple[str, object]) -> dict:
    """A configuration of few jobs."""
    return edited(
        ("extract.representations", ["hidden"]),
        ("extract.poolings", ["mean"]),
        ("combinations", None),
        ("baselines", []),
        *changes,
    )


def arrays(path: Path) -> dict:
    """All datasets of an HDF5 file, numbers as their bytes."""
    found = {}

    def take(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset):
            values = item[()]
            found[name] = values.tolist() if values.dtype.kind == "O" else values.tobytes()

    with h5py.File(path) as file:
        file.visititems(take)
    return found


def test_probes_and_scores_are_those_of_one_job(folders):
    joined, single = folders
    for place in ("probes", "predictions"):
        paths = sorted((single / "results" / place).rglob("*.h5"))
        assert paths
        for path in paths:
            assert arrays(joined / path.relative_to(single)) == arrays(path), path.name
    tables = [pd.read_csv(f / SUMMARY).drop(columns=CLOCKS, errors="ignore") for f in folders]
    pd.testing.assert_frame_equal(*tables)
    assert (joined / TOKENS).read_bytes() == (single / TOKENS).read_bytes()


def test_shards_are_those_of_one_job_and_lie_in_parts(folders):
    joined, single = folders
    paths = sorted((single / ACTIVATIONS).glob("*.h5"))
    assert [path.name for path in paths] == [f"hidden.mean.{n:02d}.h5" for n in (0, 1, 2)]
    for path in paths:
        with open_shard(path) as one, open_shard(joined / ACTIVATIONS / path.name) as other:
            assert one.read().tobytes() == other.read().tobytes()
            assert len(other.meta["files"]) == PARTS
    timing = json.loads((joined / ACTIVATIONS / "timing.json").read_text(encoding="utf-8"))
    assert (timing["parts"], timing["texts"]) == (PARTS, 120)


def test_nothing_runs_again_but_a_part_that_is_lost(folders):
    joined, _ = folders
    assert snake.planned(joined, SUMMARY) == []
    lost = joined / ACTIVATIONS / "part-2-of-3" / "hidden.mean.01.h5"
    kept = lost.rename(lost.with_suffix(".kept"))
    try:
        found = snake.planned(joined)
        # Whoever reads the shard before says which part it is.
        with pytest.raises(ProbelineError, match="part 2 of 3 of this shard is missing"):
            open_shard(joined / ACTIVATIONS / "hidden.mean.01.h5")
    finally:
        kept.rename(lost)
    extractions = [job for job in found if job.stage == "extract"]
    assert [job.wildcards["part"] for job in extractions] == ["2"]
    assert {"join", "probe", "summary"} <= set(snake.stages(found))


def test_a_second_directory_has_the_parts_from_the_cache(tmp_path, tiny_model):
    cache = tmp_path / "cache"
    cache.mkdir()
    env = {"SNAKEMAKE_OUTPUT_CACHE": str(cache)}
    config = small(("extract.parts", 2))
    first, second = (
        tiny_project.build_project(tmp_path / name, tiny_model, config) for name in ("a", "b")
    )
    for folder in (first, second):
        snake.run(folder, "--cache", "--", TOKENS, **env)
        logs = (folder / "logs" / "extract" / DATASET / MODEL).glob("*.log")
        assert {bool(path.stat().st_size) for path in logs} == {folder == first}
    targets: list[set[Path]] = []
    for number in (1, 2):
        names = [path.name for path in (second / ACTIVATIONS / f"part-{number}-of-2").iterdir()]
        paths = [second / ACTIVATIONS / f"part-{number}-of-2" / name for name in names]
        assert len(paths) == 5 and all(path.is_symlink() for path in paths)
        targets.append({path.resolve() for path in paths})
    # Each part has entries of its own.
    assert not targets[0] & targets[1]
    with (
        open_shard(first / ACTIVATIONS / "hidden.mean.02.h5") as one,
        open_shard(second / ACTIVATIONS / "hidden.mean.02.h5") as other,
    ):
        np.testing.assert_array_equal(one.read(), other.read())
        assert other.rows == 120
    assert snake.planned(second, "--cache", "--", TOKENS, **env) == []


def test_parts_of_one_pair_alone(tmp_path, tiny_model):
    runs = [
        {"model": MODEL, "dataset": DATASET},
        {"model": "other", "dataset": DATASET, "parts": 2},
    ]
    config = edited(("models.other", {"path": str(tiny_model)}), ("runs", runs))
    project = tiny_project.build_project(tmp_path / "project", tiny_model, config)
    found = [job for job in snake.planned(project) if job.stage in ("extract", "join")]
    assert sorted((job.rule, job.wildcards.get("part")) for job in found) == [
        ("extract_notes.other", "1"),
        ("extract_notes.other", "2"),
        ("extract_notes.tiny", None),
        ("join_notes.other", None),
    ]
