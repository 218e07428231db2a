"""A whole run on SLURM: interrupted, taken up again, and what SLURM's own record says of it."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import snake
import tiny_project
from cluster import Done
from runs import Run, finished, jobs_of
from tiny_project import edited

# Two models, so that two jobs want the one GPU; one shard per layer, so that there are few jobs.
CONFIG = edited(
    ("models.twin", {"path": "./model", "max_length": 24}),
    ("extract.representations", ["hidden"]),
    ("extract.poolings", ["mean"]),
    ("combinations", None),
    ("baselines", ["tfidf"]),
)
LOCAL = {"all", "sparsify", "layer_figure", "tradeoff_figure"}


@dataclass
class Ran:
    """A run that was interrupted and a second one to its end."""

    folder: Path
    planned: list[snake.Job]
    status: int
    left: dict[int, str]
    before: list[Done]
    after: list[Done]

    @property
    def jobs(self) -> list[Done]:
        return self.before + self.after


def rule_of(job: Done) -> str:
    return re.fullmatch(r"rule_(.+?)(_wildcards_.*)?", job.rule)[1]


def row_of(job: Done) -> list[str]:
    seconds = (job.end - job.start).total_seconds()
    started = job.start.time().isoformat("seconds")
    return [str(job.id), rule_of(job), job.state, job.gres or "-", started, f"{seconds:.0f}"]


@pytest.fixture(scope="module")
def ran(cluster, tmp_path_factory, tiny_model) -> Ran:
    folder = tmp_path_factory.mktemp("slurm") / "project"
    tiny_project.build_project(folder, tiny_model, CONFIG, texts=60)
    planned = snake.planned(folder)

    def extracting() -> bool:
        rules = [cluster.shown(job).get("Comment", "") for job in cluster.running()]
        return any(rule.startswith("rule_extract") for rule in rules)

    with Run(cluster, folder) as run:
        run.until(extracting)
        run.interrupt()
        status = run.wait(300)
    left = {job: state for job, state in cluster.active().items() if state != "COMPLETING"}
    cluster.settle()
    before = jobs_of(cluster, folder)
    finished(cluster, folder)
    return Ran(folder, planned, status, left, before, jobs_of(cluster, folder)[len(before) :])


def test_ctrl_c_cancels_what_runs(ran):
    assert ran.status != 0
    assert ran.left == {}
    states = {job.state for job in ran.before}
    assert states == {"COMPLETED", "CANCELLED"}
    cancelled = {rule_of(job) for job in ran.before if job.state == "CANCELLED"}
    assert any(rule.startswith("extract_") for rule in cancelled)


def test_a_second_run_goes_on_where_the_first_was_stopped(ran):
    done = [rule_of(job) for job in ran.before if job.state == "COMPLETED"]
    assert "texts" in done
    assert not {"texts"} & {rule_of(job) for job in ran.after}


def test_all_stages_are_completed_by_slurms_own_record(ran, record_property):
    record_property("slurm jobs", [row_of(job) for job in ran.jobs])
    assert {job.state for job in ran.after} == {"COMPLETED"}
    completed = sorted(rule_of(job) for job in ran.jobs if job.state == "COMPLETED")
    submitted = sorted(job.rule for job in ran.planned if job.rule not in LOCAL)
    assert completed == submitted


def test_what_takes_seconds_runs_where_snakemake_does(ran):
    assert {job.rule for job in ran.planned} & LOCAL == LOCAL - {"all"}
    assert not {rule_of(job) for job in ran.jobs} & LOCAL


def test_the_rules_of_the_gpu_hold_it_and_no_other_does(ran):
    for job in ran.jobs:
        held = "gres:gpu:1" if rule_of(job).startswith("extract_") else ""
        assert job.gres == held, job


def test_two_never_hold_the_gpu_at_once(ran, cluster):
    holding = sorted((job for job in ran.after if job.gres), key=lambda job: job.start)
    assert len(holding) == 2
    first, second = holding
    assert second.start >= first.end
    # Not because one came after the other: both waited for it.
    assert cluster.shown(second.id)["SubmitTime"] < first.end.isoformat()


def test_jobs_ask_for_what_their_work_needs(ran, cluster):
    for job in ran.after:
        shown = cluster.shown(job.id)
        hours, minutes, seconds = (int(part) for part in shown["TimeLimit"].split(":"))
        assert 10 <= 60 * hours + minutes <= 120 and seconds == 0, shown
        memory = int(shown["MinMemoryNode"].removesuffix("M"))
        assert 1_000 < memory < 4_000, shown
        if rule_of(job).startswith("extract_"):
            assert memory > 3_000  # torch


def test_the_results_are_whole(ran):
    with (ran.folder / "results" / "summary.csv").open(encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert {row["model"] for row in rows} >= {"tiny", "twin"}
    assert {row["method"] for row in rows} >= {"stc", "probe", "last-layer", "tfidf"}
    assert snake.planned(ran.folder) == []
