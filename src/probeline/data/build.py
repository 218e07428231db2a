"""The dataset stage: read, check, clean, split, subsample, store."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from probeline.data.labels import Task, encode_tasks, settle_vocabulary
from probeline.data.loaders import load_source
from probeline.data.paths import SPLITS
from probeline.data.source import Source, concatenate
from probeline.data.splits import METHODS, cut, group_copies
from probeline.data.subsample import subsample
from probeline.data.writing import about_texts, write_labels, write_texts
from probeline.errors import ProbelineError, one_of

logger = logging.getLogger(__name__)

EMPTY = ("error", "drop")
DUPLICATES = ("same-split", "keep", "drop")

Rows = dict[str, np.ndarray]


def build(
    name: str,
    spec: dict,
    out_folder: str | Path,
    data_root: str | None = None,
    seed: int = 42,
    parts: tuple[str, ...] = ("texts", "labels"),
) -> dict:
    """Build the dataset artifact from an entry under ``datasets:``.

    In this order: the given splits are read; empty texts (nothing but white space; of a pair:
    both) refused or dropped; labels encoded; exact copies dropped if asked; missing splits cut
    from train; each split cut down to `max_texts`; the vocabulary reduced to what train has.

    `duplicates`: ``same-split`` keeps exact copies of a text (of a pair as a whole) together
    when a split is made, except under ``split_method: datasets``, which promises exact rows;
    splits that are given stay as they are. ``drop`` keeps one copy of each text, in test if it
    stands there, else in validation, else in train, so that the splits share no text.

    Parameters
    ----------
    name : str
    spec : dict
        The entry as a plain dictionary with defaults filled in.
    out_folder : path
    data_root : str, optional
        Base of relative paths.
    seed : int
        Used unless the entry has its own `split_seed`.
    parts : tuple of {"texts", "labels"}
        What to write; labels go with texts that stand there. A workflow writes the two in a job
        each, so that an edit of labels leaves the texts, and what is computed of them, alone.

    Returns
    -------
    dict
        The manifest; of texts alone, what ``texts.json`` says.

    Raises
    ------
    ProbelineError
        Any bad input: one line that begins with ``datasets.<name>``.
    """
    try:
        return _build(name, _with_defaults(spec, seed), Path(out_folder), data_root, parts)
    except ProbelineError as error:
        raise ProbelineError(f"datasets.{name}: {error}") from error


def _with_defaults(spec: dict, seed: int) -> dict:
    spec = {**spec, "splits": spec.get("splits") or {}, "label": spec.get("label") or "label"}
    if spec.get("split_seed") is None:
        spec["split_seed"] = seed
    choices = {"empty": EMPTY, "duplicates": DUPLICATES, "split_method": METHODS}
    for key, allowed in choices.items():
        spec[key] = spec.get(key) or allowed[0]
        if spec[key] not in allowed:
            raise ProbelineError(f"{key}: {one_of(spec[key], allowed)}")
    return spec


def _build(name: str, spec: dict, out: Path, data_root: str | None, parts: tuple) -> dict:
    fractions = _fractions(spec["splits"])
    source, splits, empty = _read(spec, data_root)
    tasks = encode_tasks(source, spec)
    copies = group_copies(source.texts)
    dropped = dict.fromkeys(splits, 0)
    if spec["duplicates"] == "drop":
        kept = _without_copies(splits, copies)
        dropped = {split: len(rows) - len(kept[split]) for split, rows in splits.items()}
        splits = kept
    if fractions:
        splits |= _made(splits["train"], fractions, spec, tasks, copies)
    splits = _reduced(splits, spec, tasks)
    for split in SPLITS:
        if not len(splits[split]):
            raise ProbelineError(f"splits.{split}: no texts are left in it")
    tasks = [settle_vocabulary(task, splits, source.where) for task in tasks]
    order = np.concatenate([splits[split] for split in SPLITS])
    texts, sizes = source.texts.take(order), {split: len(rows) for split, rows in splits.items()}
    about = about_texts(name, texts, sizes)
    if "texts" in parts:
        write_texts(out, about, texts)
    if "labels" not in parts:
        return about
    manifest = {
        "name": name,
        "tasks": {task.name: _describe(task, splits) for task in tasks},
        "hierarchy": [] if isinstance(spec["label"], str) else [task.name for task in tasks],
        "empty": {"policy": spec["empty"], "dropped": empty},
        "duplicates": {
            "policy": spec["duplicates"],
            "copies": int(source.rows - copies.max() - 1),
            "dropped": dropped,
        },
        "source": _provenance(spec, source.revision),
    }
    codes = {task.name: task.codes[order] for task in tasks}
    manifest = write_labels(out, manifest, about, codes)
    _report(manifest)
    return manifest


def _fractions(splits: dict) -> dict[str, float]:
    """Return the splits to be made, {split: share of train}; the others must be named."""
    fractions = {}
    for split in SPLITS[1:]:
        value = splits.get(split)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1:
            fractions[split] = float(value)
        elif not isinstance(value, str):
            problem = "missing" if value is None else f"{value!r}"
            raise ProbelineError(
                f"splits.{split}: {problem}; expected the name of a split or file, or a share of "
                "train between 0 and 1, such as 0.2"
            )
    return fractions


def _read(spec: dict, data_root: str | None) -> tuple[Source, Rows, dict[str, int]]:
    """Return all rows without empty ones, those of each given split, and how many were empty."""
    parts, kept = load_source(spec, data_root), {}
    for split, part in parts.items():
        kept[split] = _without_empty(part, split, spec["empty"])
    ends = np.cumsum([part.rows for part in kept.values()]).tolist()
    splits = {
        split: np.arange(end - part.rows, end)
        for (split, part), end in zip(kept.items(), ends, strict=True)
    }
    empty = {split: parts[split].rows - part.rows for split, part in kept.items()}
    return concatenate(list(kept.values())), splits, empty


def _without_empty(source: Source, split: str, policy: str) -> Source:
    """Drop rows without any text, or refuse the first."""
    empty = np.ones(source.rows, dtype=bool)
    for column in source.texts.columns:
        trimmed = pc.utf8_trim_whitespace(column)
        empty &= pc.equal(pc.binary_length(trimmed), 0).to_numpy()
    rows = np.flatnonzero(empty)
    if not len(rows):
        return source
    if policy == "error":
        more = f" (and {len(rows) - 1} more in {split})" if len(rows) > 1 else ""
        raise ProbelineError(
            f"{source.where(int(rows[0]))}: an empty text{more}; fill it in, or drop such rows "
            "with empty: drop"
        )
    if len(rows) == source.rows:
        raise ProbelineError(f"{source.places[0].name}: every text of {split} is empty")
    return source.take(np.flatnonzero(~empty))


def _without_copies(splits: Rows, copies: np.ndarray) -> Rows:
    """Keep the first copy of each text: of test, else of validation, else of train."""
    seen, kept = np.zeros(0, dtype=np.int64), {}
    for split in reversed(SPLITS):
        if split in splits:
            rows = splits[split]
            rows = rows[np.sort(np.unique(copies[rows], return_index=True)[1])]
            kept[split] = rows[~np.isin(copies[rows], seen)]
            seen = np.concatenate([seen, copies[kept[split]]])
    return {split: kept[split] for split in splits}


def _made(
    pool: np.ndarray,
    fractions: dict[str, float],
    spec: dict,
    tasks: list[Task],
    copies: np.ndarray,
) -> Rows:
    """Cut `fractions` off the rows of `pool`; a hierarchy is stratified by its first level."""
    task, groups = tasks[0], None
    if spec["duplicates"] == "same-split":
        # Numbered anew, since the pool may be a part of all rows.
        groups = np.unique(copies[pool], return_inverse=True)[1]
    made = cut(
        len(pool),
        fractions,
        spec["split_method"],
        spec["split_seed"],
        groups=groups,
        strata=None if task.multi else task.codes[pool],
        within=_paths(tasks)[pool] if len(tasks) > 1 else None,
        has=task.codes[pool] if task.multi else None,
        names=task.labels,
    )
    return {split: pool[rows] for split, rows in made.items()}


def _paths(tasks: list[Task]) -> np.ndarray:
    """Number the paths through a hierarchy (one level: its classes), int64 (rows,)."""
    levels = np.stack([task.codes for task in tasks], axis=1)
    return np.unique(levels, axis=0, return_inverse=True)[1].reshape(-1)


def _reduced(splits: Rows, spec: dict, tasks: list[Task]) -> Rows:
    """Cut each split down to its `max_texts`."""
    most = spec.get("max_texts")
    if most is None:
        return splits
    if not isinstance(most, dict):
        most = dict.fromkeys(SPLITS, most)
    multi = tasks[0].multi
    strata = None if multi else _paths(tasks)
    reduced = dict(splits)
    for split, rows in splits.items():
        if most.get(split) is not None:
            reduced[split] = subsample(
                rows,
                most[split],
                spec["split_seed"],
                split,
                strata=None if multi else strata[rows],
                has=tasks[0].codes[rows] if multi else None,
                every_class=split == "train",
            )
    return reduced


def _describe(task: Task, splits: Rows) -> dict:
    """Return what the manifest says of a task."""
    defined = {
        split: len(rows) if task.multi else int((task.codes[rows] >= 0).sum())
        for split, rows in splits.items()
    }
    described = {
        "kind": "multi" if task.multi else "single",
        "labels": task.labels,
        "counts": {split: task.counts(splits[split]).tolist() for split in SPLITS},
        "defined": {split: defined[split] for split in SPLITS},
        "unused": task.unused,
    }
    return described | ({"parents": task.parents} if task.parents is not None else {})


def _provenance(spec: dict, revision: str | None) -> dict:
    """Return where the rows come from, as the config says it: no absolute path, no time."""
    keys = ("loader", "path", "config", "splits", "split_method", "split_seed", "max_texts")
    return {key: spec.get(key) for key in keys} | {"revision": revision}


def _report(manifest: dict) -> None:
    name, copies = manifest["name"], manifest["duplicates"]
    sizes = ", ".join(f"{s} {stop - start}" for s, (start, stop) in manifest["offsets"].items())
    logger.info("dataset %s: %d texts (%s)", name, manifest["rows"], sizes)
    empty = sum(manifest["empty"]["dropped"].values())
    if empty:
        logger.info("dataset %s: %d empty texts dropped", name, empty)
    if copies["copies"]:
        logger.info(
            "dataset %s: %d texts repeat an earlier one (duplicates: %s)",
            name,
            copies["copies"],
            copies["policy"],
        )
    for task, described in manifest["tasks"].items():
        if described["unused"]:
            unused = ", ".join(described["unused"])
            logger.info("dataset %s: %s: no text of train has %s: left out", name, task, unused)
