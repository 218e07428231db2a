"""Tune a sentence embedding on triplets: texts come nearer to their own label than to others."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pyarrow as pa
import sentence_transformers
import torch
import transformers
from datasets import Dataset as Rows

import probeline
from probeline import versions
from probeline.data.label_text import label_texts
from probeline.data.store import Dataset, read_dataset
from probeline.errors import ProbelineError
from probeline.files import replacing_folder, write_json
from probeline.finetune.checkpoints import Checkpoints
from probeline.finetune.folder import readable
from probeline.finetune.logits import autocast
from probeline.finetune.model import resolve_precision
from probeline.finetune.record import Record
from probeline.finetune.resumable import kept_step, memory_errors, train_to_end
from probeline.lrsl.embedding import Embedder, load_embedder, texts_to_embed
from probeline.lrsl.label_vectors import flat_texts
from probeline.lrsl.triplets import indicators, read_triplets
from probeline.lrsl.tune_options import read_tune_options
from probeline.lrsl.tune_trainer import TuneJob, Tuner, Validation
from probeline.models.load import quiet
from probeline.probe.task import TaskData, task_data

log = logging.getLogger(__name__)

EMBEDDING = "embedding.json"
COLUMNS = ("row", "text", "label", "positive", "negative_label", "negative")


def tune(
    triplets: str | os.PathLike | pa.Table,
    dataset_folder: str | os.PathLike,
    task_name: str,
    embedder: Mapping,
    out_folder: str | os.PathLike,
    state_folder: str | os.PathLike,
    options: Mapping,
    seed: int,
    given_texts: Mapping[str, str | Sequence[str]] | None = None,
    template: str = "{label}",
    keep_state: bool = False,
) -> dict:
    """Tune an embedding and write it as a sentence-transformers folder with `embedding.json`.

    Work goes on in `state_folder`; interrupted, the same call goes on at the last complete
    checkpoint and, on the same CPU with as many threads, yields the same weights.

    Parameters
    ----------
    triplets : path or pyarrow.Table
        As the triplets stage writes them; used are the columns `COLUMNS`.
    dataset_folder : path
        The dataset they are of. Its validation texts choose the epoch; test is not read.
    task_name : str
    embedder : mapping
        See `load_embedder`.
    out_folder : path
        modules.json, config.json, model.safetensors, tokenizer, ..., embedding.json.
    options : mapping
        The section `lrsl.tune`; see `tune_options.TuneOptions`.
    seed : int
        Of dropout and the order of the triplets.
    given_texts : mapping, optional
        `label_texts` of the dataset's config.
    template : str
        What is embedded for a label, with `{label}` in its text's place.
    keep_state : bool
        Leave in `state_folder` what the same call needs to do all this again without training,
        for a caller whose results may yet be deleted.

    Returns
    -------
    dict
        What `embedding.json` holds.

    Raises
    ------
    ProbelineError
        If an option, the embedder or the triplets are not fit for it, a batch does not fit into
        the memory, or a loss is not finite.
    """
    chosen = read_tune_options(options)
    dataset = read_dataset(dataset_folder)
    task = task_data(dataset, task_name)
    table = _triplets(triplets, dataset, task)
    texts = label_texts(task.labels, given_texts)
    transformers.set_seed(seed)
    loaded = load_embedder(embedder)
    job = TuneJob(
        name=f"embedding on {dataset.name}/{task_name}",
        embedder=loaded,
        train=train_rows(table, dataset.labels(task_name), task.labels, template),
        validation=_validation(dataset, task, texts, template, chosen.scale),
        options=chosen,
        precision=resolve_precision(chosen.mixed_precision, loaded.model.device, "lrsl.tune"),
        seed=seed,
    )
    settings = _settings(job, dataset, task, table, template)
    checkpoints = Checkpoints(Path(state_folder), settings)
    with autocast(loaded.model.device, job.precision):
        # As it is scored after each epoch, which the Trainer does in this precision.
        untuned = job.validation.score(loaded)
    began = time.perf_counter()
    with _memory_errors(job):
        record = train_to_end(
            job, checkpoints, lambda record: Tuner(job, checkpoints, record), loaded.model
        )
    described = _described(job, settings, record, untuned.accuracy)
    _write(out_folder, loaded, described)
    checkpoints.reduce() if keep_state else checkpoints.remove()
    log.info(
        "%s: retrieval accuracy %.4f untuned, %.4f tuned, %.0f s",
        job.name,
        untuned.accuracy,
        described["found"]["retrieval_accuracy"],
        time.perf_counter() - began,
    )
    return described


def train_rows(table: pa.Table, y: np.ndarray, labels: Sequence[str], template: str) -> Rows:
    """Triplets as the Trainer takes them.

    Parameters
    ----------
    table : pyarrow.Table
        Columns `COLUMNS`; labels by name.
    y : ndarray, shape (rows of the dataset,) of codes, or (rows, K) of 0/1 for multi-label
    labels : sequence of str, K of them
    template : str

    Returns
    -------
    datasets.Dataset
        anchor, positive, negative (str), label (list of int64, see `losses.false_negatives`).

    Raises
    ------
    ProbelineError
        If there is no triplet, or they are not of these labels.
    """
    if table.num_rows == 0:
        raise ProbelineError(
            "lrsl.triplets: there is not one, so there is nothing to tune on; raise "
            "lrsl.triplets.k, take all texts (hard_only: false), or set lrsl.tune: null"
        )
    rows = table["row"].to_numpy()
    positive, negative = (_codes(table[key], labels) for key in ("label", "negative_label"))
    true = _true_labels(y[rows])
    _check_truth(rows, positive, negative, true, labels)
    flat_texts([], template)  # refuses a template without its label
    inside = [
        [template.replace("{label}", text) for text in table[key].to_pylist()]
        for key in ("positive", "negative")
    ]
    return Rows.from_dict(
        {
            "anchor": table["text"].to_pylist(),
            "positive": inside[0],
            "negative": inside[1],
            "label": np.column_stack([positive, negative, true]).tolist(),
        }
    )


def fingerprint(table: pa.Table) -> str:
    """16 hexadecimal digits of the SHA-256 over what the triplets say."""
    sink = pa.BufferOutputStream()
    chosen = table.select(list(COLUMNS)).replace_schema_metadata(None).combine_chunks()
    with pa.ipc.new_stream(sink, chosen.schema) as stream:
        stream.write_table(chosen)
    return hashlib.sha256(sink.getvalue()).hexdigest()[:16]


def _triplets(triplets, dataset: Dataset, task: TaskData) -> pa.Table:
    if isinstance(triplets, pa.Table):
        return triplets
    return read_triplets(triplets, dataset.fingerprint, task.name)[0]


def _codes(names: pa.ChunkedArray, labels: Sequence[str]) -> np.ndarray:
    code = {label: number for number, label in enumerate(labels)}
    try:
        return np.array([code[name] for name in names.to_pylist()], dtype=np.int64)
    except KeyError as error:
        raise ProbelineError(
            f"triplets: {error} is no label of the task; they are of another dataset or task"
        ) from None


def _check_truth(rows, positive, negative, true, labels: Sequence[str]) -> None:
    """Refuse triplets that the dataset's labels contradict."""
    wrong = ~(true == positive[:, None]).any(axis=1) | (true == negative[:, None]).any(axis=1)
    if wrong.any():
        at = int(wrong.argmax())
        raise ProbelineError(
            f"triplets: row {rows[at]} has '{labels[positive[at]]}' as a true and "
            f"'{labels[negative[at]]}' as a wrong label, but the dataset's labels say otherwise; "
            "they are of other labels, delete them and run again"
        )


def _true_labels(y: np.ndarray) -> np.ndarray:
    """The true labels of each row, int64 (n, t), filled up with -1."""
    if y.ndim == 1:
        return y[:, None].astype(np.int64)
    most = max(1, int(y.sum(axis=1).max()))
    # True labels first, in order.
    order = np.argsort(y == 0, axis=1, kind="stable")[:, :most]
    return np.where(np.take_along_axis(y, order, axis=1) > 0, order, -1)


def _validation(
    dataset: Dataset, task: TaskData, texts: Sequence[Sequence[str]], template: str, scale: float
) -> Validation:
    rows, y = task.rows["validation"], task.y["validation"]
    flat, owner = flat_texts(texts, template)
    true = indicators(y, task.classes)
    return Validation(texts_to_embed(dataset, rows), true, flat, owner, scale)


def _settings(
    job: TuneJob, dataset: Dataset, task: TaskData, table: pa.Table, template: str
) -> dict:
    """Everything that decides the weights; JSON-like."""
    return {
        "stage_version": versions.TUNE,
        "versions": {
            "torch": str(torch.__version__),
            "transformers": transformers.__version__,
            "sentence_transformers": sentence_transformers.__version__,
        },
        "embedder": job.embedder.path,
        "identity": job.embedder.identity,
        "max_length": job.embedder.max_length,
        "device": job.embedder.model.device.type,
        "precision": job.precision,
        "triplets": fingerprint(table),
        "template": template,
        "label_texts": job.validation.label_texts,
        "dataset": dataset.name,
        "dataset_fingerprint": dataset.fingerprint,
        "labels_fingerprint": dataset.manifest["labels_fingerprint"],
        "task": task.name,
        "options": job.options.deciding(),
        "seed": job.seed,
    }


def _described(job: TuneJob, settings: dict, record: Record, untuned: float) -> dict:
    step, _ = kept_step(record, job.options.keep)
    kept = next(
        entry
        for entry in record.history
        if entry["split"] == "validation" and entry["step"] == step
    )
    return {
        "probeline": probeline.__version__,
        "settings": settings,
        "options": job.options.plain(),
        "found": {
            "triplets": len(job.train),
            "step": step,
            "steps": record.history[-1]["step"],
            "untuned_retrieval_accuracy": untuned,
            "retrieval_accuracy": kept["score"],
            "loss": kept["loss"],
            "train_seconds": record.seconds,
            "seed": job.seed,
        },
        "history": record.history,
    }


def _write(folder: str | os.PathLike, embedder: Embedder, described: dict) -> None:
    with replacing_folder(folder) as temporary, quiet():
        embedder.model.save_pretrained(
            str(temporary), create_model_card=False, safe_serialization=True
        )
        write_json(temporary / EMBEDDING, described)
        readable(temporary, temporary / EMBEDDING)


def _memory_errors(job: TuneJob) -> AbstractContextManager:
    options = job.options
    advice = []
    if options.loss != "triplet" and options.batch_size > 1:
        small = min(options.mini_batch, options.batch_size)
        small = max(1, small // 2) if options.loss == "cached-mnrl" else small
        advice.append(f"lrsl.tune.loss: cached-mnrl with mini_batch: {small}")
    if options.batch_size > 1:
        advice.append(f"lrsl.tune.batch_size: {options.batch_size // 2}")
    if job.embedder.max_length is not None:
        advice.append(f"lrsl.max_length below {job.embedder.max_length}")
    return memory_errors(job, job.embedder.model.device, advice)
