"""Studies in a journal file, and the work that jobs share in one.

The journal is a file of lines that are only ever appended, under a lock that network file systems
know too: jobs of a cluster need nothing else in common. Every study in it is named after what
decides its trials, so that other settings begin another study and the same ones go on with it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from probeline.activations.state import settings_hash
from probeline.errors import ProbelineError
from probeline.files import explained
from probeline.search.space import draw

logger = logging.getLogger(__name__)

WORKER, SURPLUS, ERROR = "worker", "surplus", "error"

Objective = Callable[[Trial, dict], float]


def open_study(
    journal: str | os.PathLike, settings: Mapping, prune: bool = True
) -> optuna.study.Study:
    """Begin a study whose scores are to rise, or take it up again.

    Parameters
    ----------
    journal : path
        Made, with its folder, if missing.
    settings : mapping
        JSON-like description of all that decides the trials; the study is named after it.
    prune : bool
        Trials end early whose score is below the median of the earlier ones (Optuna's
        `MedianPruner`).

    Raises
    ------
    ProbelineError
        If the journal is no journal, or cannot be written.
    """
    pruner = optuna.pruners.MedianPruner() if prune else optuna.pruners.NopPruner()
    with _readable(journal):
        Path(journal).parent.mkdir(parents=True, exist_ok=True)
        return optuna.create_study(
            storage=_storage(journal),
            study_name=settings_hash(settings),
            direction="maximize",
            pruner=pruner,
            load_if_exists=True,
        )


def load_study(journal: str | os.PathLike, name: str) -> optuna.study.Study:
    """Read a study.

    Raises
    ------
    ProbelineError
        If there is no such journal, or no such study in it.
    """
    if not Path(journal).is_file():
        raise ProbelineError(f"{journal}: no such journal of a search; run the search again")
    try:
        with _readable(journal):
            return optuna.load_study(study_name=name, storage=_storage(journal))
    except KeyError:
        raise ProbelineError(f"{journal}: holds no study {name}; run the search again") from None


class _Lock(JournalFileSymlinkLock):
    """Optuna's lock, given up in one step.

    Optuna gives the link another name and then removes that: a process that is killed in between
    leaves it for ever.
    """

    def release(self) -> None:
        try:
            Path(self._lock_file).unlink()
        except OSError:
            raise RuntimeError(f"{self._lock_file}: not locked any more") from None


def _storage(journal: str | os.PathLike) -> JournalStorage:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # The lock is a link to this path: a relative one would lead nowhere, and the lock of a killed
    # process, known by the age of what it leads to, would never be taken from it.
    path = Path(journal).absolute()
    lock = _Lock(str(path))
    backend = JournalFileBackend(str(path), lock)
    lock.acquire()
    try:
        _drop_unfinished_line(path)
    finally:
        lock.release()
    return JournalStorage(backend)


def _drop_unfinished_line(journal: Path) -> None:
    """Cut off what a process was writing when it died: what comes next has a line of its own."""
    with journal.open("r+b") as handle:
        whole = handle.read().rfind(b"\n") + 1
        if whole < handle.tell():
            handle.truncate(whole)


@contextmanager
def _readable(journal: str | os.PathLike) -> Iterator[None]:
    with explained(Path(journal)):
        try:
            yield
        except ValueError as error:
            raise ProbelineError(
                f"{journal}: not a readable journal of a search: {error}; delete it and run again"
            ) from None


def work(
    study: optuna.study.Study,
    objective: Objective,
    space: Mapping[str, Sequence | Mapping],
    trials: int,
    worker: int = 0,
    workers: int = 1,
    seed: int = 0,
    diverged: type[Exception] | tuple[type[Exception], ...] = (),
    told: Callable[[int], None] = lambda number: None,
) -> list[int]:
    """Try settings until the study has as many trials as it shall have.

    A trial that this worker was killed in is taken up again. What a trial tries depends on the
    seed, its number and the trials finished before it, so that a single worker, killed or not,
    tries the same.

    Parameters
    ----------
    objective : callable
        Gets the trial and what it tries, by name; returns the score, reports to the trial and
        raises `optuna.TrialPruned` on the way.
    space : mapping
        See `searched`.
    trials : int
        Of all workers together.
    worker, workers : int
        Which of how many this is, counted from 0.
    diverged : exceptions
        What `objective` raises for settings that lead nowhere. They count as pruned.
    told : callable
        Gets the number of a trial whose end the journal has; may get it more than once.

    Returns
    -------
    list of int
        Numbers of the trials that this worker has ever finished.
    """
    # Those whose worker was killed before it could say so.
    for number in _finished(study, worker):
        told(number)
    for trial in _left_behind(study, worker, workers):
        logger.info("trial %d: going on", trial.number)
        _run(study, trial, objective, space, seed, diverged)
        told(trial.number)
    while len(counted(study)) < trials:
        trial = _ask(study, worker)
        # Two workers may have asked for the last one at once.
        if sum(other.number < trial.number for other in counted(study)) >= trials:
            trial.set_user_attr(SURPLUS, True)
            study.tell(trial, state=TrialState.FAIL)
            break
        _run(study, trial, objective, space, seed, diverged)
        told(trial.number)
    return _finished(study, worker)


def _finished(study: optuna.study.Study, worker: int) -> list[int]:
    return [
        trial.number
        for trial in counted(study)
        if trial.user_attrs.get(WORKER) == worker and trial.state.is_finished()
    ]


def counted(study: optuna.study.Study) -> list[FrozenTrial]:
    """The trials of a study but those that it has too many, by number."""
    return [trial for trial in study.get_trials(deepcopy=False) if SURPLUS not in trial.user_attrs]


def _ask(study: optuna.study.Study, worker: int) -> Trial:
    """A new trial. Its owner is in the line that makes it: no kill can leave it without one."""
    study.add_trial(create_trial(state=TrialState.RUNNING, user_attrs={WORKER: worker}))
    running = study.get_trials(deepcopy=False, states=[TrialState.RUNNING])
    own = [trial for trial in running if trial.user_attrs.get(WORKER) == worker]
    return _taken_up(study, max(own, key=lambda trial: trial.number))


def _left_behind(study: optuna.study.Study, worker: int, workers: int) -> list[Trial]:
    found = []
    for frozen in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        owner = frozen.user_attrs.get(WORKER)
        # Those of workers that there are no more fall to the first.
        orphaned = owner is not None and owner >= workers and worker == 0
        if owner == worker or orphaned:
            found.append(_taken_up(study, frozen))
    return found


def _taken_up(study: optuna.study.Study, trial: FrozenTrial) -> Trial:
    # Optuna has no other way to go on with a trial under its own number.
    return Trial(study, trial._trial_id)


def _run(
    study: optuna.study.Study,
    trial: Trial,
    objective: Objective,
    space: Mapping[str, Sequence | Mapping],
    seed: int,
    diverged: type[Exception] | tuple[type[Exception], ...],
) -> None:
    params = {}
    for place, (name, values) in enumerate(space.items()):
        # A sampler for each draw: one after a kill is as it would have been without.
        own = np.random.SeedSequence([seed, trial.number, place]).generate_state(1)
        study.sampler = optuna.samplers.TPESampler(seed=int(own[0]), multivariate=False)
        params[name] = draw(trial, name, values)
    logger.info("trial %d: %s", trial.number, _shown(params))
    try:
        score = objective(trial, params)
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)
        logger.info("trial %d: pruned", trial.number)
    except diverged as error:
        trial.set_user_attr(ERROR, str(error))
        study.tell(trial, state=TrialState.PRUNED)
        logger.info("trial %d: %s", trial.number, error)
    else:
        study.tell(trial, score)
        logger.info("trial %d: score %.4f", trial.number, score)


def _shown(params: Mapping) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in params.items()
    )
