"""The stages of a search: what one of its jobs does, and what all have found."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from probeline import versions
from probeline.data.store import read_dataset
from probeline.errors import ProbelineError
from probeline.files import read_json, write_json
from probeline.finetune.kind import REGULAR, Regular
from probeline.finetune.options import ASIDE, read_options
from probeline.finetune.prepare import check_classes, check_machine
from probeline.finetune.resumable import NotFinite
from probeline.models.reference import resolve
from probeline.models.weights import model_files, sampled_hash
from probeline.probe.task import task_data
from probeline.search.report import importances, trials_table, write_best, write_table
from probeline.search.space import searched
from probeline.search.study import load_study, open_study, work
from probeline.search.tuning import Finetuning

# By classifier: where its settings stand in a configuration.
SECTIONS = {"finetune": ("finetune",), "label-tokens": ("label_tokens", "finetune")}


def search(
    dataset_folder: str | os.PathLike,
    task_name: str,
    model_name: str,
    model_spec: Mapping,
    journal: str | os.PathLike,
    found: str | os.PathLike,
    state_folder: str | os.PathLike,
    options: Mapping,
    space: Mapping,
    trials: int,
    seed: int,
    worker: int = 0,
    workers: int = 1,
    prune: bool = True,
    metric: str | None = None,
    kind: Regular = REGULAR,
) -> None:
    """Do one job's share of a search for the settings that score best on validation.

    Interrupted, the same call goes on: finished trials are not done again, and the one that was
    under way goes on at its last checkpoint.

    Parameters
    ----------
    dataset_folder : path
        A dataset written by the dataset stage.
    model_name, model_spec : str, mapping
        Name and content of an entry of `models:`.
    journal : path
        The file that all jobs of the search share.
    found : path
        JSON: the study's name, and the trials that this job has finished.
    state_folder : path
        This job's own.
    options : mapping
        The section `finetune:`, for what is not searched.
    space : mapping
        See `searched`.
    trials : int
        Of all jobs together.
    seed : int
        Of what is tried, and of every training.
    worker, workers : int
        Which of how many jobs this is, counted from 0.
    prune : bool
    metric : str, optional
        Default: accuracy, or micro-F1 for a multi-label task.
    kind : Regular
        Which classifier is trained; by default that of transformers.

    Raises
    ------
    ProbelineError
        If an option, the model, the dataset or the journal is not fit for it.
    """
    check_machine(model_spec, read_options(options))
    chosen = searched(space)
    dataset = read_dataset(dataset_folder)
    task = task_data(dataset, task_name, metric)
    check_classes(task, dataset)
    task.check_metric()
    source = resolve(model_spec["path"], model_spec.get("revision"))
    settings = {
        "stage_version": [versions.SEARCH, versions.FINETUNE],
        "classifier": kind.method,
        "kind": kind.settings(),
        "model": dict(model_spec),
        "weights": sampled_hash(model_files(source.folder)) if source.folder else None,
        "dataset": dataset.name,
        "dataset_fingerprint": dataset.fingerprint,
        "labels_fingerprint": dataset.manifest["labels_fingerprint"],
        "task": task.name,
        "metric": task.metric,
        "options": {name: value for name, value in options.items() if name not in ASIDE},
        "space": chosen,
        "prune": prune,
        "seed": seed,
    }
    objective = Finetuning(
        dataset, task, model_name, model_spec, options, seed, Path(state_folder), settings, kind
    )
    study = open_study(journal, settings, prune)
    numbers = work(
        study, objective, chosen, trials, worker, workers, seed, NotFinite, objective.forget
    )
    write_json(
        found,
        {
            "study": study.study_name,
            "classifier": kind.method,
            "metric": task.metric,
            "trials": numbers,
        },
    )


def report(
    journal: str | os.PathLike,
    workers: Sequence[str | os.PathLike],
    best: str | os.PathLike,
    trials: str | os.PathLike,
    importance: str | os.PathLike,
    what: str,
) -> None:
    """Write what the jobs of a search have found.

    Parameters
    ----------
    workers : sequence of path
        What `search` wrote as `found`, for each job.
    best : path
        YAML: the best settings, as a part of a configuration.
    trials, importance : path
        CSV; see `trials_table` and `importances`.
    what : str
        Named in a comment of `best`.

    Raises
    ------
    ProbelineError
        If jobs had other settings than others, or no trial came to its end.
    """
    found = [read_json(path) for path in workers]
    names = {one["study"] for one in found}
    if len(names) > 1:
        raise ProbelineError(
            f"{workers[0]}: the jobs of this search had different settings; delete "
            f"{Path(workers[0]).parent} and run again"
        )
    study = load_study(journal, names.pop())
    write_table(trials_table(study), trials)
    write_table(importances(study), importance)
    write_best(study, best, SECTIONS[found[0]["classifier"]], what)
