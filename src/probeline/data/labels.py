"""Label columns to integer codes: one class per text, several, or a hierarchy of levels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from probeline.data.vocabulary import Names, vocabulary
from probeline.errors import ProbelineError, nearest

Where = Callable[[int], str]


@dataclass
class Task:
    """The labels of one task for all rows.

    Attributes
    ----------
    name : str
    labels : list of str
        The vocabulary; a code is a place in it.
    codes : numpy.ndarray
        int64 (rows,), -1 where a level of a hierarchy is undefined; for a multi-label task
        bool (rows, K).
    parents : dict, optional
        {label: its label one level up}, for levels below the first.
    unused : list of str
        Names that were declared but that no training text has, so no longer in `labels`.
    """

    name: str
    labels: list[str]
    codes: np.ndarray
    parents: dict[str, str] | None = None
    unused: list[str] = field(default_factory=list)

    @property
    def multi(self) -> bool:
        """Whether a text may have several labels, or none."""
        return self.codes.ndim == 2

    def counts(self, rows: np.ndarray) -> np.ndarray:
        """Return how many of `rows` have each label, int64 (K,)."""
        codes = self.codes[rows]
        if self.multi:
            return codes.sum(axis=0)
        return np.bincount(codes[codes >= 0], minlength=len(self.labels))


def encode_tasks(source, spec: dict) -> list[Task]:
    """Encode every label column of `source` (a `loaders.Source`), coarse to fine.

    Raises
    ------
    ProbelineError
        A missing or unknown label, a broken hierarchy; with the row.
    """
    hierarchy = not isinstance(spec.get("label") or "label", str)
    undefined = spec.get("undefined")
    if undefined is not None and not hierarchy:
        raise ProbelineError(
            "undefined: is for hierarchies (several label columns); remove it, or list the columns"
        )
    names = _names_by_task(spec.get("label_names"), source.labels.column_names, hierarchy)
    tasks = []
    for task in source.labels.column_names:
        column, declared = source.labels[task], source.declared.get(task)
        if pa.types.is_list(column.type):
            if hierarchy:
                raise ProbelineError(
                    f"label: column '{task}' holds lists; a level of a hierarchy has one label "
                    "per text"
                )
            tasks.append(encode_multi(task, column, names[task], declared, source.where))
        else:
            absent = undefined if hierarchy else False
            tasks.append(encode_single(task, column, names[task], declared, absent, source.where))
    if undefined is not None and not any((task.codes < 0).any() for task in tasks):
        raise ProbelineError(
            f"undefined: '{undefined}' stands in none of the columns "
            f"{', '.join(source.labels.column_names)}; correct or remove it"
        )
    for task in tasks:
        _two_classes(task, task.counts(np.arange(source.rows)), "the data have")
    for coarse, fine in pairwise(tasks):
        fine.parents = parent_map(coarse, fine, source.where)
    return tasks


def _two_classes(task: Task, counts: np.ndarray, who: str) -> None:
    present = np.flatnonzero(counts)
    if len(present) < 2:
        only = f"only '{task.labels[present[0]]}'" if len(present) else "none"
        raise ProbelineError(
            f"label '{task.name}': {who} {only}; expected at least two different labels"
        )


def _names_by_task(names: Names, tasks: Sequence[str], hierarchy: bool) -> dict[str, Names]:
    if not hierarchy or names is None:
        return dict.fromkeys(tasks, names)
    if not isinstance(names, dict):
        raise ProbelineError(
            "label_names: with several label columns, give a mapping of column to its names"
        )
    for key in names:
        if key not in tasks:
            raise ProbelineError(
                f"label_names: '{key}' is none of the label columns {', '.join(tasks)}"
                f"{nearest(key, tasks)}"
            )
    return {task: names.get(task) for task in tasks}


def encode_single(
    task: str,
    column: pa.ChunkedArray,
    names: Names,
    declared: list[str] | None,
    undefined: object,
    where: Where,
) -> Task:
    """Encode one label per row; rows of a level that hold `undefined` get code -1.

    `undefined` of "" stands for empty and null cells, None for no such value; False says that
    the task is no level of a hierarchy.
    """
    values, codes = _distinct(column)
    absent = None if undefined is None or undefined is False else str(undefined)
    missing = np.array([value is None or not str(value).strip() for value in values], dtype=bool)
    left_out = missing if absent == "" else np.array([str(v) == absent for v in values], dtype=bool)
    for place in np.flatnonzero(missing & ~left_out)[:1]:
        row = int(np.argmax(codes == place))
        advice = "; undefined: '' declares it as a level that does not apply"
        advice = "" if undefined is False else advice
        raise ProbelineError(f"{where(row)}: no label in '{task}' (empty or null){advice}")
    kept = [value for value, out in zip(values, left_out, strict=True) if not out]
    labels, code_of = vocabulary(
        task,
        kept,
        names,
        declared,
        lambda value: where(int(np.argmax(codes == values.index(value)))),
    )
    table = np.array(
        [-1 if out else code_of[v] for v, out in zip(values, left_out, strict=True)], dtype=np.int64
    )
    return Task(task, labels, table[codes])


def encode_multi(
    task: str,
    column: pa.ChunkedArray,
    names: Names,
    declared: list[str] | None,
    where: Where,
) -> Task:
    """Encode a list of labels per row; an empty list is legal, null is not."""
    column = column.combine_chunks()
    if column.null_count:
        row = pc.index(column.is_null(), True).as_py()
        raise ProbelineError(f"{where(row)}: no labels in '{task}' (null); expected a list")
    items = pc.list_flatten(column)
    rows = pc.list_parent_indices(column).to_numpy()
    values, codes = _distinct(items)
    for place, value in enumerate(values):
        if value is None or not str(value).strip():
            row = int(rows[np.argmax(codes == place)])
            raise ProbelineError(f"{where(row)}: an empty or null label in the list '{task}'")

    def find(value) -> str:
        return where(int(rows[np.argmax(codes == values.index(value))]))

    labels, code_of = vocabulary(task, values, names, declared, find)
    table = np.array([code_of[value] for value in values], dtype=np.int64)
    has = np.zeros((len(column), len(labels)), dtype=bool)
    has[rows, table[codes] if len(codes) else codes] = True
    repeated = np.flatnonzero(has.sum(axis=1) != np.bincount(rows, minlength=len(column)))
    if len(repeated) and not isinstance(values[0], str):
        raise ProbelineError(
            f"{where(int(repeated[0]))}: '{task}' names a label twice; if this is a vector of "
            "zeros and ones, store the list of the labels that apply"
        )
    return Task(task, labels, has)


def _distinct(column: pa.ChunkedArray | pa.Array) -> tuple[list, np.ndarray]:
    """Return the distinct values in order of appearance (None among them) and each row's place."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    encoded = column.dictionary_encode(null_encoding="encode")
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)


def parent_map(coarse: Task, fine: Task, where: Where) -> dict[str, str]:
    """Return {fine label: coarse label}; each fine label must stand under exactly one.

    Raises
    ------
    ProbelineError
        Naming the rows, if a label has two parents or stands where the coarse level is undefined.
    """
    orphans = np.flatnonzero((fine.codes >= 0) & (coarse.codes < 0))
    if len(orphans):
        row = int(orphans[0])
        raise ProbelineError(
            f"{where(row)}: '{fine.name}' is '{fine.labels[fine.codes[row]]}' but '{coarse.name}' "
            "is undefined; a finer label needs its coarser one"
        )
    rows = np.flatnonzero(fine.codes >= 0)
    present, first, inverse = np.unique(fine.codes[rows], return_index=True, return_inverse=True)
    above = coarse.codes[rows]
    other = np.flatnonzero(above != above[first][inverse])
    if len(other):
        one, two = int(rows[first[inverse[other[0]]]]), int(rows[other[0]])
        raise ProbelineError(
            f"{where(two)}: label '{fine.labels[fine.codes[two]]}' of '{fine.name}' stands under "
            f"'{coarse.labels[coarse.codes[two]]}', in {where(one)} under "
            f"'{coarse.labels[coarse.codes[one]]}'; each label needs one parent, so give the two "
            "different names"
        )
    return {
        fine.labels[code]: coarse.labels[parent]
        for code, parent in zip(present, above[first], strict=True)
    }


def settle_vocabulary(task: Task, splits: dict[str, np.ndarray], where: Where) -> Task:
    """Keep the labels that train has, in their order, and check that they can be learned.

    Parameters
    ----------
    task : Task
    splits : dict of str to numpy.ndarray
        Row numbers of each split.
    where : callable
        Row number to its place, for messages.

    Raises
    ------
    ProbelineError
        A label that only validation or test has; fewer than two classes; a label that every
        text has; a split where the task is nowhere defined.
    """
    in_train = task.counts(splits["train"])
    for split in ("validation", "test"):
        rows = splits[split]
        if not task.multi and not (task.codes[rows] >= 0).any():
            raise ProbelineError(f"label '{task.name}': is undefined on every text of {split}")
        for place in np.flatnonzero((in_train == 0) & (task.counts(rows) > 0))[:1]:
            having = task.codes[rows, place] if task.multi else task.codes[rows] == place
            raise ProbelineError(
                f"{where(int(rows[np.argmax(having)]))}: label '{task.labels[place]}' of "
                f"'{task.name}' stands in {split} but not in train; a classifier can only learn "
                "the labels of train"
            )
    _two_classes(task, in_train, "train has")
    kept = np.flatnonzero(in_train)
    always = np.flatnonzero(in_train == len(splits["train"])) if task.multi else []
    if len(always):
        raise ProbelineError(
            f"label '{task.name}': every text of train has '{task.labels[always[0]]}', so there "
            "is nothing to learn; remove it from the lists"
        )
    labels = [task.labels[code] for code in kept]
    if task.multi:
        codes = task.codes[:, kept]
    else:
        codes = np.append(np.cumsum(in_train > 0) - 1, -1)[task.codes]
    unused = [task.labels[code] for code in np.flatnonzero(in_train == 0)]
    parents = task.parents and {label: task.parents[label] for label in labels}
    return Task(task.name, labels, codes, parents, unused)
