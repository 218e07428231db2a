"""The ablations stage: every embedding, all texts of validation and test."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

import numpy as np

from probeline.data.label_text import label_texts
from probeline.data.store import Dataset, read_dataset
from probeline.files import read_json, write_json
from probeline.lrsl.ablation_settings import Hardness, Setting, Similarities, setting_of
from probeline.lrsl.ablations import ablations, decided, write_ablations
from probeline.lrsl.choice import forms_of
from probeline.lrsl.combiner import COMBINER
from probeline.lrsl.curve import decision_curve
from probeline.lrsl.embedding import label_vectors, load_embedder, texts_to_embed
from probeline.lrsl.rerank import TakenOff
from probeline.lrsl.stage_data import answered, taken_off, top_labels, validation_temperature
from probeline.lrsl.stage_rerank import tuned_spec
from probeline.probe.task import TaskData

_SPLITS = ("validation", "test")
# Numbers of top labels that are looked at beside the configured one.
_TOPS = (2, 3, 5)


def run_ablations(
    dataset_folder: str | os.PathLike,
    task_name: str,
    inputs: Mapping[str, str | os.PathLike | None],
    embedder: Mapping,
    outputs: Mapping[str, str | os.PathLike],
    settings: Mapping,
    seed: int,
) -> None:
    """Score every part of a reranking with and without.

    Parameters
    ----------
    inputs : mapping
        predictions; report, of the reranking; tuned, the JSON beside the embedding that it reads,
        if that was tuned; own, where the triplets of `tuned` come from cross-fitted logits, that of
        one tuned on triplets of the classifier's own.
    embedder, settings
        As in `probeline.lrsl.stage_rerank.rerank_predictions`.
    outputs : mapping
        table (Parquet) and csv, see `probeline.lrsl.ablations`; curve, JSON with the curve of what
        the report shows, of all texts.
    """
    options = settings["options"]
    dataset = read_dataset(dataset_folder)
    found, task = answered(inputs["predictions"], dataset, task_name, settings["metric"])
    logits = {split: found.logits[task.rows[split]] for split in _SPLITS}
    similarities = [
        Similarities(name, kind, _cosines(dataset, task, tuned_spec(embedder, place), settings))
        for name, kind, place in _embeddings(inputs)
    ]
    # The reranker reads the one that was tuned for it, if one was.
    own = similarities[1 if inputs.get("tuned") else 0]
    report = read_json(inputs["report"])
    hardness = _hardness(task, logits["validation"], options, taken_off(found, task))
    table = ablations(
        task,
        logits,
        similarities,
        forms_of(options["forms"], options["powers"], options["weights"], None),
        _tops(options["k"], task.classes),
        hardness,
        seed,
        options["candidates"] == "top_k",
        COMBINER in options["forms"],
        setting_of(report["decision"], own),
    )
    write_ablations(table, outputs["table"], outputs["csv"])
    shown = setting_of(report["shown"]["decision"], own)
    write_json(outputs["curve"], {"curve": _curve(task, logits, shown, hardness, seed)})


def _embeddings(inputs: Mapping) -> Iterator[tuple[str, bool | None, str | os.PathLike | None]]:
    """What each is called, whether its triplets are of cross-fitted logits, and where it lies."""
    yield "untuned", None, None
    if inputs.get("tuned"):
        yield "tuned", bool(inputs.get("own")), inputs["tuned"]
    if inputs.get("own"):
        yield "tuned", False, inputs["own"]


def _curve(
    task: TaskData,
    logits: Mapping[str, np.ndarray],
    shown: Setting,
    hardness: Hardness,
    seed: int,
) -> list[dict]:
    _, decision = decided(task, logits["validation"], shown, hardness, seed)
    rows = []
    for split in _SPLITS:
        before = logits[split]
        everything = np.ones(len(before), dtype=bool)
        similarity = shown.similarity(split, before)
        rows += decision_curve(task, split, before, decision, everything, similarity)
    return rows


def _cosines(
    dataset: Dataset, task: TaskData, spec: Mapping, settings: Mapping
) -> dict[str, np.ndarray]:
    loaded = load_embedder(spec)
    texts = label_texts(task.labels, settings["label_texts"])
    how = settings["options"]["label_similarity"]
    vectors = label_vectors(loaded, texts, settings["template"], how)
    found = {}
    for split in _SPLITS:
        chosen = texts_to_embed(dataset, task.rows[split])
        found[split] = vectors.similarities(loaded.encode(chosen, f"{split} texts embedded"))
    return found


def _tops(k: int | str, classes: int) -> list[int]:
    return sorted({top_labels(k, classes), *(top for top in _TOPS if top <= classes)})


def _hardness(task: TaskData, logits: np.ndarray, options: Mapping, off: TakenOff) -> Hardness:
    rule = "misclassified" if options["threshold"] == "validation" else options["threshold"]
    temperature = validation_temperature(task, logits, options, off)
    return Hardness(options["hardness"], rule, temperature, off)
