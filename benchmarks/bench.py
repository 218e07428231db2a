"""What every row needs to know: sizes, places, cores."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

Value = TypeVar("Value")

# Shards that rows share are kept between runs; git and the wheel ignore them.
CACHE = Path(__file__).parent / ".cache"
_LIBRARIES = ("OMP", "MKL", "OPENBLAS", "RAYON", "VECLIB")


@dataclass
class Bench:
    """The settings of one run, and what its rows have made so far.

    Attributes
    ----------
    quick : bool
        Small sizes and a reference that is extrapolated, or full ones.
    threads : int
        Cores that each side of a comparison may use.
    work : Path
        A folder that goes when the run ends.
    data_root : Path or None
        Where the datasets lie as folders of Parquet files.
    cache : Path
        A folder that stays.
    """

    quick: bool
    threads: int
    work: Path
    data_root: Path | None = None
    cache: Path = CACHE
    _made: dict[str, object] = field(default_factory=dict, repr=False)

    def size(self, quick: Value, full: Value) -> Value:
        """One of two settings."""
        return quick if self.quick else full

    def once(self, name: str, make: Callable[[], Value]) -> Value:
        """Make something the first time it is asked for."""
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    def folder(self, name: str) -> Path:
        """A path in the working folder that does not exist yet."""
        count = 0
        while (path := self.work / f"{name}-{count}").exists():
            count += 1
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def limit_threads(threads: int) -> None:
    """Hold numeric libraries, here and in child processes, to so many threads.

    Call it before any of them is imported: some read their variable only then.
    """
    for library in _LIBRARIES:
        suffix = "MAXIMUM_THREADS" if library == "VECLIB" else "NUM_THREADS"
        os.environ[f"{library}_{suffix}"] = str(threads)


def plain_environment() -> dict[str, str]:
    """The environment of a run of the workflow: a user's, offline, with no limit of threads."""
    prefixes = ("PROBELINE_", "SNAKEMAKE_", *(f"{library}_" for library in _LIBRARIES))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    return kept | {"HF_HUB_OFFLINE": "1"}
