"""Examining a folder of results, file by file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from probeline.cache.uses import from_cache
from probeline.doctor.findings import (
    DAMAGED,
    DELETE,
    FORCE,
    FOREIGN,
    INCOMPLETE,
    NOTHING,
    RUN,
    STALE,
    Finding,
)
from probeline.doctor.leftovers import marks, states, temporary
from probeline.doctor.origins import Origins
from probeline.doctor.planned import FOLLOWS, MISSING, Output
from probeline.doctor.whole import shard_trouble, trouble
from probeline.errors import ProbelineError
from probeline.files import is_temporary, refusal, walk
from probeline.provenance import FOLDER as PROVENANCE
from probeline.provenance import Written, difference, read_records
from probeline.sealed import seal_of
from probeline.workflow.states import snakemake_locks

RESULTS = "results"
# Of Snakemake: how long jobs took. Of a search: its trials, which no job must delete.
_BESIDE = ("results/benchmarks/", PROVENANCE.as_posix() + "/")
_JOURNALS = ("journal.log", "journal.log.lock")
# Dataset, model and file; a part lies in a folder of its own.
_SHARDS = "results/activations/"
_SHARD_DEPTH = 5
# Of Snakemake, in every folder that is an output.
_TIMESTAMP = ".snakemake_timestamp"


@dataclass
class Report:
    """What an examination has found.

    Attributes
    ----------
    folder : Path
    findings : list of Finding
    files, bytes : int
        How much was read.
    unverified : int
        Files without a checksum, of which only the format was looked at.
    unplanned : str or None
        Why it is not known what the configuration asks for: stale and foreign files are not told.
    """

    folder: Path
    findings: list[Finding] = field(default_factory=list)
    files: int = 0
    bytes: int = 0
    unverified: int = 0
    unplanned: str | None = None


def artifacts(
    folder: Path, closed: Callable[[Path, OSError], object] = lambda place, error: None
) -> list[Path]:
    """Every file under `results/` that is not told about others, also in folders that are linked:
    of a cache, or of another disk. `closed` gets folders that cannot be listed, and why."""
    return [
        path
        for path in sorted(walk(folder / RESULTS, closed=closed))
        if path.name != _TIMESTAMP
        and not path.relative_to(folder).as_posix().startswith(_BESIDE)
        and not _is_folder(path)
    ]


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a link into what is closed to us
        return False


def require_results(folder: Path) -> None:
    """Raise a `ProbelineError` if there are no results in `folder`."""
    if not (folder / RESULTS).is_dir():
        raise ProbelineError(
            f"{folder}: no {RESULTS}/ here; give the folder that `probeline run` worked in"
        )


def examine(
    folder: Path,
    outputs: Mapping[str, Output] | None,
    unplanned: str | None = None,
    advance: Callable[[int], object] = lambda count: None,
) -> Report:
    """Read every artifact of a run and compare it with its checksum, its job's record, its dataset
    and model, and with what the configuration asks for.

    Parameters
    ----------
    folder : Path
        Where `results/` lies.
    outputs : mapping or None
        `planned`; None if that cannot be known, for the reason `unplanned`.
    advance : callable
        Gets the bytes that were read since the last call.

    Raises
    ------
    ProbelineError
        If there are no results.
    """
    require_results(folder)
    report = Report(folder, unplanned=unplanned)
    records, broken = read_records(folder)
    trusted = _of_own_jobs(folder, records)
    look = _Look(folder, records, trusted, outputs, Origins(folder), report)
    for path in broken:
        name = path.relative_to(folder).as_posix()
        reason = "record of a job, not what was written (checksum)"
        report.findings.append(Finding(DAMAGED, name, reason, DELETE, name, PROVENANCE.name))
    unlisted: dict[Path, OSError] = {}
    for path in artifacts(folder, unlisted.__setitem__):
        report.files += 1
        report.findings += look.at(path, advance)
    report.findings += [_closed(folder, path, error) for path, error in unlisted.items()]
    report.findings += _of_plan(folder, outputs or {}, trusted)
    pending = outputs is None or any(output.pending for output in outputs.values())
    report.findings += [*marks(folder), *states(folder, pending)]
    return report


def _of_own_jobs(folder: Path, records: Mapping[str, Written]) -> dict[str, Written]:
    """The records that tell what files hold: not those of what came from a cache, where no job
    ran, and the record that lies here may be of an earlier one."""
    cached = {
        output: from_cache(folder / output)
        for output in {written.output for written in records.values()}
    }
    return {name: written for name, written in records.items() if not cached[written.output]}


class _Look:
    """At one file after the other."""

    def __init__(
        self,
        folder: Path,
        records: Mapping[str, Written],
        trusted: Mapping[str, Written],
        outputs: Mapping[str, Output] | None,
        origins: Origins,
        report: Report,
    ):
        self._folder, self._outputs, self._origins, self._report = folder, outputs, origins, report
        self._locked = bool(snakemake_locks(folder))
        # Of all records there are, and of those that tell what their files hold.
        self._records, self._trusted = records, trusted
        self._known = {written.output for written in trusted.values()}

    def at(self, path: Path, advance: Callable[[int], object]) -> Iterator[Finding]:
        name = path.relative_to(self._folder).as_posix()
        if is_temporary_part(path, self._folder):
            yield temporary(name, self._locked)
            return
        output, foreign = self._output(name), None
        if self._outputs is not None and output is None and path.name not in _JOURNALS:
            foreign = self._foreign(name)
        damage = self._damage(path, name, foreign is not None, advance)
        if damage is not None:
            yield self._damaged(name, output, damage)
        elif foreign is not None:
            yield Finding(FOREIGN, name, foreign, DELETE, name, str(Path(name).parent))
        else:
            other = self._origins.other(path)
            if other is not None:
                yield self._stale(name, output, other)

    def _damage(
        self, path: Path, name: str, foreign: bool, advance: Callable[[int], object]
    ) -> str | None:
        """What is wrong with the bytes of a file; counts it."""
        try:
            if not path.exists():
                return f"a link to {path.readlink()}, which is not there"
            size, seal = path.stat().st_size, seal_of(path)
        except OSError as error:
            return f"cannot be read ({error.strerror})"
        self._report.bytes += size
        written = self._trusted.get(name)
        if written is None and seal is None and not foreign:
            self._report.unverified += 1
        try:
            found = None if written is None else difference(path, written)
        except ProbelineError as error:
            found = str(error).removeprefix(f"{path}: ")
        if found is None and name.startswith(_SHARDS) and path.suffix == ".h5":
            part = len(Path(name).parts) > _SHARD_DEPTH
            return shard_trouble(path, part, advance)
        if found is None and (written is None or seal is not None):
            found = trouble(path)
        advance(size)
        return found

    def _output(self, name: str) -> str | None:
        """The output of the configuration that a file is, or lies in."""
        outputs = self._outputs or {}
        within = [name, *(parent.as_posix() for parent in Path(name).parents)]
        found = next((one for one in within if one in outputs), None)
        if found is None or found == name:
            return found
        # A folder: its job has said what it holds, and may have been of an earlier version.
        return found if name in self._trusted or found not in self._known else None

    def _foreign(self, name: str) -> str:
        written = self._records.get(name)
        if written is None:
            return "no rule of this configuration makes it, no record says which did"
        return f"made by rule {written.rule}, for another configuration"

    def _damaged(self, name: str, output: str | None, damage: str) -> Finding:
        group = output and self._outputs[output].rule
        if output is not None:
            return Finding(DAMAGED, name, damage, FORCE, output, group)
        written = self._records.get(name)
        mend = DELETE if self._outputs is not None or written is None else FORCE
        return Finding(DAMAGED, name, damage, mend, written.output if written else name, "")

    def _stale(self, name: str, output: str | None, other: str) -> Finding:
        if output is not None:
            return Finding(STALE, name, other, FORCE, output, self._outputs[output].rule)
        written = self._records.get(name)
        target = written.output if written else name
        return Finding(STALE, name, other, FORCE, target, str(Path(name).parent))


def _closed(folder: Path, path: Path, error: OSError) -> Finding:
    """A folder that cannot be listed: no command of ours opens it."""
    reason = refusal(error, "listed") or f"cannot be listed: {error.strerror}"
    return Finding(DAMAGED, path.relative_to(folder).as_posix(), reason, NOTHING)


def is_temporary_part(path: Path, folder: Path) -> bool:
    """Whether a file is temporary, or lies in a folder that is."""
    return any(is_temporary(part) for part in (path, *path.parents) if part != folder)


def _is_gone(path: Path) -> bool:
    try:
        return not path.exists()
    except OSError:  # in a folder that is closed to us
        return False


def _of_plan(
    folder: Path, outputs: Mapping[str, Output], records: Mapping[str, Written]
) -> Iterator[Finding]:
    """What the next run would make, and files that have gone from folders."""
    for name, output in outputs.items():
        if output.status == MISSING:
            yield Finding(INCOMPLETE, name, "not made yet", RUN, group=output.rule)
        elif output.pending:
            # What follows from another file is told in one line.
            group = output.rule if output.reason != FOLLOWS else ""
            yield Finding(STALE, name, output.reason, RUN, group=group)
    for name, written in records.items():
        home = folder / written.output
        inside = name != written.output and written.output in outputs
        if inside and home.is_dir() and _is_gone(folder / name):
            rule = outputs[written.output].rule
            yield Finding(DAMAGED, name, "missing", FORCE, written.output, rule)
