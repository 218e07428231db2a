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
from rerun_table import FROM_EXTRACT, table
from tiny_project import CONFIG, DATASET, MODEL, edited

from probeline.activations.shards import open_shard

PARTS = 3
ACTIVATIONS = f"results/activations/{DATASET}/{MODEL}"
TOKENS = f"{ACTIVATIONS}/tokens.json"
CLOCKS = ["seconds", "train_seconds", "texts_per_second"]


@pytest.fixture(scope="module")
def joined(tmp_path_factory, tiny_model) -> Path:
    """The finished project's configuration, its extraction shared by three jobs."""
    config = edited(("extract.parts", PARTS))
    folder = tiny_project.build_project(tmp_path_factory.mktemp("j") / "p", tiny_model, config)
    snake.run(folder)
    return folder


def arrays(path: Path) -> dict[str, bytes]:
    """Bytes of all datasets of an HDF5 file."""
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: (
                found.update({name: item[()].tobytes()}) if isinstance(item, h5py.Dataset) else None
            )
        )
    return found


def test_probes_and_scores_are_those_of_one_job(joined, finished):
    for place in ("probes", "predictions"):
        paths = sorted((finished / "results" / place).rglob("*.h5"))
        assert paths
        for path in paths:
            twin = joined / path.relative_to(finished)
            assert arrays(twin) == arrays(path), path.name
    summaries = [
        pd.read_csv(folder / "results" / "summary.csv").drop(columns=CLOCKS, errors="ignore")
        for folder in (joined, finished)
    ]
    pd.testing.assert_frame_equal(*summaries)
    assert (joined / TOKENS).read_bytes() == (finished / TOKENS).read_bytes()


def test_shards_are_those_of_one_job_and_lie_in_parts(joined, finished):
    paths = sorted((finished / ACTIVATIONS).glob("*.h5"))
    assert len(paths) == 10
    for path in paths:
        with open_shard(path) as one, open_shard(joined / ACTIVATIONS / path.name) as other:
            assert one.read().tobytes() == other.read().tobytes()
            assert len(other.meta["files"]) == PARTS
    timing = json.loads((joined / ACTIVATIONS / "timing.json").read_text(encoding="utf-8"))
    assert (timing["parts"], timing["texts"]) == (PARTS, 120)


def test_nothing_runs_again(joined):
    assert snake.planned(joined) == []


def test_a_lost_part_is_made_again_alone(joined, tmp_path):
    folder = tmp_path / "copied"
    shutil.copytree(joined, folder, symlinks=True)
    (folder / ACTIVATIONS / "part-2-of-3" / "hidden.mean.01.h5").unlink()
    found = snake.planned(folder)
    extractions = [job for job in found if job.stage == "extract"]
    assert [job.wildcards["part"] for job in extractions] == ["2"]
    assert snake.stages(found) == table(*FROM_EXTRACT, extract=1, join=1)
    # Whoever reads the shard before says which part it is.
    with pytest.raises(Exception, match="part 2 of 3 of this shard is missing"):
        open_shard(folder / ACTIVATIONS / "hidden.mean.01.h5")


def test_a_second_directory_has_the_parts_from_the_cache(tmp_path, tiny_model):
    cache = tmp_path / "cache"
    cache.mkdir()
    env = {"SNAKEMAKE_OUTPUT_CACHE": str(cache)}
    config = edited(("extract.parts", 2), ("extract.representations", ["hidden"]))
    del config["combinations"]
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
        assert len(paths) == 8 and all(path.is_symlink() for path in paths)
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
    assert CONFIG["extract"].get("parts") is None
