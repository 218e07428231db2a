"""Failed jobs in a line each, by logs as Snakemake and SLURM write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from probeline.files import told as told_of
from probeline.workflow.failures import failures
from probeline.workflow.parsing import end_badly

SLURM_LOG = ".snakemake/slurm_logs/rule_texts/notes/7.log"
RULE_LOG = "logs/texts/notes.log"
INFO = """
[Sun Nov 22 11:45:48 2026]
rule texts:
    input: notes.csv
    output: results/datasets/notes/texts.parquet, results/datasets/notes/texts.json
    log: logs/texts/notes.log
    jobid: 3
    benchmark: results/benchmarks/texts/notes.tsv
    reason: Missing output files: results/datasets/notes/texts.json
    wildcards: dataset=notes
    resources: tmpdir=<TBD>, runtime=11, mem_mb=2100, mem=2.1 GB, mem_mib=2003
"""
HINT = " (check log file(s) for error details)"


def error(message: str, logs: str = f"{RULE_LOG}, {SLURM_LOG}") -> str:
    return (
        "[Sun Nov 22 11:45:59 2026]\n"
        "Error in rule texts:\n"
        f"    message: {message}\n"
        "    jobid: 3\n"
        "    input: notes.csv\n"
        "    output: results/datasets/notes/texts.parquet, results/datasets/notes/texts.json\n"
        f"    log: {logs}{HINT}\n"
        "    external_jobid: 7\n"
    )


def ended(state: str) -> str:
    return (
        f"SLURM-job '7' failed, SLURM status is: '{state}'. Detailed failure reason unavailable "
        "(status command is not 'sacct')."
    )


RETRY = "Trying to restart job 3.\nSelect jobs to execute...\n"
END = "Shutting down, this might take some time.\nExiting because a job execution failed.\n"


@pytest.fixture
def folder(tmp_path) -> Path:
    """A run's folder with the logs of its one job."""
    for name in (RULE_LOG, SLURM_LOG):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("", encoding="utf-8")
    return tmp_path


def told(folder: Path, message: str, slurm: str = "", rule: str = "") -> str:
    """The one line about a job whose logs hold `slurm` and `rule`."""
    (folder / SLURM_LOG).write_text(slurm, encoding="utf-8")
    (folder / RULE_LOG).write_text(rule, encoding="utf-8")
    (line,) = failures(INFO + error(message) + END, folder)
    return line


STATES = {
    # As jobacct_gather, cgroups and an accounting database tell it.
    "memory by polling": (
        "FAILED",
        "slurmstepd: error: JobId=7 StepId=0 exceeded memory limit (120 > 100), being killed\n",
        "over its memory of 2100 MB; give it more (--set-resources texts:mem_mb=...)",
    ),
    "memory by cgroups": (
        "FAILED",
        "slurmstepd: error: Detected 1 oom_kill event in StepId=7.0. Some of the step tasks have "
        "been OOM Killed.\n",
        "over its memory of 2100 MB",
    ),
    "memory by state": ("OUT_OF_MEMORY", "", "over its memory of 2100 MB"),
    "time": (
        "TIMEOUT",
        "slurmstepd: error: *** JOB 7 ON node CANCELLED AT 2026-11-22T11:45 DUE TO TIME LIMIT ***",
        "over its time of 11 minutes; give it more (--set-resources texts:runtime=...)",
    ),
    "scancel": (
        "CANCELLED",
        "slurmstepd: error: *** JOB 7 ON node CANCELLED AT 2026-11-22T11:45 ***\n",
        "cancelled, by scancel or by an administrator; run the same command again",
    ),
    "node": ("NODE_FAIL", "", "its node failed; run the same command again"),
    "nothing": ("FAILED", "", "ended by SLURM as FAILED, and its log does not say why"),
    "signal": (
        "FAILED",
        "Command 'python x.py' died with <Signals.SIGSEGV: 11>.\n",
        "ended by signal SIGSEGV",
    ),
}


@pytest.mark.parametrize("case", STATES)
def test_what_slurm_says(folder, case):
    state, log, words = STATES[case]
    line = told(folder, ended(state), slurm=log)
    assert line.startswith(f"texts (dataset=notes): {words}")
    assert line.endswith(f"; log: {RULE_LOG}, {SLURM_LOG}")


def test_a_clusters_log_says_how_the_job_began(folder):
    """The Snakemake that submits a job says nothing of its wildcards."""
    own = INFO.replace("\nrule texts:", "\nlocalrule texts:").replace("mem_mb=2100", "mem_mb=300")
    (folder / SLURM_LOG).write_text(own + "error: exceeded memory limit\n", encoding="utf-8")
    (line,) = failures(error(ended("FAILED")) + END, folder)
    assert line.startswith("texts (dataset=notes): over its memory of 300 MB; ")


def test_a_job_that_never_began_is_known_by_its_first_output(folder):
    (line,) = failures(error(ended("OUT_OF_MEMORY")) + END, folder)
    assert line.startswith("texts (results/datasets/notes/texts.parquet): over its memory; give")


def test_what_the_job_says_itself(folder):
    rule = (
        "2026-11-22 11:45:50,000 INFO dataset notes: 3 texts\n"
        "2026-11-22 11:45:57,568 ERROR notes.csv: row 2: an empty text; fill it in\n"
    )
    line = told(folder, ended("FAILED"), slurm="2026-11-22 11:45:57,568 ERROR other", rule=rule)
    assert line.startswith("texts (dataset=notes): ")
    line = told(folder, "None", rule=rule)
    assert line == (
        "texts (dataset=notes): notes.csv: row 2: an empty text; fill it in; "
        f"log: {RULE_LOG}, {SLURM_LOG}"
    )


def test_an_error_that_a_cancelled_jobs_log_holds_is_not_why_it_ended(folder):
    rule = "2026-11-22 11:45:57,568 ERROR something that was caught\n"
    assert "cancelled" in told(folder, ended("CANCELLED"), rule=rule)


GPU_FULL = told_of(RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB."))


def test_a_gpu_on_which_nothing_is_left_for_cublas_is_full():
    error = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(h)`")
    assert told_of(error).startswith("out of memory: CUDA error: CUBLAS_STATUS_ALLOC_FAILED")


@pytest.mark.parametrize("slurm", ["", "slurmstepd: error: Detected 1 oom_kill event\n"])
@pytest.mark.parametrize("message", ["None", ended("FAILED")])
def test_a_gpu_whose_memory_is_full_is_not_the_memory_of_the_job(folder, message, slurm):
    """As `probeline.files.told` writes it into the job's log; more mem_mb would not help."""
    own = f"2026-11-22 11:45:57,568 ERROR {GPU_FULL}\n"
    line = told(folder, message, slurm=own + slurm, rule=own)
    assert line.startswith(f"texts (dataset=notes): {GPU_FULL}; log: ")
    assert "over its memory" in told(folder, ended("OUT_OF_MEMORY"), rule=own)
    assert "over its time" in told(folder, ended("TIMEOUT"), rule=own)


def test_words_of_the_job_are_not_those_of_slurm(folder):
    rule = (
        "2026-11-22 11:45:50,000 WARNING out of memory once, goes on\n"
        "2026-11-22 11:45:57,568 ERROR oom-killer.csv: DUE TO TIME LIMIT: no such column\n"
    )
    line = told(folder, ended("FAILED"), rule=rule)
    assert "oom-killer.csv: DUE TO TIME LIMIT: no such column" in line


def test_attempts_are_counted_and_the_resources_are_those_of_the_last(folder):
    again = INFO.replace("mem_mb=2100", "mem_mb=4200")
    log = INFO + error(ended("OUT_OF_MEMORY")) + RETRY + again + error(ended("OUT_OF_MEMORY")) + END
    (line,) = failures(log, folder)
    assert line.startswith("texts (dataset=notes), 2 attempts: over its memory of 4200 MB")


def test_what_is_said_again_at_the_end_is_said_once(folder):
    log = INFO + error(ended("CANCELLED")) + END + error(ended("CANCELLED"))
    assert len(failures(log, folder)) == 1


def test_a_job_that_succeeds_in_the_end_is_not_named(folder):
    log = INFO + error(ended("CANCELLED")) + RETRY + INFO + "Finished jobid: 3 (Rule: texts)\n"
    assert failures(log, folder) == []


def test_jobs_that_went_well_or_never_began_are_not_named(folder):
    other = INFO.replace("jobid: 3", "jobid: 4").replace("dataset=notes", "dataset=other")
    assert failures(other + "Finished jobid: 4 (Rule: texts)\n", folder) == []
    assert failures("WorkflowError:\nNo rule to make x.\n", folder) == []
    (line,) = failures(other + INFO + error(ended("CANCELLED")), folder)
    assert "dataset=notes" in line


def test_a_submission_that_slurm_refuses(folder):
    message = (
        "SLURM sbatch failed. The error message was 'sbatch: error: invalid partition specified: "
        'gpu\'.\n    sbatch call:\n        sbatch --parsable -p gpu --wrap="python -m snakemake"\n'
    )
    (line,) = failures(INFO + error(message, RULE_LOG), folder)
    assert line == (
        "texts (dataset=notes): refused by SLURM: sbatch: error: invalid partition specified: gpu; "
        f"log: {RULE_LOG}"
    )


def test_a_signal_on_this_machine(folder):
    said = (
        'RuleException:\nCalledProcessError in file "dataset.smk", line 21:\nCommand \'set -euo '
        "pipefail;  python x.py' died with <Signals.SIGKILL: 9>.\n"
    )
    (line,) = failures(INFO + said + error("None", RULE_LOG), folder)
    assert "ended by signal SIGKILL, as a system does that is out of memory" in line


def test_a_task_of_an_array_has_its_log_one_folder_up(folder):
    given = ".snakemake/slurm_logs/rule_texts/notes/7_2.log"
    real = folder / ".snakemake/slurm_logs/rule_texts/7_2.log"
    real.write_text("error: exceeded memory limit\n", encoding="utf-8")
    (line,) = failures(INFO + error(ended("FAILED"), f"{RULE_LOG}, {given}"), folder)
    assert "over its memory" in line
    assert line.endswith("; log: logs/texts/notes.log, .snakemake/slurm_logs/rule_texts/7_2.log")


def test_a_job_without_any_log(tmp_path):
    (line,) = failures(INFO + error(ended("NODE_FAIL")), tmp_path)
    assert line.endswith("; log: none was written")


def test_jobs_of_a_group(folder):
    log = (
        "[Sun Nov 22 11:45:59 2026]\n"
        "Error in group abc:\n"
        f"    message: {ended('TIMEOUT')}\n"
        f"    log: {SLURM_LOG}{HINT}\n"
        "    jobs:\n"
        "        rule texts:\n"
        "            jobid: 3\n"
        "            output: results/datasets/notes/texts.json\n"
        f"            log: {RULE_LOG}{HINT}\n"
    )
    (line,) = failures(log, folder)
    assert line.startswith("abc (results/datasets/notes/texts.json): over its time")
    assert "--set-resources RULE:runtime=" in line
    assert line.endswith(f"; log: {SLURM_LOG}, {RULE_LOG}")


def test_logs_that_cannot_be_read_are_left_out(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    (folder / "snakemake.log").write_text(INFO + error(ended("NODE_FAIL")), encoding="utf-8")
    end_badly(["absent.log", "snakemake.log"])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("probeline: texts (dataset=notes): its node failed")


def test_what_is_left_of_a_run_is_cancelled_by_its_name(folder, monkeypatch):
    """A stand-in for the program, which writes down how it was called."""
    monkeypatch.chdir(folder)
    program = folder / "bin" / "scancel"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "$@" >> called\n', encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    (folder / "snakemake.log").write_text("SLURM run ID: a-b-c\n" + INFO, encoding="utf-8")
    (folder / "local.log").write_text(INFO, encoding="utf-8")
    end_badly(["local.log"])
    assert not (folder / "called").exists()
    end_badly(["snakemake.log"])
    assert (folder / "called").read_text() == "--quiet --name=a-b-c\n"
