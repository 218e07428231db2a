"""Jobs that SLURM ends before they are done: tried again with more, or named in one line."""

from __future__ import annotations

import re

import pytest
from cluster import Cluster
from runs import Run, jobs_of, processes, stop

TEXTS = "results/datasets/notes/texts.json"


def asked(cluster: Cluster, job: int) -> tuple[int, str]:
    """MB and time limit that a job was submitted with."""
    shown = cluster.shown(job)
    return int(shown["MinMemoryNode"].removesuffix("M")), shown["TimeLimit"]


def states(cluster: Cluster, folder) -> list[str]:
    return [job.state for job in jobs_of(cluster, folder)]


def logs_of(line: str, folder) -> list[str]:
    """The files that a line names, which must be there."""
    named = line.rpartition("; log: ")[2].split(", ")
    for name in named:
        assert (folder / name).is_file(), line
    return named


@pytest.mark.slurm_long
def test_a_failing_job_is_tried_again_and_then_named(cluster, project):
    (project / "notes.csv").write_text("text,label\nwords,a\n,b\n", encoding="utf-8")
    with Run(cluster, project, TEXTS, "--retries", "1") as run:
        assert run.wait() == 1
        (line,) = run.lines
    assert states(cluster, project) == ["FAILED", "FAILED"]
    assert line.startswith("probeline: texts (dataset=notes), 2 attempts: ")
    assert "notes.csv: row 2: an empty text" in line
    last = jobs_of(cluster, project)[-1].id
    assert logs_of(line, project) == [
        "logs/texts/notes.log",
        f".snakemake/slurm_logs/rule_texts/notes/{last}.log",
    ]


def test_a_job_over_its_memory_is_tried_again_with_more(cluster, project):
    more = ("--set-resources", "texts:mem_mb=100*attempt**4")
    with Run(cluster, project, TEXTS, *more) as run:
        assert run.wait() == 0, run.printed
        assert run.lines == []
    first, second = jobs_of(cluster, project)
    assert (first.state, second.state) == ("FAILED", "COMPLETED")
    assert [asked(cluster, job.id)[0] for job in (first, second)] == [100, 1600]


@pytest.mark.slurm_long
def test_a_job_that_is_always_over_its_memory_is_named(cluster, project):
    little = ("--set-resources", "texts:mem_mb=100", "--retries", "1")
    with Run(cluster, project, TEXTS, *little) as run:
        assert run.wait() == 1
        (line,) = run.lines
    assert states(cluster, project) == ["FAILED", "FAILED"]
    assert "texts (dataset=notes), 2 attempts: over its memory of 100 MB; give it more" in line
    assert logs_of(line, project)


@pytest.mark.slurm_long
def test_a_job_that_is_cancelled_is_tried_again(cluster, project):
    with Run(cluster, project, TEXTS) as run:
        (job,) = run.until(cluster.running)
        cluster.call("scancel", str(job))
        assert run.wait() == 0, run.printed
    first, second = jobs_of(cluster, project)
    assert (first.state, second.state) == ("CANCELLED", "COMPLETED")
    # What follows from the work doubles with the attempt.
    (memory, _), (more, _) = (asked(cluster, job.id) for job in (first, second))
    assert more == 2 * memory


@pytest.mark.slurm_long
def test_a_job_that_is_cancelled_for_good_is_named(cluster, project):
    with Run(cluster, project, TEXTS, "--retries", "0") as run:
        # Its own Snakemake has told of it by then.
        cluster.call("scancel", str(hang(run, cluster)))
        assert run.wait() == 1
        (line,) = run.lines
    assert states(cluster, project) == ["CANCELLED"]
    assert line.startswith("probeline: texts (dataset=notes): cancelled, by scancel or by an admin")


def hang(run: Run, cluster: Cluster) -> int:
    """Stop the one job's script, which then neither ends nor fails; return the job's number."""
    (job,) = run.until(cluster.running)
    stop(run.until(lambda: processes(job, "dataset")))
    return job


@pytest.mark.slurm_long
def test_a_job_past_its_time_is_tried_again_with_more(cluster, project):
    with Run(cluster, project, TEXTS, "--set-resources", "texts:runtime=attempt**3") as run:
        hang(run, cluster)
        assert run.wait() == 0, run.printed
    first, second = jobs_of(cluster, project)
    assert (first.state, second.state) == ("TIMEOUT", "COMPLETED")
    assert [asked(cluster, job.id)[1] for job in (first, second)] == ["00:01:00", "00:08:00"]


@pytest.mark.slurm_long
def test_a_job_past_its_time_for_good_is_named(cluster, project):
    little = ("--set-resources", "texts:runtime=1", "--retries", "0")
    with Run(cluster, project, TEXTS, *little) as run:
        hang(run, cluster)
        assert run.wait() == 1
        (line,) = run.lines
    assert states(cluster, project) == ["TIMEOUT"]
    assert re.search(r"texts \(dataset=notes\): over its time of 1 minutes; give it more", line)
    assert logs_of(line, project)
