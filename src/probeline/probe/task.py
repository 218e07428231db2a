"""What a task asks of the solver: its rows by split, labels, metric and class weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from probeline.errors import ProbelineError, one_of
from probeline.probe.losses import LogisticLoss, make_loss
from probeline.probe.metrics import METRICS, score

SPLITS = ("train", "validation", "test")
# Metrics that weigh rare classes like frequent ones; the loss may do the same.
_CLASS_BALANCED = ("macro-f1", "matthews")


@dataclass(frozen=True)
class TaskData:
    """Labels of one task on the rows where it is defined.

    Attributes
    ----------
    name : str
    labels : tuple of str
        Vocabulary, in the order of the codes.
    multilabel : bool
    metric : str
    rows : dict of split to ndarray of int64
        Row ids, ascending.
    y : dict of split to ndarray
        int64 (n,) codes, or uint8 (n, K) indicators for multi-label.
    """

    name: str
    labels: tuple[str, ...]
    multilabel: bool
    metric: str
    rows: dict[str, np.ndarray]
    y: dict[str, np.ndarray]

    @property
    def classes(self) -> int:
        return len(self.labels)

    def loss(self, class_weight: str | None) -> LogisticLoss:
        """The training loss."""
        return make_loss(self.y["train"], self.classes, class_weight=class_weight)

    def score(self, split: str, logits: np.ndarray) -> float:
        """The task's metric on a split, for logits (n, 1 or K) of its rows."""
        return score(self.metric, self.y[split], logits, self.classes)

    def check_metric(self) -> None:
        """Refuse a metric that validation or test cannot be scored by, before anything is computed.

        Raises
        ------
        ProbelineError
            Such as ROC-AUC where only one class occurs.
        """
        for split in ("validation", "test"):
            self.score(split, np.zeros((len(self.y[split]), self.classes)))

    def validation_loss(self, logits: np.ndarray) -> float:
        """Mean log loss on validation, which breaks ties between equal scores.

        Classes weigh the same where they do in the metric.
        """
        weight = "balanced" if self.metric in _CLASS_BALANCED else None
        return make_loss(self.y["validation"], self.classes, class_weight=weight).value(logits)

    def class_weights(self, setting: str | list | None) -> list[str | None]:
        """Resolve 'auto': both for metrics that average over classes, none otherwise."""
        if setting == "auto":
            return [None, "balanced"] if self.metric in _CLASS_BALANCED else [None]
        return list(setting) if isinstance(setting, list) else [setting]


def task_data(dataset, task: str, metric: str | None = None) -> TaskData:
    """Collect a task's labels from a dataset.

    Parameters
    ----------
    dataset : probeline.data.store.Dataset
    metric : str, optional
        Default: accuracy, or micro-F1 for a multi-label task.
    """
    if task not in dataset.tasks:
        raise ProbelineError(f"dataset {dataset.name}: task {one_of(task, dataset.tasks)}")
    description = dataset.tasks[task]
    multilabel = description["kind"] == "multi"
    metric = metric or ("micro-f1" if multilabel else "accuracy")
    if metric not in METRICS or (multilabel and metric == "matthews"):
        raise ProbelineError(
            f"datasets.{dataset.name}.metric: '{metric}' does not fit task '{task}', which is "
            f"{'multi-label' if multilabel else 'single-label'}"
        )
    labels, defined = dataset.labels(task), dataset.defined(task)
    rows, y = {}, {}
    for split in SPLITS:
        part = dataset.split(split)
        rows[split] = np.flatnonzero(defined[part]) + part.start
        y[split] = labels[rows[split]]
        if len(rows[split]) == 0:
            raise ProbelineError(f"dataset {dataset.name}: task '{task}' has no {split} rows")
    return TaskData(task, tuple(description["labels"]), multilabel, metric, rows, y)
