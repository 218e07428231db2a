"""What failed and why, a line each: read off Snakemake's log and the logs of the jobs.

Snakemake says which job failed and a cluster says how its process ended; why it did stands in the
job's own log, or in what the cluster has written of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_BLOCK = re.compile(r"(?P<error>Error in )?(?:local)?(?P<kind>rule|group) (?P<name>\S+?):$")
_FIELD = re.compile(r"\s+(?P<key>[a-z_]+): (?P<value>.+)$")
_RETRIED = re.compile(r"Trying to restart job (?P<job>\S+?)\.$")
_FINISHED = re.compile(r"Finished (?:jobid|group job): ?(?P<job>\S+)")
_KILLED = re.compile(r"died with <Signals\.(?P<signal>\w+)")
_REFUSED = re.compile(r"sbatch failed\. The error message was '(?P<text>[^']*)'")
_STATE = re.compile(r"SLURM status is: '(?P<state>\w+)'")
_OWN_ERROR = re.compile(r"^\S+ \S+ ERROR (?P<text>.+)$", re.MULTILINE)
_OWN_LINE = re.compile(r"^[-\d]+ [:,\d]+ (?:DEBUG|INFO|WARNING|ERROR|CRITICAL) .*$", re.MULTILINE)
# How `probeline.files.told` begins; it is the memory of a GPU most often, which no limit is about.
_OUT_OF_MEMORY = "out of memory"
# What SLURM writes into a job's log, by the way in which it watches memory.
_OVER_MEMORY = re.compile(r"exceeded memory limit|oom[-_ ]kill|out.of.memory", re.IGNORECASE)
_OVER_TIME = re.compile(r"DUE TO TIME LIMIT")
# States that say why a job ended, whatever it had said before.
_SLURM_ENDED = ("TIMEOUT", "DEADLINE", "CANCELLED", "NODE_FAIL", "BOOT_FAIL")
_HINT = " (check log file(s) for error details)"
_PART = 100_000


@dataclass
class _Job:
    """What Snakemake's log says of a job, by the last time that it says it."""

    name: str
    group: bool = False
    wildcards: str = ""
    output: str = ""
    resources: dict[str, str] = field(default_factory=dict)
    message: str = ""
    killed: str = ""
    logs: list[str] = field(default_factory=list)
    attempts: int = 1
    failed: bool = False

    def learn(self, fields: dict[str, str]) -> None:
        """Take what a block about the job's beginning says."""
        self.wildcards = fields.get("wildcards", self.wildcards)
        pairs = (pair.partition("=") for pair in fields.get("resources", "").split(", "))
        self.resources |= {key: value for key, _, value in pairs}

    @property
    def words(self) -> str:
        known = self.wildcards or self.output
        return f"{self.name} ({known})" if known else self.name


def failures(log: str, folder: Path) -> list[str]:
    """A line for each job that has failed for good: which, why, what helps, and its log.

    Parameters
    ----------
    log : str
        Text of Snakemake's log of a run.
    folder : Path
        The run's working directory.
    """
    return [_line(job, folder) for job in _jobs(log).values() if job.failed]


def _jobs(log: str) -> dict[str, _Job]:
    """Jobs by Snakemake's number, in the order in which they began."""
    jobs: dict[str, _Job] = {}
    for opening, fields in _blocks(log):
        number = opening["name"] if opening["kind"] == "group" else fields.get("jobid", "")
        job = jobs.setdefault(number, _Job(opening["name"], opening["kind"] == "group"))
        if opening["error"]:
            job.failed = True
            job.message = fields.get("message", "")
            job.killed = fields["killed"]
            job.output = fields.get("output", "").split(", ")[0]
            job.logs = fields.get("log", "").split(", ")
        else:
            job.learn(fields)
    for line in log.splitlines():
        if (retried := _RETRIED.match(line)) and retried["job"] in jobs:
            jobs[retried["job"]].attempts += 1
        elif (finished := _FINISHED.match(line)) and finished["job"] in jobs:
            jobs[finished["job"]].failed = False
    return jobs


def _blocks(log: str) -> Iterator[tuple[re.Match, dict[str, str]]]:
    """Opening lines of what is said of a job, and the indented lines below, by key.

    Of several lines of one key, as of a group's jobs, all of them.
    """
    opening: re.Match | None = None
    fields: dict[str, str] = {}
    killed = ""
    for line in [*log.splitlines(), "end"]:
        # A message of several lines ends in an empty one, and the block goes on.
        if opening is not None and (line.startswith(" ") or not line):
            if match := _FIELD.match(line):
                key, value = match["key"], match["value"].removesuffix(_HINT)
                fields[key] = f"{fields[key]}, {value}" if key in fields else value
            continue
        if opening is not None:
            yield opening, fields
            opening = None
        if match := _BLOCK.match(line):
            opening, fields = match, {"killed": killed} if match["error"] else {}
            killed = ""
        elif match := _KILLED.search(line):
            # Said before the block about the job that this is about.
            killed = match["signal"]


def _line(job: _Job, folder: Path) -> str:
    logs = [path for path in (_found(folder, log) for log in job.logs) if path is not None]
    texts = [_text(path) for path in logs]
    # Of a job of a cluster it is its own Snakemake that says how it began.
    for text in texts:
        for opening, fields in _blocks(text):
            if not opening["error"] and opening["name"] == job.name:
                job.learn(fields)
    cause = _cause(job, texts)
    attempts = f", {job.attempts} attempts" if job.attempts > 1 else ""
    where = ", ".join(_named(path, folder) for path in logs) or "none was written"
    return f"{job.words}{attempts}: {cause}; log: {where}"


def _found(folder: Path, log: str) -> Path | None:
    """A log that was written; the executor names those of array jobs one folder too deep."""
    path = folder / log
    for candidate in (path, path.parent.parent / path.name):
        if log and candidate.is_file():
            return candidate
    return None


def _named(path: Path, folder: Path) -> str:
    absolute, here = path.absolute(), folder.absolute()
    return str(absolute.relative_to(here) if absolute.is_relative_to(here) else absolute)


def _text(path: Path) -> str:
    """A log; of one that is very long its beginning and its end."""
    try:
        with path.open("rb") as handle:
            text = handle.read(_PART)
            handle.seek(max(_PART, path.stat().st_size - _PART))
            return (text + b"\n" + handle.read()).decode("utf-8", errors="replace")
    except OSError:
        return ""


def _cause(job: _Job, logs: list[str]) -> str:
    text = "\n".join(logs)
    match = _STATE.search(job.message)
    state = match["state"] if match else ""
    own = _OWN_ERROR.findall(text)
    # What a job says of itself is not what SLURM says of it, even in the same words.
    others = _OWN_LINE.sub("", text)
    if state == "OUT_OF_MEMORY":
        return _too_little(job, "memory", "mem_mb", "MB")
    if own and own[-1].startswith(_OUT_OF_MEMORY) and state not in _SLURM_ENDED:
        return own[-1]
    if state != "TIMEOUT" and _OVER_MEMORY.search(others):
        return _too_little(job, "memory", "mem_mb", "MB")
    if state in ("TIMEOUT", "DEADLINE") or _OVER_TIME.search(others):
        return _too_little(job, "time", "runtime", "minutes")
    if state == "CANCELLED":
        return "cancelled, by scancel or by an administrator; run the same command again"
    if state in ("NODE_FAIL", "BOOT_FAIL"):
        return "its node failed; run the same command again"
    if own:
        return own[-1]
    if refused := _REFUSED.search(job.message):
        return f"refused by SLURM: {refused['text']}"
    if signal := job.killed or _signal(text):
        why = ", as a system does that is out of memory" if signal == "SIGKILL" else ""
        return f"ended by signal {signal}{why}"
    ended = f"ended by SLURM as {state}" if state else "ended with an error"
    return f"{ended}, and its log does not say why"


def _too_little(job: _Job, what: str, resource: str, unit: str) -> str:
    known = job.resources.get(resource)
    over = f"over its {what} of {known} {unit}" if known else f"over its {what}"
    rule = "RULE" if job.group else job.name
    return (
        f"{over}; give it more (--set-resources {rule}:{resource}=...) or more --retries, each "
        "of which doubles it"
    )


def _signal(text: str) -> str:
    match = _KILLED.search(text)
    return match["signal"] if match else ""
