"""Heads on frozen features, fitted anew without each fold, at the penalty validation has chosen.

Whatever is learned of the training texts is learned again inside each fold: scalers, probes, the
neurons they select, vocabularies, the head. Only the choice of hyperparameters is kept, which
validation made.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from probeline.activations.names import parse_name
from probeline.activations.shards import open_shard
from probeline.aggregate.grid import Candidate, choose, prepare
from probeline.aggregate.head import fit_head
from probeline.aggregate.neurons import candidates_of, read_activations
from probeline.aggregate.stage import Activations, select
from probeline.baselines.sentence_embedding import SOLVER, normalized
from probeline.baselines.tfidf import Vectorizer, fit_linear, texts_of
from probeline.classifier.stage import all_candidates
from probeline.data.store import Dataset
from probeline.errors import ProbelineError
from probeline.files import read_json
from probeline.lrsl.folds import Fold
from probeline.probe.store import read_probe
from probeline.probe.threshold import evaluate
from probeline.probe.train import Probe, train_probe
from probeline.results.predictions import read_predictions
from probeline.sparsify import columns_of, ranked_table

Paths = Sequence[str | os.PathLike]
Key = tuple[str, str, int]


def stc_logits(
    folds: Sequence[Fold],
    dataset: Dataset,
    options: Mapping,
    *,
    grids: Mapping[str, str | os.PathLike],
    tables: Mapping[str, Paths],
    probes: Paths,
    shards: Paths,
) -> list[np.ndarray]:
    """Logits (held rows, 1 or k) per fold of the STC classifier.

    Parameters
    ----------
    options : mapping
        `probe` and `aggregate`: those sections of the configuration.
    grids, tables : mapping of slug to path, or to the neuron tables it combines
        As the classifier stage has them; of the tables the names are read alone.
    probes, shards : sequence of path
        At least those of the chosen slug up to the chosen depth.
    """
    aggregate = options["aggregate"]
    found, slug_of = all_candidates(grids)
    chosen = choose(found, aggregate["select"], aggregate["within"])
    sources = [tuple(Path(table).stem.split(".")) for table in tables[slug_of[id(chosen)]]]
    by_key = _by_key(shards)
    keys = [
        key
        for source in sources
        for key in sorted(map(_key, probes))
        if key[:2] == source and key[2] <= chosen.depth
    ]
    ranked: list[dict[tuple, list]] = [{source: [] for source in sources} for _ in folds]
    for key in keys:
        values = _train_and_validation(_of(by_key, key, "shard"), dataset)
        whole = read_probe(_of(_by_key(probes), key, "probe"))[0]
        for fold, tables_of_fold in zip(folds, ranked, strict=True):
            probe = _refitted(values, fold, options["probe"], whole)
            tables_of_fold[key[:2]].append((*key, probe.coefficients))
    return [
        _stc_fold(fold, dataset, chosen, layers, by_key, aggregate)
        for fold, layers in zip(folds, ranked, strict=True)
    ]


def _stc_fold(fold: Fold, dataset: Dataset, chosen: Candidate, layers, shards, options):
    arrays = [columns_of(ranked_table(of_source)) for of_source in layers.values()]
    neurons = candidates_of(arrays, [chosen.eta])
    values = read_activations(neurons, shards, dataset.fingerprint, dataset.rows)
    columns = prepare(neurons, values, fold.task)
    available = len(columns.neurons.at(0, chosen.depth)) if chosen.available else 0
    step = chosen.step
    if available == 0:
        # The L1 solver knows that without features the null model is the solution.
        step = replace(step, l1_ratio=1.0)
    candidate = replace(chosen, available=available, step=step)
    head = fit_head(columns, fold.task, candidate, [chosen.eta], options)
    return head.logits(select(Activations(neurons, values), head)[fold.held])


def probe_logits(
    folds: Sequence[Fold],
    dataset: Dataset,
    options: Mapping,
    *,
    predictions: str | os.PathLike,
    probes: Paths,
    shards: Paths,
) -> list[np.ndarray]:
    """Logits per fold of one layer's probe: the one whose predictions are given, the best or last.

    Parameters
    ----------
    options : mapping
        `probe`: that section of the configuration.
    """
    representation, pooling, layer = read_predictions(predictions).meta["variant"].split(".")
    key = (representation, pooling, int(layer))
    values = _train_and_validation(_of(_by_key(shards), key, "shard"), dataset)
    whole = read_probe(_of(_by_key(probes), key, "probe"))[0]
    return [
        _refitted(values, fold, options["probe"], whole).logits(values[fold.held]) for fold in folds
    ]


def sentence_embedding_logits(
    folds: Sequence[Fold],
    dataset: Dataset,
    options: Mapping,
    *,
    shard: str | os.PathLike,
    scores: str | os.PathLike,
) -> list[np.ndarray]:
    """Logits per fold of the sentence-embedding baseline, whose `scores` hold what it chose."""
    step = read_json(scores)["step"]
    chosen = {"penalties": [step["C"]], "class_weight": step["class_weight"]}
    values = normalized(_train_and_validation(shard, dataset))
    return [
        train_probe(_parts(values, fold), fold.task, chosen | SOLVER).logits(values[fold.held])
        for fold in folds
    ]


def tfidf_logits(
    folds: Sequence[Fold], dataset: Dataset, options: Mapping, *, scores: str | os.PathLike
) -> list[np.ndarray]:
    """Logits per fold of the TF-IDF baseline, whose `scores` hold what it chose.

    Parameters
    ----------
    options : mapping
        `tfidf`: that section of the configuration.
    """
    chosen = read_json(scores)
    return [_tfidf_fold(fold, dataset, options["tfidf"], chosen) for fold in folds]


def _tfidf_fold(fold: Fold, dataset: Dataset, options: Mapping, chosen: Mapping) -> np.ndarray:
    task = fold.task
    train = texts_of(dataset, task.rows["train"])
    vectorize = Vectorizer(*train, options)
    linear = fit_linear(
        vectorize(*train),
        task.y["train"],
        task.classes,
        chosen["C"],
        chosen["class_weight"],
        options.get("max_iterations", 1000),
    )
    validation = linear(vectorize(*texts_of(dataset, task.rows["validation"])))
    held = linear(vectorize(*texts_of(dataset, fold.held)))
    return held - evaluate(task, validation).threshold


Logits = Callable[..., list[np.ndarray]]
SOURCES: dict[str, Logits] = {
    "stc": stc_logits,
    "probe": probe_logits,
    "last-layer": probe_logits,
    "sentence-embedding": sentence_embedding_logits,
    "tfidf": tfidf_logits,
}


def _train_and_validation(shard: str | os.PathLike, dataset: Dataset) -> np.ndarray:
    """Activations of the rows before test, so that a row's number is its place."""
    with open_shard(shard, {"dataset_fingerprint": dataset.fingerprint}) as opened:
        return opened.read(rows=slice(0, dataset.split("validation").stop))


def _parts(values: np.ndarray, fold: Fold) -> dict[str, np.ndarray]:
    parts = {split: values[fold.task.rows[split]] for split in ("train", "validation")}
    return parts | {"test": parts["validation"]}


def _refitted(values: np.ndarray, fold: Fold, options: Mapping, whole: Probe) -> Probe:
    """The probe of a fold at the penalty that was chosen for the probe of all training rows."""
    # The way to a small penalty leads over the larger ones: a cold start there takes many times as
    # long. A start at the whole probe would be shorter still, but that one has seen the fold.
    weight = whole.step.class_weight
    way = [step.C for step in whole.steps if step.class_weight == weight]
    chosen = {"penalties": [C for C in way if C <= whole.step.C], "class_weight": weight}
    return train_probe(_parts(values, fold), fold.task, dict(options) | chosen, last=True)


def _key(path: str | os.PathLike) -> Key:
    return parse_name(Path(path).name)


def _by_key(paths: Paths) -> dict[Key, str | os.PathLike]:
    return {_key(path): path for path in paths}


def _of(by_key: Mapping[Key, str | os.PathLike], key: Key, what: str) -> str | os.PathLike:
    if key not in by_key:
        raise ProbelineError(f"lrsl: there is no {what} of {key[0]}.{key[1]}, layer {key[2]}")
    return by_key[key]
