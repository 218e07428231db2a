"""What each job writes beside its results: how they were made, and their checksums.

``results/provenance/{as the job's log}.json`` holds the rule, its wildcards, parameters and inputs,
the version of the library, the time, and for every output its size and SHA-256. Sealed HDF5 files
have a checksum of their own, which stands here in its place; of a folder every file is listed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import probeline
from probeline.errors import ProbelineError
from probeline.files import read_json, refused, write_json
from probeline.sealed import seal_of

FORMAT = 1
FOLDER = Path("results") / "provenance"


@dataclass(frozen=True)
class Written:
    """What a job says of a file that it wrote.

    Attributes
    ----------
    output : str
        The output of the rule: the file, or the folder that it lies in.
    rule : str
    made : str
        Time, ISO 8601.
    bytes : int
    sha256, seal : str or None
        One of the two.
    """

    output: str
    rule: str
    made: str
    bytes: int
    sha256: str | None
    seal: str | None


def record_path(log: str) -> Path:
    """Where the record of a job lies, by the name of its log."""
    place = Path(log)
    below = place.parts[1:] if place.parts[0] == "logs" else place.parts
    return FOLDER.joinpath(*below).with_suffix(".json")


def write_record(snakemake) -> None:
    """Write the record of a job that has written all its outputs; see the module.

    Parameters
    ----------
    snakemake
        What Snakemake hands to a script.
    """
    if not snakemake.log:
        return
    record = {
        "format": FORMAT,
        "rule": snakemake.rule,
        "wildcards": dict(snakemake.wildcards.items()),
        "params": _plain(snakemake.params),
        "inputs": [str(path) for path in snakemake.input],
        "probeline": probeline.__version__,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "outputs": {str(path): _described(Path(path)) for path in snakemake.output},
    }
    # As it is read again: numbers that are keys become texts.
    record = json.loads(json.dumps(record, default=str))
    write_json(record_path(str(snakemake.log[0])), record | {"sha256": _own(record)})


def read_records(folder: Path) -> tuple[dict[str, Written], list[Path]]:
    """Read the records of a run.

    Parameters
    ----------
    folder : Path
        Where `results/` lies.

    Returns
    -------
    dict of str to Written
        By path from `folder`; of two jobs that wrote a file, the later one.
    list of Path
        Records that are damaged.
    """
    found, damaged = {}, []
    for path in sorted((folder / FOLDER).rglob("*.json")):
        try:
            for name, written in _entries(read_json(path)):
                if name not in found or found[name].made <= written.made:
                    found[name] = written
        except (ProbelineError, LookupError, TypeError, ValueError, AttributeError):
            damaged.append(path)
    return found, damaged


def difference(path: Path, written: Written) -> str | None:
    """How a file differs from what its job says of it, in a few words; None if it does not."""
    with refused(path):
        size = path.stat().st_size
        if size != written.bytes:
            return f"{size:,} bytes, {written.bytes:,} were written"
        if written.seal is not None:
            return None if seal_of(path) == written.seal else "not the file that was written (seal)"
        same = _sha256(path) == written.sha256
        return None if same else "not the bytes that were written (checksum)"


def _entries(record: Mapping) -> Iterator[tuple[str, Written]]:
    rest = {key: value for key, value in record.items() if key != "sha256"}
    if record["sha256"] != _own(rest) or record["format"] != FORMAT:
        raise ValueError("damaged")
    for output, about in record["outputs"].items():
        for name, one in about.get("files", {"": about}).items():
            path = f"{output}/{name}" if name else output
            more = (one["bytes"], one.get("sha256"), one.get("seal"))
            yield path, Written(output, record["rule"], record["made"], *more)


def _described(path: Path) -> dict:
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return {"files": {file.relative_to(path).as_posix(): _described(file) for file in files}}
    seal = seal_of(path)
    size = {"bytes": path.stat().st_size}
    return size | ({"seal": seal} if seal else {"sha256": _sha256(path)})


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _own(record: Mapping) -> str:
    """Checksum of a record itself."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _plain(params: Iterable) -> dict:
    """Parameters by name, those without one under their number."""
    named = dict(params.items())
    rest = [value for value in params if not any(value is other for other in named.values())]
    return {str(number): value for number, value in enumerate(rest)} | named
