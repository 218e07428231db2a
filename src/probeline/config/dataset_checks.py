"""Mistakes between the values of one dataset."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from probeline.config.entries import DatasetEntry
from probeline.config.keys import Problem
from probeline.config.kinds import PATH_TASK, SLUG, SLUG_WORDS
from probeline.config.words import hint, shown

FILES = ("csv", "tsv", "json", "parquet")
TABLES = ("hub", *FILES)

# Keys that only some loaders have a use for.
LOADERS_OF = {
    "config": ("hub",),
    "revision": ("hub",),
    "encoding": ("csv", "tsv", "json", "folder"),
    "text": TABLES,
    "label": TABLES,
    "undefined": TABLES,
    "label_names": TABLES,
}

Sure = Callable[..., bool]


def dataset_problems(entry: DatasetEntry, path: tuple, sure: Sure) -> Iterator[Problem]:
    """Yield the mistakes between the values of the dataset at `path`.

    `sure` tells whether the value at a path can be relied on.
    """

    def known(*keys: str) -> bool:
        return all(sure(*path, key) for key in keys)

    if known("loader"):
        yield from _useless_keys(entry, path)
    if known("splits"):
        yield from _split_problems(entry, path, known("loader"))
    if known("label", "metric"):
        yield from _metric_problems(entry, path)
    if known("label", "label_texts"):
        yield from _label_text_problems(entry, path)
    if known("loader") and entry.loader not in TABLES:
        return
    if known("text", "label"):
        yield from _column_problems(entry, path)
    if known("label"):
        yield from _hierarchy_problems(entry, path)
    if known("label", "label_names"):
        yield from _name_problems(entry, path)


def _label_text_problems(entry: DatasetEntry, path: tuple) -> Iterator[Problem]:
    columns = entry.label if isinstance(entry.label, list) else []
    if isinstance(entry.label_texts, str):
        if columns:
            yield (
                (*path, "label_texts"),
                f"is a file, but there are several label columns; give a mapping of column "
                f"({', '.join(columns)}) to its file",
            )
        return
    for name, texts in (entry.label_texts or {}).items():
        place = (*path, "label_texts", name)
        if columns and name not in columns:
            yield place, f"is none of the columns {', '.join(columns)}{hint(name, columns)}"
        elif columns and isinstance(texts, list):
            yield place, "is a column, so give a mapping of its labels to texts, or a file of them"
        elif not columns and isinstance(texts, dict):
            yield place, "give a text or a list of texts; only hierarchies have columns here"


def _useless_keys(entry: DatasetEntry, path: tuple) -> Iterator[Problem]:
    for key, loaders in LOADERS_OF.items():
        given = key in entry.model_fields_set and getattr(entry, key) is not None
        if given and entry.loader not in loaders:
            yield (
                (*path, key),
                f"only for the loaders {', '.join(loaders)}, not for {entry.loader}; remove it",
            )


def _split_problems(entry: DatasetEntry, path: tuple, loader_known: bool) -> Iterator[Problem]:
    splits = entry.splits
    shares = [s for s in (splits.validation, splits.test) if not isinstance(s, str)]
    if sum(shares) > 1 - 1e-9:
        yield (*path, "splits"), f"shares of {shown(shares)} leave nothing of train; lower them"
    named = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    if loader_known and entry.loader == "hub" and splits.train is None:
        named["train"] = "train"
    named = {key: value for key, value in named.items() if isinstance(value, str)}
    seen: dict[str, str] = {}
    for key, value in named.items():
        if value in seen:
            yield (
                (*path, "splits", key),
                f"{shown(value)} is {seen[value]} already; each split needs texts of its own",
            )
        seen.setdefault(value, key)
    if loader_known and entry.loader != "hub" and named and "train" not in named:
        what = "subfolder" if entry.loader == "folder" else "file"
        yield (
            (*path, "splits", "train"),
            f"missing; validation or test names a {what} of path, so train must name one too",
        )


def _column_problems(entry: DatasetEntry, path: tuple) -> Iterator[Problem]:
    text = entry.text if isinstance(entry.text, list) else [entry.text]
    labels = entry.label if isinstance(entry.label, list) else [entry.label]
    for column in labels:
        if column in text:
            yield (*path, "label"), f"column {shown(column)} is a text column too"


def _hierarchy_problems(entry: DatasetEntry, path: tuple) -> Iterator[Problem]:
    if not isinstance(entry.label, list):
        if entry.undefined is not None:
            yield (
                (*path, "undefined"),
                "only for a hierarchy, where label is a list of columns, coarse to fine",
            )
        return
    for column in entry.label:
        if not re.fullmatch(SLUG, column):
            yield (
                (*path, "label"),
                f"column {shown(column)} names a task, and tasks become folders: rename it to "
                f"{SLUG_WORDS}",
            )
    if PATH_TASK in entry.label:
        yield (
            (*path, "label"),
            f"column {shown(PATH_TASK)} names a task, and that name stands for all levels "
            "together: rename it",
        )


def _metric_problems(entry: DatasetEntry, path: tuple) -> Iterator[Problem]:
    tasks = entry.label if isinstance(entry.label, list) else ["label"]
    for task in entry.metric if isinstance(entry.metric, dict) else ():
        if task not in tasks:
            yield (
                (*path, "metric", task),
                f"{shown(task)} is no task of this dataset; tasks are {', '.join(tasks)}"
                + hint(task, tasks),
            )


def _name_problems(entry: DatasetEntry, path: tuple) -> Iterator[Problem]:
    given, columns = entry.label_names, entry.label
    if isinstance(columns, list):
        if isinstance(given, list):
            yield (
                (*path, "label_names"),
                f"{shown(given)} is a list, but there are several label columns; give a mapping of "
                f"column ({', '.join(columns)}) to its names",
            )
        for column in given if isinstance(given, dict) else ():
            if column not in columns:
                yield (
                    (*path, "label_names", column),
                    f"{shown(column)} is none of the label columns {', '.join(columns)}"
                    + hint(column, columns),
                )
            elif isinstance(given[column], str):
                yield (
                    (*path, "label_names", column),
                    f"{shown(given[column])} is not a list of names or a mapping of value to name",
                )
        return
    for value, name in given.items() if isinstance(given, dict) else ():
        if not isinstance(name, str):
            yield (
                (*path, "label_names", value),
                f"{shown(name)} is not text; names by column are for several label columns",
            )
