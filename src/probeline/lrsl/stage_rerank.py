"""The reranking stage: what validation chooses, applied to validation and test, and reported."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from probeline.data.label_text import label_texts
from probeline.data.store import Dataset, read_dataset
from probeline.files import read_json, write_json
from probeline.lrsl.choice import Choice, choose, forms_of, thresholds_tried
from probeline.lrsl.combiner import COMBINER, CombinerOptions
from probeline.lrsl.decision import Decision
from probeline.lrsl.embedding import Embedder, label_vectors, load_embedder
from probeline.lrsl.examples import examples, write_examples
from probeline.lrsl.folder import write_reranker
from probeline.lrsl.hardness import certainty, is_hard, misclassified, threshold_of
from probeline.lrsl.rerank import Form, TakenOff
from probeline.lrsl.reranking import Reranking
from probeline.lrsl.stage_data import (
    Similarities,
    answered,
    narrowing,
    reached,
    taken_off,
    top_labels,
    validation_temperature,
)
from probeline.lrsl.stage_report import Reranked, report, variant_of
from probeline.lrsl.trial import NOTHING, Validation
from probeline.probe.task import TaskData
from probeline.results.predictions import write_predictions

log = logging.getLogger(__name__)


def rerank_predictions(
    dataset_folder: str | os.PathLike,
    names: Mapping[str, str],
    predictions: str | os.PathLike,
    embedder: Mapping,
    tuned: str | os.PathLike | None,
    outputs: Mapping[str, str],
    settings: Mapping,
) -> None:
    """Choose a reranking on validation and apply it; labels of test are read for scores alone.

    Parameters
    ----------
    names : mapping
        task, model, source (file name of the predictions), seed.
    predictions : path
        The classifier's.
    embedder : mapping
        See `probeline.lrsl.embedding.load_embedder`.
    tuned : path or None
        JSON beside the folder of a tuned embedding, which then takes the place of `embedder`.
    outputs : mapping
        folder (of the reranker), predictions, scores, report, examples. Of the predictions, rows of
        train are the classifier's own. `texts_per_second` of the scores is null: the classifier's
        part of the way from text to answer ran before.
    settings : mapping
        `options` (the section `lrsl`), `label_texts`, `template`, `metric`.

    Raises
    ------
    ProbelineError
        If the predictions are of other data, the embedder cannot be loaded, or `k` is above the
        number of labels.
    """
    began = time.perf_counter()
    seed, options = int(names["seed"]), settings["options"]
    dataset = read_dataset(dataset_folder)
    found, task = answered(predictions, dataset, names["task"], settings["metric"])
    loaded = load_embedder(tuned_spec(embedder, tuned))
    texts = label_texts(task.labels, settings["label_texts"])
    vectors = label_vectors(loaded, texts, settings["template"], options["label_similarity"])
    cosines = Similarities(loaded, vectors, dataset, narrowing(found.logits, options))
    validation = found.logits[task.rows["validation"]]
    off = taken_off(found, task)
    choice, decision, shown = decide(task, validation, cosines, options, seed, off)
    chosen = time.perf_counter()
    write_reranker(
        outputs["folder"],
        decision,
        vectors,
        loaded,
        texts,
        settings["template"],
        dataset,
        task,
        names["model"],
        names["source"],
        {"seed": seed, "tuned": tuned is not None, "validation_score": choice.trial.score},
    )
    logits = _applied(found.logits, decision, cosines, reached(found, dataset, task))
    meta = {"model": names["model"], "method": "lrsl", "variant": variant_of(decision)}
    meta |= {"source": names["source"], "seed": seed}
    # That of a label that was reranked moved by the offset besides.
    threshold = found.meta["threshold"]
    write_predictions(outputs["predictions"], dataset, task, logits, meta, threshold)
    result = Reranked(task, found.logits, logits, decision, cosines, seed)
    described = report(result, choice, shown)
    write_json(outputs["report"], described | {**names, "seed": seed})
    _write_examples(outputs["examples"], result, dataset)
    trained = chosen - began + (_tuning_seconds(tuned) if tuned else 0.0)
    costs = {
        "seconds": time.perf_counter() - began,
        "train_seconds": trained,
        # The classifier's forward pass, most of the way from text to answer, ran before.
        "texts_per_second": None,
        "parameters_trained": _parameters(loaded if tuned else None, decision),
    }
    _write_scores(outputs["scores"], result, choice, costs)
    _tell(described)


def tuned_spec(embedder: Mapping, tuned: str | os.PathLike | None) -> dict:
    """Where the embedding lies: the tuned one beside its JSON, or the one it would be made from."""
    if tuned is None:
        return dict(embedder)
    folder = Path(tuned).with_suffix("").resolve()
    return dict(embedder) | {"path": str(folder), "revision": None, "max_length": None}


def _tuning_seconds(tuned: str | os.PathLike) -> float:
    described = read_json(Path(tuned).with_suffix("") / "embedding.json")
    return described["found"]["train_seconds"]


def decide(
    task: TaskData,
    logits: np.ndarray,
    cosines: Similarities,
    options: Mapping,
    seed: int,
    off: TakenOff = None,
) -> tuple[Choice, Decision, Decision]:
    """Choose a reranking on validation.

    Parameters
    ----------
    logits : ndarray of float32, shape (n, K)
        Of validation.
    options : mapping
        The section `lrsl`.
    off : sequence of float, optional
        What was taken off the logits of each label.

    Returns
    -------
    choice : Choice
    decision : Decision
    shown : Decision
        The same; where that is to do nothing, the best that was tried.

    Notes
    -----
    Texts that are hard at no threshold are not embedded.
    """
    y = task.y["validation"]
    k = top_labels(options["k"], task.classes)
    temperature = validation_temperature(task, logits, options, off)
    values = certainty(logits, options["hardness"], k, task.multilabel, temperature)
    thresholds = _thresholds(task, logits, values, options)
    needed = np.logical_or.reduce([is_hard(values, threshold) for threshold in thresholds])
    similarity = np.zeros(logits.shape, dtype=np.float32)
    similarity[needed] = cosines.of(task.rows["validation"][needed], "validation texts embedded")
    forms, combiners = _ways(options, k if options["candidates"] == "top_k" else None)
    scale = task.multilabel, temperature, off
    given = Validation(logits, similarity, y, values, task.metric, *scale)
    choice = choose(given, forms, thresholds, combiners, seed, options["fixed"])
    best = _best_tried(given, choice, thresholds, combiners, seed)
    found = (Decision(each, options["hardness"], k) for each in (choice.reranking, best))
    return choice, *found


def _thresholds(
    task: TaskData, logits: np.ndarray, values: np.ndarray, options: Mapping
) -> list[float | None]:
    if options["rerank"] == "all":
        return [float("inf")]
    if options["threshold"] == "validation":
        return thresholds_tried(values)
    wrong = misclassified(logits, task.y["validation"], task.multilabel)
    return [threshold_of(values, wrong, options["threshold"])]


def _ways(options: Mapping, candidates: int | None) -> tuple[list, list[CombinerOptions]]:
    """Forms and combiners to try."""
    names = options["forms"][:1] if options["fixed"] else options["forms"]
    forms = forms_of(names, options["powers"], options["weights"], candidates)
    return forms, [CombinerOptions(candidates=candidates)] if COMBINER in names else []


def _best_tried(
    given: Validation,
    choice: Choice,
    thresholds: Sequence[float | None],
    combiners: Sequence[CombinerOptions],
    seed: int,
) -> Reranking:
    """The choice; where nothing was chosen, the highest score, of equal ones the lowest loss."""
    tried = [trial for trial in choice.trials if trial.name == COMBINER or trial.power]
    if choice.trial.name != NOTHING:
        return choice.reranking
    if not tried:
        # Texts are hard by the threshold though nothing could be tried on them.
        return replace(choice.reranking, threshold=thresholds[0])
    best = max(tried, key=lambda trial: (trial.score, -trial.log_loss))
    forms: list[Form] = []
    if best.name != COMBINER:
        weight = Form.weight if best.weight is None else best.weight
        forms, combiners = [Form(best.name, best.power, weight, best.candidates)], ()
    return choose(given, forms, [best.threshold], combiners, seed, fixed=True).reranking


def _applied(
    logits: np.ndarray,
    decision: Decision,
    cosines: Similarities,
    rows: np.ndarray,
) -> np.ndarray:
    """Logits of all rows, those of `rows` reranked."""
    result = logits.copy()
    selected = decision.selects(logits[rows])
    similarity = cosines.of(rows[selected], "texts embedded")
    result[rows] = decision.apply(logits[rows], selected, similarity)
    return result


def _write_examples(path: str, result: Reranked, dataset: Dataset) -> None:
    frame = examples(
        result.task,
        "test",
        dataset.texts,
        *result.of("test"),
        temperature=result.decision.reranking.temperature,
        taken_off=result.decision.reranking.taken_off,
    )
    write_examples(frame, path)


def _parameters(tuned: Embedder | None, decision: Decision) -> int:
    """Weights that were trained: those of a tuned embedding and of a combiner."""
    count = 0
    if tuned is not None:
        count += sum(weights.numel() for weights in tuned.model.parameters())
    if decision.reranking.combiner is not None:
        count += sum(array.size for array in decision.reranking.combiner.arrays().values())
    return count


def _write_scores(path: str, result: Reranked, choice: Choice, costs: Mapping) -> None:
    task = result.task
    before, after, *_ = result.of("test")
    scores = {
        "method": "lrsl",
        "metric": task.metric,
        "validation_score": choice.trial.score,
        "test_score": task.score("test", after),
        "validation_score_before": choice.before,
        "test_score_before": task.score("test", before),
        **costs,
    }
    write_json(path, scores)


def _tell(described: Mapping) -> None:
    """One line of the log. Texts are hard by the threshold even where nothing was chosen."""
    validation, test = (described[split]["all"] for split in ("validation", "test"))
    log.info(
        "%s: %d of %d test texts are hard, %d reranked; validation %.4f, before %.4f; test %.4f, "
        "before %.4f",
        described["variant"],
        described["hard_texts"]["test"],
        described["test"]["texts"],
        described["test"]["flagged"],
        *(score for part in (validation, test) for score in (part["after"], part["before"])),
    )
