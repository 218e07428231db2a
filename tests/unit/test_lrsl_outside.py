"""Scores written by hand as CSV, TSV or Parquet are read back onto the right texts."""

from __future__ import annotations

import csv
import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from labelled_texts import LABELS, labelled
from scipy.special import expit, softmax

from probeline.data.store import read_dataset
from probeline.data.writing import write_dataset
from probeline.errors import ProbelineError
from probeline.files import read_json
from probeline.lrsl.outside import given_scores, read_scores
from probeline.probe.task import task_data
from probeline.results.predictions import read_predictions

SPLITS = 24 * ["train"] + 12 * ["validation"] + 12 * ["test"]


class Case:
    """A dataset and logits of its rows."""

    def __init__(self, folder: Path, kind: str = "multiclass", texts=None, pairs=False):
        if texts is None:
            self.folder = labelled(folder / "data", kind, pairs)
        else:
            self.folder = with_texts(folder / "data", texts)
        self.dataset = read_dataset(self.folder)
        self.task = task_data(self.dataset, "label")
        shape = (self.dataset.rows, self.task.classes)
        self.logits = np.random.default_rng(5).normal(0, 2, shape).astype(np.float32)

    def columns(self, rows=None, values=None, order=None, **about) -> dict:
        """Columns of a file of some rows; labels in another order than the task's."""
        rows = np.arange(self.dataset.rows) if rows is None else np.asarray(rows)
        values = self.logits if values is None else values
        names = list(self.task.labels)
        found = {key: [column[row] for row in rows] for key, column in about.items()}
        return found | {name: values[rows, names.index(name)].tolist() for name in names[::-1]}

    def read(self, path, kind="logits", **named):
        return read_scores(path, self.dataset, self.task, kind, **named)


def with_texts(folder: Path, texts: list[str]) -> Path:
    task = {"kind": "single", "labels": list(LABELS), "counts": {}}
    manifest = {"name": "labelled", "tasks": {"label": task}}
    sizes = {"train": 24, "validation": 12, "test": 12}
    write_dataset(folder, manifest, pa.table({"text": texts}), sizes, {"label": np.arange(48) % 4})
    return folder


def written(path: Path, columns: dict, metadata=None) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path)
        return path
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writerows([list(columns), *zip(*columns.values(), strict=True)])
    return path


NUMBERED = [f'text, {i}\nof "two" lines, ä' for i in range(48)]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
@pytest.mark.parametrize("by", ["text", "row"])
def test_read_onto_their_rows(tmp_path, by, suffix):
    case = Case(tmp_path, texts=NUMBERED)
    about = {"text": {"text": NUMBERED}, "row": {"row": range(48), "split": SPLITS}}[by]
    mixed = np.random.default_rng(0).permutation(48)
    path = written(tmp_path / f"scores{suffix}", case.columns(mixed, **about))
    found = case.read(path)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, case.logits)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel"])
def test_probabilities(tmp_path, kind, suffix):
    case = Case(tmp_path, kind)
    z = case.logits.astype(np.float64)
    p = expit(z) if kind == "multilabel" else softmax(z, axis=1)
    columns = case.columns(values=p, row=range(48))
    found = case.read(written(tmp_path / f"p{suffix}", columns), "probabilities").astype(float)
    again = expit(found) if kind == "multilabel" else softmax(found, axis=1)
    np.testing.assert_allclose(again, p, atol=1e-6)


def test_probabilities_of_nought_and_one_stay_finite(tmp_path):
    case = Case(tmp_path, "multilabel")
    hard = (case.logits > 0).astype(float)
    path = written(tmp_path / "p.csv", case.columns(values=hard, row=range(48)))
    found = case.read(path, "probabilities")
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found > 0, hard > 0)


def test_pairs_and_other_column_names(tmp_path):
    case = Case(tmp_path, pairs=True)
    texts, pairs = case.dataset.texts, case.dataset.pairs
    columns = case.columns(premise=texts, text_pair=pairs)
    path = written(tmp_path / "a.csv", columns)
    np.testing.assert_array_equal(case.read(path, text="premise"), case.logits)
    path = written(tmp_path / "b.csv", case.columns(id=range(48)))
    np.testing.assert_array_equal(case.read(path, row="id"), case.logits)
    path = written(tmp_path / "c.csv", case.columns(text=texts))
    with pytest.raises(ProbelineError, match=r"c\.csv: has no column 'text_pair'"):
        case.read(path)


TWICE = NUMBERED[:20] + NUMBERED[:4] + NUMBERED[24:]  # rows 0 to 3 stand at 20 to 23 too


@pytest.mark.parametrize("split", [False, True])
def test_a_text_that_stands_there_several_times(tmp_path, split):
    case = Case(tmp_path, texts=TWICE)
    about = {"text": TWICE} | ({"split": SPLITS} if split else {})
    # As often as in the dataset: in that order.
    path = written(tmp_path / "all.csv", case.columns(**about))
    np.testing.assert_array_equal(case.read(path), case.logits)
    # Once for all of them.
    rows = [*range(20), *range(24, 48)]
    found = case.read(written(tmp_path / "once.csv", case.columns(rows, **about)))
    truth = case.logits.copy()
    truth[20:24] = truth[:4]
    np.testing.assert_array_equal(found, truth)
    # More often than there, with the same scores, or with others.
    same = [*rows, 0, 0, 5, 47]
    found = case.read(written(tmp_path / "same.csv", case.columns(same, **about)))
    np.testing.assert_array_equal(found, truth)
    values = case.logits.copy()
    path = written(tmp_path / "others.csv", case.columns([*range(48), 20], values, **about))
    with pytest.raises(ProbelineError, match="3 times with different scores, in labelled 2 times"):
        case.read(path)


def test_the_split_tells_copies_apart(tmp_path):
    across = [*NUMBERED[:24], *NUMBERED[:12], *NUMBERED[36:]]
    case = Case(tmp_path, texts=across)
    path = written(tmp_path / "a.csv", case.columns(range(24, 48), text=across, split=SPLITS))
    found = case.read(path)
    assert np.isnan(found[:24]).all()
    np.testing.assert_array_equal(found[24:], case.logits[24:])
    # Without it, a text's scores are those of all its copies.
    found = case.read(written(tmp_path / "b.csv", case.columns(range(24, 48), text=across)))
    np.testing.assert_array_equal(found[:12], case.logits[24:36])
    assert np.isnan(found[12:24]).all()


def test_as_predictions_of_the_method_given(tmp_path, caplog):
    case = Case(tmp_path)
    path = written(tmp_path / "s.csv", case.columns([*range(5), *range(24, 48)], row=range(48)))
    with caplog.at_level(logging.INFO):
        given_scores(
            path,
            case.folder,
            "label",
            "elsewhere",
            "logits",
            tmp_path / "given.h5",
            tmp_path / "given.json",
        )
    found, report = read_predictions(tmp_path / "given.h5"), read_json(tmp_path / "given.json")
    wanted = {"model": "elsewhere", "method": "given", "variant": "logits"}
    assert found.meta.items() >= wanted.items()
    np.testing.assert_array_equal(found.of("test"), case.logits[36:])
    assert np.isnan(found.logits[5:24]).all() and not np.isnan(found.logits[:5]).any()
    y = np.arange(48) % 4
    assert report["test_score"] == np.mean(case.logits[36:].argmax(1) == y[36:])
    assert report["validation_score"] == np.mean(case.logits[24:36].argmax(1) == y[24:36])
    assert report["train_texts_with_scores"] == 5
    assert "scores of 5 of 24 training texts" in caplog.text


def with_cell(columns: dict, name: str, place: int, value) -> dict:
    column = [*columns[name]]
    column[place] = value
    return columns | {name: column}


def without(columns: dict, name: str) -> dict:
    return {key: column for key, column in columns.items() if key != name}


def refused() -> dict:
    """{what is wrong: (columns -> columns, kind, message)}; rows 0 to 47 stand in the file."""
    return {
        "unknown label": (
            lambda c: c | {"rian": c["rain"]},
            "logits",
            r"column 'rian' is no label of the task; did you mean 'rain'\?",
        ),
        "missing label": (
            lambda c: without(c, "rain"),
            "logits",
            "has no column for label 'rain'; every label needs one",
        ),
        "no row nor text": (
            lambda c: without(c, "row"),
            "logits",
            "has neither a column 'row' nor 'text'",
        ),
        "not a number": (
            lambda c: with_cell(c, "rain", 2, "much"),
            "logits",
            "row 3: 'much' in 'rain' is not a number",
        ),
        "empty": (lambda c: with_cell(c, "rain", 2, ""), "logits", "row 3: '' in 'rain' is not"),
        "nan": (
            lambda c: with_cell(c, "rain", 9, float("nan")),
            "logits",
            "row 10: the score of 'rain' is nan; expected a finite number",
        ),
        "infinite": (
            lambda c: with_cell(c, "rain", 9, float("-inf")),
            "logits",
            "row 10: the score of 'rain' is -inf",
        ),
        "no probability": (lambda c: c, "probabilities", "is not between 0 and 1; set `kind: log"),
        "no sum of 1": (
            lambda c: c | {label: 48 * [0.5] for label in LABELS},
            "probabilities",
            "row 1: its probabilities sum to 2, not to 1",
        ),
        "unknown kind": (lambda c: c, "logit", "kind: 'logit' is not one of .* mean 'logits'"),
        "row beyond": (
            lambda c: with_cell(c, "row", 7, 48),
            "logits",
            "row 8: there is no row 48 in labelled, which has 48; .* another dataset",
        ),
        "row twice": (
            lambda c: with_cell(c, "row", 7, 3),
            "logits",
            "row 8: row 3 stands .* twice",
        ),
        "row no number": (
            lambda c: with_cell(c, "row", 7, "a"),
            "logits",
            "column 'row' does not hold whole numbers",
        ),
        "other text of the row": (
            lambda c: c | {"text": 48 * ["x"]},
            "logits",
            "row 1: its text is not that of row 0 of labelled: scores of another dataset",
        ),
        "other split of the row": (
            lambda c: c | {"split": ["test", *SPLITS[1:]]},
            "logits",
            "row 1: row 0 of labelled is not in test",
        ),
        "unknown split": (
            lambda c: c | {"split": ["tets", *SPLITS[1:]]},
            "logits",
            "row 1: split 'tets' is not one of .* mean 'test'",
        ),
        "text of another dataset": (
            lambda c: without(c, "row") | {"text": [f"x {i}" for i in range(48)]},
            "logits",
            "row 1: the text 'x 0' is not in labelled; are these scores of another dataset",
        ),
        "fingerprint": (
            lambda c: c | {"dataset_fingerprint": 48 * ["abc"]},
            "logits",
            "scores of another dataset: its dataset_fingerprint is 'abc', that of labelled",
        ),
        "not all of test": (
            lambda c: {name: [*column][:46] for name, column in c.items()},
            "logits",
            "has no scores of 2 of the 24 validation and test texts, such as row 46",
        ),
    }


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("wrong", refused())
def test_refused_in_one_line(tmp_path, wrong, suffix):
    change, kind, message = refused()[wrong]
    case = Case(tmp_path)
    columns = change(case.columns(row=range(48)))
    if suffix == ".parquet":
        # A column of Parquet has one type.
        columns = {
            name: [*map(str, cells)] if any(isinstance(cell, str) for cell in cells) else cells
            for name, cells in columns.items()
        }
    path = written(tmp_path / f"scores{suffix}", columns)
    with pytest.raises(ProbelineError, match=message) as raised:
        case.read(path, kind)
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith("scores: " if wrong == "unknown kind" else str(path))


def test_the_fingerprint_in_the_metadata_of_parquet(tmp_path):
    case = Case(tmp_path)
    columns = case.columns(row=range(48))
    own = {"dataset_fingerprint": case.dataset.fingerprint}
    path = written(tmp_path / "a.parquet", columns, own)
    np.testing.assert_array_equal(case.read(path), case.logits)
    path = written(tmp_path / "a.parquet", columns, {"dataset_fingerprint": "other"})
    with pytest.raises(ProbelineError, match=r"scores of another dataset: .* 'other'"):
        case.read(path)
    path = written(tmp_path / "a.csv", columns | {"dataset_fingerprint": 48 * [own.popitem()[1]]})
    np.testing.assert_array_equal(case.read(path), case.logits)


def test_files_that_are_none(tmp_path):
    case = Case(tmp_path)
    with pytest.raises(ProbelineError, match="no such file of scores"):
        case.read(tmp_path / "no.csv")
    for name, message in (
        ("a.json", "expected scores as .csv, .tsv or .parquet"),
        ("a.parquet", "not a complete Parquet file"),
        ("a.csv", "is empty; expected a header line"),
    ):
        (tmp_path / name).write_text("")
        with pytest.raises(ProbelineError, match=message):
            case.read(tmp_path / name)


def test_a_label_may_be_called_like_a_column(tmp_path):
    names = ["row", "split", "rain", "text"]
    folder = labelled(tmp_path / "d", labels=names)
    dataset = read_dataset(folder)
    task = task_data(dataset, "label")
    logits = np.random.default_rng(0).normal(size=(48, 4)).astype(np.float32)
    columns = {"number": range(48)} | {name: logits[:, k] for k, name in enumerate(names)}
    path = written(tmp_path / "a.parquet", columns)
    np.testing.assert_array_equal(read_scores(path, dataset, task, "logits", row="number"), logits)
    path = written(tmp_path / "b.parquet", {k: v for k, v in columns.items() if k != "number"})
    with pytest.raises(ProbelineError, match="has neither a column 'row' nor 'text'"):
        read_scores(path, dataset, task, "logits")
