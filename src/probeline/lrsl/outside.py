"""Scores made elsewhere, as CSV, TSV or Parquet, become predictions like those of any method.

One line per text. It is found by its number in the dataset (column `row`) or by itself (`text`,
and `text_pair` for pairs); `split` may stand there too. Every other column is a label.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from probeline.data.readers import read_delimited, require_columns
from probeline.data.store import Dataset, read_dataset
from probeline.errors import ProbelineError, nearest, one_of
from probeline.files import refuse_special, write_json
from probeline.probe.task import SPLITS, TaskData, task_data
from probeline.results.predictions import write_predictions

log = logging.getLogger(__name__)
KINDS = ("logits", "probabilities")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_FINGERPRINT = "dataset_fingerprint"
_ABOUT = ("split", "text_pair", _FINGERPRINT)
# float32's: rounded to 0 or 1 elsewhere, a probability is not further from it than this.
_NEAREST = float(np.finfo(np.float32).eps)
# Probabilities rounded to two digits may miss 1 by half of the last, label by label.
_ROUNDING = 0.005
_SHOWN = 40


@dataclass(frozen=True)
class _File:
    """A file of scores: its columns, where it lies, and how its texts are named."""

    path: str
    table: pa.Table
    text: str | None
    row: str | None
    labels: tuple[str, ...]

    def column(self, name: str) -> list:
        return self.table[name].to_pylist()

    def has(self, name: str) -> bool:
        """Whether there is a column of this name that is no label's."""
        return name in self.table.column_names and name not in self.labels

    def error(self, place: int | None, what: str) -> ProbelineError:
        where = "" if place is None else f" row {place + 1}:"
        return ProbelineError(f"{self.path}:{where} {what}")


def given_scores(
    path: str | os.PathLike,
    dataset_folder: str | os.PathLike,
    task_name: str,
    name: str,
    kind: str,
    predictions: str | os.PathLike,
    scores: str | os.PathLike,
    text: str | None = None,
    row: str | None = None,
    encodings: Sequence[str] = ("utf-8",),
    metric: str | None = None,
) -> None:
    """Read scores from elsewhere and write them as predictions of the method `given`.

    Parameters
    ----------
    path : path
        CSV, TSV or Parquet, see `read_scores`.
    name : str
        What the predictions shall call the model.
    predictions, scores : path
        HDF5 and JSON that are written.
    """
    started = time.perf_counter()
    dataset = read_dataset(dataset_folder)
    task = task_data(dataset, task_name, metric)
    logits = read_scores(path, dataset, task, kind, text, row, encodings)
    meta = {"model": name, "method": "given", "variant": kind}
    write_predictions(predictions, dataset, task, logits, meta)
    reached = {
        split: task.score(split, logits[task.rows[split]]) for split in ("validation", "test")
    }
    known = int((~np.isnan(logits[task.rows["train"]]).any(axis=1)).sum())
    write_json(
        scores,
        {
            "method": "given",
            "metric": task.metric,
            "validation_score": reached["validation"],
            "test_score": reached["test"],
            "train_texts_with_scores": known,
            "seconds": time.perf_counter() - started,
            "train_seconds": None,
            "texts_per_second": None,
            "parameters_trained": None,
        },
    )
    log.info(
        "%s: scores of %d of %d training texts; validation %s %.4f, test %.4f",
        path,
        known,
        len(task.rows["train"]),
        task.metric,
        *reached.values(),
    )


def read_scores(
    path: str | os.PathLike,
    dataset: Dataset,
    task: TaskData,
    kind: str,
    text: str | None = None,
    row: str | None = None,
    encodings: Sequence[str] = ("utf-8",),
) -> np.ndarray:
    """Read scores of a dataset's texts.

    A text that the dataset has several times may stand once for all of them, or as often as there
    (in that order), with or without the column `split`.

    Parameters
    ----------
    dataset : Dataset
        With its texts.
    kind : {"logits", "probabilities"}
        Probabilities sum to 1 over the labels, or are one by one between 0 and 1 in a multi-label
        task, where a label is predicted above 0.5 (above 0 as a logit).
    text, row : str, optional
        Column with the text or with its row number, from 0; default 'row' where the file has it,
        else 'text'.
    encodings : sequence of str
        Of a CSV or TSV, tried in turn.

    Returns
    -------
    ndarray of float32, shape (rows, K)
        Logits, the columns in the order of the task's labels; rows of training texts that the
        file leaves out hold NaN. Probabilities become their logarithms, or log odds in a
        multi-label task.

    Raises
    ------
    ProbelineError
        If the file is not readable, lacks a label or has an unknown one, holds texts of another
        dataset, the wrong fingerprint, a value that is not finite or not of the kind, twice the
        same row, or not all texts of validation and test.
    """
    if kind not in KINDS:
        raise ProbelineError(f"scores: kind: {one_of(kind, KINDS)}")
    table = _read_table(Path(path), encodings)
    file = _named(str(path), table, task.labels, text, row)
    _check_fingerprint(file, dataset)
    logits = _as_logits(file, _values(file, task.labels), kind, task.multilabel)
    result = np.full((dataset.rows, len(task.labels)), np.nan, dtype=np.float32)
    rows, places = _by_row(file, dataset) if file.row else _by_text(file, dataset, logits)
    result[rows] = logits[places]
    _check_complete(file, task, result)
    return result


def _read_table(path: Path, encodings: Sequence[str]) -> pa.Table:
    refuse_special(path)
    if not path.is_file():
        raise ProbelineError(f"{path}: no such file of scores")
    suffix = path.suffix.lower()
    if suffix in _DELIMITERS:
        return read_delimited(path, None, _DELIMITERS[suffix], encodings)
    if suffix not in (".parquet", ".pq"):
        raise ProbelineError(f"{path}: expected scores as .csv, .tsv or .parquet")
    try:
        with pq.ParquetFile(path) as file:
            require_columns(path, file.schema_arrow.names, file.schema_arrow.names)
            return file.read()
    except (pa.ArrowException, OSError) as error:
        raise ProbelineError(f"{path}: not a complete Parquet file: {error}") from None


def _named(path: str, table: pa.Table, labels, text: str | None, row: str | None) -> _File:
    """Settle which columns name the texts, and that all others are the labels."""
    present = table.column_names
    require_columns(path, [name for name in (text, row) if name], present)
    if text is None and row is None:
        free = [name for name in ("row", "text") if name in present and name not in labels]
        if not free:
            raise ProbelineError(
                f"{path}: has neither a column 'row' nor 'text' to know its texts by; it has: "
                f"{', '.join(present) or 'none'}"
            )
        row = "row" if "row" in free else None
        text = "text" if "text" in free else None
    about = {text, row} | ({"text", "row", *_ABOUT} - set(labels))
    columns = [name for name in present if name not in about]
    for name in columns:
        if name not in labels:
            raise ProbelineError(
                f"{path}: column '{name}' is no label of the task{nearest(name, labels)}; "
                "rename it or take it out"
            )
    for name in labels:
        if name not in columns:
            raise ProbelineError(
                f"{path}: has no column for label '{name}'{nearest(name, columns)}; every label "
                "needs one"
            )
    return _File(path, table, text, row, tuple(labels))


def _check_fingerprint(file: _File, dataset: Dataset) -> None:
    noted = (file.table.schema.metadata or {}).get(_FINGERPRINT.encode())
    found = {noted.decode(errors="replace")} if noted else set()
    if file.has(_FINGERPRINT):
        found |= set(map(str, file.column(_FINGERPRINT)))
    for other in sorted(found - {dataset.fingerprint}):
        raise file.error(
            None,
            f"scores of another dataset: its {_FINGERPRINT} is '{other}', that of "
            f"{dataset.name} is '{dataset.fingerprint}'",
        )


def _values(file: _File, labels: Sequence[str]) -> np.ndarray:
    """Scores float64 (n, K), all finite."""
    values = np.empty((file.table.num_rows, len(labels)))
    for code, label in enumerate(labels):
        column = file.table[label]
        try:
            numbers = pc.cast(column, pa.float64())
        except pa.ArrowException:
            place = next(i for i, cell in enumerate(column.to_pylist()) if not _is_number(cell))
            shown = column[place].as_py()
            raise file.error(
                place, f"'{shown}' in '{label}' is not a number; expected a score"
            ) from None
        values[:, code] = pc.fill_null(numbers, np.nan).to_numpy()
    for place, code in np.argwhere(~np.isfinite(values))[:1]:
        shown = file.table[labels[code]][int(place)].as_py()
        raise file.error(
            int(place), f"the score of '{labels[code]}' is {shown}; expected a finite number"
        )
    return values


def _is_number(cell: object) -> bool:
    try:
        pc.cast(pa.array([cell]), pa.float64())
    except (pa.ArrowException, TypeError):
        return False
    return True


def _as_logits(file: _File, values: np.ndarray, kind: str, multilabel: bool) -> np.ndarray:
    if kind == "logits":
        return values.astype(np.float32)
    for place, _ in np.argwhere((values < 0) | (values > 1))[:1]:
        raise file.error(int(place), "a probability is not between 0 and 1; set `kind: logits`?")
    if multilabel:
        p = np.clip(values, _NEAREST, 1 - _NEAREST)
        return (np.log(p) - np.log1p(-p)).astype(np.float32)
    total = values.sum(axis=1)
    for place in np.flatnonzero(np.abs(total - 1) > 0.01 + _ROUNDING * values.shape[1])[:1]:
        raise file.error(
            int(place),
            f"its probabilities sum to {total[place]:.4g}, not to 1; set `kind: logits`?",
        )
    return np.log(np.maximum(values, _NEAREST)).astype(np.float32)


def _by_row(file: _File, dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the dataset and places in the file, int64 each."""
    try:
        rows = pc.cast(file.table[file.row], pa.int64())
    except pa.ArrowException:
        rows = None
    if rows is None or rows.null_count:
        raise file.error(None, f"column '{file.row}' does not hold whole numbers")
    rows = rows.to_numpy()
    for place in np.flatnonzero((rows < 0) | (rows >= dataset.rows))[:1]:
        raise file.error(
            int(place),
            f"there is no row {rows[place]} in {dataset.name}, which has {dataset.rows}; are "
            "these scores of another dataset?",
        )
    _, first = np.unique(rows, return_index=True)
    for place in np.setdiff1d(np.arange(len(rows)), first)[:1]:
        raise file.error(int(place), f"row {rows[place]} stands there twice")
    for place, (row, key) in enumerate(zip(rows, _keys(file), strict=True)):
        if key and key != _key(dataset, row, len(key)):
            raise file.error(
                place,
                f"its text is not that of row {row} of {dataset.name}: scores of another dataset",
            )
    for place, split in enumerate(_splits(file)):
        part = dataset.split(split) if split else slice(0, dataset.rows)
        if not part.start <= rows[place] < part.stop:
            raise file.error(place, f"row {rows[place]} of {dataset.name} is not in {split}")
    return rows, np.arange(len(rows))


def _by_text(file: _File, dataset: Dataset, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `_by_row`, for texts that are known by themselves."""
    if dataset.pairs is not None and not file.has("text_pair"):
        raise file.error(
            None, f"has no column 'text_pair'; {dataset.name} holds pairs: name both texts, or rows"
        )
    places: dict[tuple, list[int]] = {}
    for place, key in enumerate(zip(_keys(file), _splits(file), strict=True)):
        places.setdefault(key, []).append(place)
    of_text = _rows_by_text(dataset, by_split=file.has("split"))
    rows, chosen = [], []
    for (key, split), own in places.items():
        wanted = of_text.get((key, split))
        if wanted is None:
            raise file.error(own[0], _unknown_text(dataset, key, split))
        if len(own) != len(wanted):
            if not (logits[own] == logits[own[0]]).all():
                raise file.error(
                    own[0],
                    f"the text '{_short(key)}' stands there {len(own)} times with different "
                    f"scores, in {dataset.name} {len(wanted)} times; add the column 'row' or "
                    "'split'",
                )
            own = [own[0]] * len(wanted)
        rows += wanted
        chosen += own
    return np.array(rows, dtype=np.int64), np.array(chosen, dtype=np.int64)


def _rows_by_text(dataset: Dataset, by_split: bool) -> dict[tuple, list[int]]:
    """Rows of each (text or pair, split or None), ascending."""
    found: dict[tuple, list[int]] = {}
    width = 1 if dataset.pairs is None else 2
    for split in SPLITS:
        part = dataset.split(split)
        for row in range(part.start, part.stop):
            key = (_key(dataset, row, width), split if by_split else None)
            found.setdefault(key, []).append(row)
    return found


def _keys(file: _File) -> list[tuple]:
    """The text, or both texts, of each line; empty where it gives none."""
    if file.text is None:
        return [()] * file.table.num_rows
    names = [file.text, "text_pair"] if file.has("text_pair") else [file.text]
    return list(zip(*(map(str, file.column(name)) for name in names), strict=True))


def _key(dataset: Dataset, row: int, width: int) -> tuple:
    texts = (dataset.texts, dataset.pairs)[:width]
    return tuple(column[row] for column in texts if column is not None)


def _splits(file: _File) -> list[str | None]:
    if not file.has("split"):
        return [None] * file.table.num_rows
    splits = file.column("split")
    for place, split in enumerate(splits):
        if split not in SPLITS:
            raise file.error(place, f"split {one_of(split, SPLITS)}")
    return splits


def _unknown_text(dataset: Dataset, key: tuple, split: str | None) -> str:
    where = f"{split} of {dataset.name}" if split else dataset.name
    return (
        f"the text '{_short(key)}' is not in {where}; are these scores of another dataset? Texts "
        "must stand there letter by letter, or be known by column 'row'"
    )


def _short(key: tuple) -> str:
    text = " / ".join(key)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _check_complete(file: _File, task: TaskData, result: np.ndarray) -> None:
    needed = np.concatenate([task.rows["validation"], task.rows["test"]])
    missing = needed[np.isnan(result[needed]).any(axis=1)]
    if len(missing):
        raise file.error(
            None,
            f"has no scores of {len(missing)} of the {len(needed)} validation and test texts, "
            f"such as row {missing[0]} of the dataset; all of them are needed",
        )
