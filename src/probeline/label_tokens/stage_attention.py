"""The stage that shows what labels look at: attention in some test texts, as a table and a page."""

from __future__ import annotations

import os

import numpy as np

from probeline.classifier.predict import load
from probeline.data.store import read_dataset
from probeline.label_tokens.attention import write_attention
from probeline.label_tokens.attention_page import attention_page
from probeline.probe.task import TaskData, task_data
from probeline.results.predictions import read_predictions


def attention(
    folder: str | os.PathLike,
    dataset_folder: str | os.PathLike,
    task_name: str,
    predictions: str | os.PathLike,
    table: str | os.PathLike,
    page: str | os.PathLike,
    texts: int,
    title: str,
    device: str = "auto",
    trust_remote_code: bool = False,
) -> None:
    """Write attention from label tokens to the tokens of test texts, in the last layer.

    Parameters
    ----------
    folder : path
        A classifier with label tokens, as `finetune` writes it.
    dataset_folder : path
        The dataset it was trained on.
    predictions : path
        Its logits.
    table : path
        Parquet; see `label_attention`.
    page : path
        HTML; see `attention_page`.
    texts : int
        How many, spread evenly over the test texts.
    title : str
        Of the page.
    trust_remote_code : bool
        As `probeline.load`: of the model that ranks the labels, where there are shortlists.

    Raises
    ------
    ProbelineError
        If the folder or a file cannot be read.
    """
    dataset = read_dataset(dataset_folder)
    task = task_data(dataset, task_name)
    places = spread(len(task.rows["test"]), texts)
    rows = task.rows["test"][places]
    found = load(folder, device, trust_remote_code=trust_remote_code).attention(
        [dataset.texts[row] for row in rows],
        None if dataset.pairs is None else [dataset.pairs[row] for row in rows],
        rows.tolist(),
    )
    write_attention(found, table)
    logits = read_predictions(predictions).logits[rows]
    notes, ranked = {}, {}
    for row, truth, own in zip(rows.tolist(), task.y["test"][places], logits, strict=True):
        true = _names(task, np.flatnonzero(truth) if task.multilabel else [truth])
        said = _names(task, np.flatnonzero(own > 0) if task.multilabel else [own.argmax()])
        notes[row] = f"true {_listed(true)}, predicted {_listed(said)}"
        by_logit = _names(task, np.argsort(-own, kind="stable"))
        ranked[row] = list(dict.fromkeys([*true, *by_logit]))
    attention_page(found, title, page, notes=notes, ranked=ranked)


def spread(count: int, wanted: int) -> np.ndarray:
    """Places of `wanted` of `count` things, evenly spread, ascending; all where there are fewer."""
    return np.linspace(0, count - 1, min(wanted, count)).round().astype(np.int64)


def _names(task: TaskData, codes) -> list[str]:
    return [task.labels[code] for code in codes]


def _listed(labels: list[str]) -> str:
    return ", ".join(labels) or "none"
