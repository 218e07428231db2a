"""Which training texts are shown as examples."""

from __future__ import annotations

import logging

import numpy as np

from probeline.baselines.sentence_embedding import normalized
from probeline.errors import ProbelineError
from probeline.probe.task import TaskData

log = logging.getLogger(__name__)
_AT_ONCE = 256


def class_shots(task: TaskData, per_class: int, seed: int) -> np.ndarray:
    """Draw training texts of every class.

    Parameters
    ----------
    per_class : int
        Examples of each class; all there are where a class has fewer.
    seed : int
        More examples per class extend fewer of the same seed.

    Returns
    -------
    ndarray of int64
        Row numbers, round after round: each round holds one text of every class, in an order of its
        own. Taking texts away from the end therefore takes them from the classes in turn.

    Notes
    -----
    The order of the labels in the vocabulary does not matter. A text of several labels is shown
    once; those with one label alone come first, since labels are scored one at a time.
    """
    # Sorted by name: codes follow the vocabulary's order.
    order = sorted(range(task.classes), key=lambda k: task.labels[k])
    generator = np.random.default_rng(seed)
    drawn = {k: _shuffled(task, k, generator) for k in order}
    without = [task.labels[k] for k in order if not len(drawn[k])]
    if without and per_class:
        log.info("no training text, so no example: %s", ", ".join(without))
    shots: list[int] = []
    used: set[int] = set()
    for _ in range(per_class):
        for k in generator.permutation(order):
            row = next((row for row in drawn[k] if row not in used), None)
            if row is not None:
                used.add(row)
                shots.append(row)
    return np.array(shots, dtype=np.int64)


def _shuffled(task: TaskData, k: int, generator: np.random.Generator) -> list[int]:
    """Training rows of a class in random order."""
    y, rows = task.y["train"], task.rows["train"]
    if not task.multilabel:
        return generator.permutation(rows[y == k]).tolist()
    own = generator.permutation(np.flatnonzero(y[:, k]))
    own = own[np.argsort(y[own].sum(axis=1) > 1, kind="stable")]
    return rows[own].tolist()


def nearest_shots(
    embeddings: np.ndarray, task: TaskData, rows: np.ndarray, count: int
) -> np.ndarray:
    """Find the training texts whose embeddings are most like a text's.

    Parameters
    ----------
    embeddings : ndarray, shape (rows of the dataset, width)
    rows : ndarray of int64, shape (n,)
        Texts that examples are wanted for. A training text is not an example of itself.
    count : int

    Returns
    -------
    ndarray of int64, shape (n, at most count)
        Row numbers by descending cosine; of equally near texts the one that stands first.

    Raises
    ------
    ProbelineError
        If there is not one embedding for each row.
    """
    train = task.rows["train"]
    if len(embeddings) <= max(train.max(), rows.max(initial=0)):
        raise ProbelineError(
            f"nearest shots: {len(embeddings)} embeddings, but the dataset has more rows"
        )
    known = normalized(np.asarray(embeddings[train], dtype=np.float32))
    count = min(count, len(train) - 1 if np.isin(rows, train).any() else len(train))
    found = np.empty((len(rows), count), dtype=np.int64)
    for start in range(0, len(rows), _AT_ONCE):
        part = rows[start : start + _AT_ONCE]
        cosines = normalized(np.asarray(embeddings[part], dtype=np.float32)) @ known.T
        cosines[part[:, None] == train] = -np.inf
        # Rounded, so that equal texts are equally near whatever block they were multiplied in.
        order = np.argsort(-np.round(cosines, 5), axis=1, kind="stable")
        found[start : start + _AT_ONCE] = train[order[:, :count]]
    return found
