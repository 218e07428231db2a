"""Timing two things in turn, spreading work over processes, and going from a part to the whole."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import numpy as np

Side = Callable[[], object]


def interleaved(
    sides: Mapping[str, Side], repeats: int, once: Collection[str] = ()
) -> dict[str, list[float]]:
    """Time each side `repeats` times, A B A B, so that a slow spell of the machine meets all.

    Parameters
    ----------
    sides : mapping of str to callable
        Timed by the wall clock; one that returns a float has timed itself.
    once : collection of str
        Sides that run in the first round only.

    Returns
    -------
    dict of str to list of float
        Seconds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for round_number in range(repeats):
        for name, side in sides.items():
            if round_number and name in once:
                continue
            began = time.perf_counter()
            own = side()
            wall = time.perf_counter() - began
            seconds[name].append(own if isinstance(own, float) else wall)
    return seconds


def medians(seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The median of each side."""
    return {name: statistics.median(values) for name, values in seconds.items()}


def spread(values: Sequence[float]) -> str:
    """How far repeats lie apart: largest minus smallest, in percent of the median."""
    if len(values) < 2:
        return "one run"
    apart = (max(values) - min(values)) / statistics.median(values)
    return f"{len(values)} runs within {apart:.0%}"


def in_processes(function: Callable, jobs: Iterable[tuple], processes: int) -> list:
    """Call `function(*job)` for each job in so many processes of one thread each.

    Returns
    -------
    list
        The results in the order of the jobs.
    """
    from joblib import Parallel, delayed, parallel_config
    from joblib.externals.loky import get_reusable_executor
    from threadpoolctl import threadpool_limits

    calls = [delayed(function)(*job) for job in jobs]
    if processes == 1:
        with threadpool_limits(1):
            return Parallel(n_jobs=1)(calls)
    try:
        with parallel_config(backend="loky", inner_max_num_threads=1):
            return Parallel(n_jobs=processes, batch_size=1)(calls)
    finally:
        # They would stay and hold their memory while other things are timed.
        get_reusable_executor(reuse=True).shutdown(wait=True)


def by_count(per_piece: Mapping[str, Sequence[float]], pieces: Mapping[str, int]) -> float:
    """Seconds of a whole from timed pieces: the mean of each kind times how many there are.

    Parameters
    ----------
    per_piece : mapping of str to sequence of float
        Seconds of the timed pieces of each kind.
    pieces : mapping of str to int
        Pieces of each kind in the whole.
    """
    return sum(count * statistics.fmean(per_piece[kind]) for kind, count in pieces.items())


def by_size(
    sizes: Sequence[float], seconds: Sequence[float], wanted: Sequence[float]
) -> tuple[float, float]:
    """Seconds of a whole whose pieces cost a + b x size, from some timed pieces.

    The line is a least-squares fit with a and b at least zero.

    Returns
    -------
    total : float
        Over the sizes that are wanted.
    error : float
        Largest relative error of the line over the timed pieces' sum by size.
    """
    from scipy.optimize import nnls

    sizes, seconds = np.asarray(sizes, float), np.asarray(seconds, float)
    wanted = np.asarray(wanted, float)
    line, _ = nnls(np.stack([np.ones_like(sizes), sizes], axis=1), seconds)
    errors = []
    for size in np.unique(sizes):
        true = seconds[sizes == size].mean()
        errors.append(abs(line[0] + line[1] * size - true) / true)
    return float(line[0] * len(wanted) + line[1] * wanted.sum()), max(errors)
