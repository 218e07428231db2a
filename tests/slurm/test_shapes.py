"""Jobs of a run as arrays, in groups, and with a cache that two runs share."""

from __future__ import annotations

from pathlib import Path

import pytest
import snake
import tiny_project
from cluster import Cluster
from forward_passes import counted, passes
from runs import finished, jobs_of
from tiny_project import DATASET, MODEL, TASK, edited

# Two of what an array or a group is made of.
CONFIG = edited(
    ("extract.representations", ["hidden"]),
    ("extract.poolings", ["max", "mean"]),
    ("combinations", None),
    ("baselines", ["tfidf"]),
)
POOLINGS = ("max", "mean")
GRIDS = [f"results/aggregates/{DATASET}/{TASK}/{MODEL}/hidden.{each}.parquet" for each in POOLINGS]
TOKENS = f"results/activations/{DATASET}/{MODEL}/tokens.json"

pytestmark = pytest.mark.slurm_long


@pytest.fixture
def project(tmp_path, tiny_model) -> Path:
    return tiny_project.build_project(tmp_path / "project", tiny_model, CONFIG, texts=60)


def arrays(cluster: Cluster, folder: Path) -> list[tuple[str, str]]:
    """(array, rule) of each job that is a part of an array."""
    shown = [cluster.shown(job.id) for job in jobs_of(cluster, folder)]
    return [(one["ArrayJobId"], one["Comment"]) for one in shown if "ArrayJobId" in one]


def test_jobs_of_a_rule_are_an_array(cluster, project):
    finished(cluster, project, *GRIDS, "--slurm-array-jobs", "all")
    assert all((project / path).is_file() for path in GRIDS)
    assert {job.state for job in jobs_of(cluster, project)} == {"COMPLETED"}
    found = arrays(cluster, project)
    probes = [array for array, rule in found if rule.startswith("rule_probe_hidden")]
    assert len(probes) == 2 and len(set(probes)) == 1
    assert snake.planned(project, *GRIDS) == []


def test_jobs_of_a_group_are_one_job(cluster, project):
    """Of one CPU and one pooling's memory each, side by side."""
    groups = ("--groups", "aggregate=grids", "--group-components", "grids=2", "--cores", "2")
    finished(cluster, project, *GRIDS, *groups)
    assert all((project / path).is_file() for path in GRIDS)
    jobs = jobs_of(cluster, project)
    assert {job.state for job in jobs} == {"COMPLETED"}
    (group,) = [job for job in jobs if "group" in job.rule or "grids" in job.rule]
    assert not [job for job in jobs if job.rule.startswith("rule_aggregate")]
    assert cluster.shown(group.id)["NumCPUs"] == "2"
    assert snake.planned(project, *GRIDS) == []


def test_a_cache_saves_the_forward_passes_of_another_run(cluster, tmp_path, tiny_model):
    (tmp_path / "cache").mkdir()
    found = {}
    for name in ("first", "second"):
        base = tmp_path / name
        folder = tiny_project.build_project(base / "project", tiny_model, CONFIG, texts=60)
        env = counted(base) | {"SNAKEMAKE_OUTPUT_CACHE": str(tmp_path / "cache")}
        finished(cluster, folder, TOKENS, "--cache", "texts", **env)
        found[name] = (passes(base), (folder / TOKENS).read_bytes())
        assert {job.state for job in jobs_of(cluster, folder)} == {"COMPLETED"}
    assert found["first"][0] > 0
    assert found["second"] == (0, found["first"][1])
