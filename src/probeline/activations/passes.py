"""Run the forward passes of many batches: on a CPU several batches at a time.

Threads that share every operation of one batch wait for each other after each of them; threads
that have a batch each do not. At most four batches run at a time, each on an equal share of the
threads; which of them computes a batch changes nothing in its values. A group of fewer batches
than that runs one after the other, each on all threads.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from queue import SimpleQueue
from typing import Protocol, TypeVar

import numpy as np
import torch

from probeline.activations.batching import Batch, fitting
from probeline.activations.hooks import Key, Watch
from probeline.activations.pooling import Pooler
from probeline.models.load import LoadedModel

# Each has the activations of a batch in memory.
_MOST_WORKERS = 4
Group = TypeVar("Group")


class Collector(Protocol):
    """Keeps what is wanted of the activations of one batch after the other."""

    def take(self, key: Key, values: torch.Tensor, pooler: Pooler) -> None:
        """As the sink of `Watch`: one activation of the batch that is running."""

    def add(self, rows: np.ndarray) -> None:
        """The batch of these rows is complete."""


def workers_of(model: LoadedModel, threads: int) -> int:
    """How many batches run at a time on `threads` threads; each has an equal share of them."""
    # An accelerator runs one after the other anyway; of code that comes with a model nobody knows
    # whether copies of it have something in common.
    if model.device.type != "cpu" or model.code is not None:
        return 1
    return max(count for count in range(1, _MOST_WORKERS + 1) if threads % count == 0)


class Passes:
    """Context manager that runs batches and hands their activations to collectors.

    Parameters
    ----------
    model : LoadedModel
    wanted : iterable of (representation, layer)
    collector : callable
        Makes a collector; called for each batch that may run at a time, and once more. A collector
        is used by one thread at a time and sees a batch from beginning to end.

    Raises
    ------
    ProbelineError
        As `Watch`.

    Notes
    -----
    How many threads torch uses is a setting of the process: two of these must not be open in
    different threads.
    """

    def __init__(
        self, model: LoadedModel, wanted: Iterable[Key], collector: Callable[[], Collector]
    ):
        self._model = model
        self._wanted = list(wanted)
        self._collector = collector
        self._threads = torch.get_num_threads()
        self._workers = workers_of(model, self._threads)
        self._alone = self._worker(model)
        self._pool: ThreadPoolExecutor | None = None
        self._idle: SimpleQueue[_Worker] = SimpleQueue()

    def __enter__(self) -> Passes:
        return self

    def __exit__(self, *_) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            # The threads of the pool have set it for whoever comes after them, too.
            torch.set_num_threads(self._threads)

    def run(
        self, groups: Iterable[tuple[Group, Iterable[Batch]]]
    ) -> Iterator[tuple[Group, Iterator[Batch]]]:
        """Run batches that come in groups.

        Of groups that run several batches at a time the next one begins before one is yielded, so
        that no thread waits for the last batch of a group; the one after it is asked for when the
        caller comes back. Other groups run when their batches are asked for, and no group is asked
        for before the caller has come back from them.

        Yields
        ------
        group, batches
            `batches` yields those of the group in their order, each when it is complete. It raises
            a `ProbelineError` if the device's memory does not hold a batch, and what the collectors
            raise; of several errors the first batch's.
            An error in making a group is raised after the groups before it.
        """
        begun: list[tuple[Group, Iterator[Batch]]] = []
        source = iter(groups)
        while True:
            try:
                group, batches = next(source)
                batches = list(batches) if self._workers > 1 else batches
            except StopIteration:
                break
            except Exception:
                yield from begun
                raise
            if self._workers > 1 and len(batches) >= self._workers:
                runs = self._submitted(batches)
                yield from begun
                begun = [(group, runs)]
            else:
                yield from begun
                begun = []
                yield group, self._one_by_one(batches)
        yield from begun

    def _submitted(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        if self._pool is None:
            self._pool = self._started()
        return _ended([(batch, self._pool.submit(self._run, batch)) for batch in batches])

    def _one_by_one(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        for batch in batches:
            self._alone.run(batch)
            yield batch

    def _run(self, batch: Batch) -> None:
        worker = self._idle.get()
        try:
            worker.run(batch)
        finally:
            self._idle.put(worker)

    def _started(self) -> ThreadPoolExecutor:
        for _ in range(self._workers):
            # Modules of its own, for hooks and whatever else modules remember of a pass.
            self._idle.put(self._worker(replace(self._model, body=_twin(self._model.body))))
        share = self._threads // self._workers
        return ThreadPoolExecutor(self._workers, "pass", torch.set_num_threads, (share,))

    def _worker(self, model: LoadedModel) -> _Worker:
        collector = self._collector()
        return _Worker(model, Watch(model, self._wanted, collector.take), collector)


class _Worker:
    """A body, and what collects its activations."""

    def __init__(self, model: LoadedModel, watch: Watch, collector: Collector):
        self._model, self._watch, self._collector = model, watch, collector

    def run(self, batch: Batch) -> None:
        with fitting(self._model, batch):
            # Hooks for one pass: a body that is copied later has none of them.
            with self._watch:
                self._watch.run(batch)
            self._collector.add(batch.rows)


def _twin(body: torch.nn.Module) -> torch.nn.Module:
    """A copy of a body with the same weights, not copies of them."""
    return copy.deepcopy(body, {id(weight): weight for weight in body.parameters()})


def _ended(runs: Iterable[tuple[Batch, Future]]) -> Iterator[Batch]:
    for batch, run in runs:
        run.result()
        yield batch
