"""The zero-shot baseline: which label's text is most like the text, by the model's own embedding.

Both are embedded as sentence-embedding models do: the hidden state of the last block, averaged over
the tokens and divided by its length. Nothing is trained.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from probeline.activations.features import pooled_features
from probeline.activations.shards import open_shard
from probeline.baselines.report import Cost, score_threshold, write_baseline
from probeline.baselines.sentence_embedding import normalized
from probeline.data.label_text import label_texts
from probeline.data.store import Dataset, read_dataset
from probeline.errors import ProbelineError
from probeline.models.load import LoadedModel, load_model
from probeline.probe.task import task_data
from probeline.results.predictions import shard_logits

# Texts that are embedded anew, only to say how long one takes.
_TIMED = 32


def label_embeddings(
    model: LoadedModel, layer: int, texts: Sequence[Sequence[str]], template: str = "{label}"
) -> np.ndarray:
    """Embed the texts of each label.

    Parameters
    ----------
    layer : int
        Number of the hidden state.
    texts : sequence of sequence of str
        One or several texts per label; the mean of their embeddings stands for the label.
    template : str
        What is embedded, with `{label}` in the text's place.

    Returns
    -------
    ndarray of float32, shape (K, width)
        Rows of length 1.

    Raises
    ------
    ProbelineError
        If the template has no `{label}`.
    """
    if "{label}" not in template:
        raise ProbelineError(
            f"zero_shot.template: '{template}' has no {{label}}; write for example "
            "'This text is about {label}.'"
        )
    flat = [template.replace("{label}", text) for own in texts for text in own]
    embedded = embed(model, layer, flat)
    ends = np.cumsum([0, *map(len, texts)])
    means = [embedded[a:b].mean(axis=0) for a, b in pairwise(ends)]
    return normalized(np.stack(means))


def embed(
    model: LoadedModel, layer: int, texts: Sequence[str], pairs: Sequence[str] | None = None
) -> np.ndarray:
    """Mean-pooled hidden states of one layer, float32 (n, width), each of length 1."""
    wanted = [("hidden", layer, "mean", np.arange(model.shape.hidden_width))]
    return normalized(pooled_features(model, texts, pairs, wanted))


def zero_shot(
    shard: str | os.PathLike,
    dataset_folder: str | os.PathLike,
    task_name: str,
    model_spec: Mapping,
    model_name: str,
    predictions: str | os.PathLike,
    scores: str | os.PathLike,
    options: Mapping,
    metric: str | None = None,
) -> None:
    """Score the baseline.

    Parameters
    ----------
    shard : path
        Hidden state of the model's last layer, mean pooling.
    model_spec : mapping
        The model's entry of `models:`, as the shard was extracted with.
    predictions, scores : path
        HDF5 and JSON that are written. Logits are cosine / temperature; for a multi-label task less
        a threshold that is chosen on validation.
    options : mapping
        `template`, `temperature`, `label_texts` (label to one or several texts).

    Raises
    ------
    ProbelineError
        If the shard is of another model or dataset, or the template or a label's text is not valid.
    """
    started = time.perf_counter()
    dataset = read_dataset(dataset_folder)
    task = task_data(dataset, task_name, metric)
    texts = label_texts(task.labels, options.get("label_texts"))
    temperature = float(options.get("temperature", 0.05))
    if not temperature > 0:
        raise ProbelineError(f"zero_shot.temperature: {temperature:g} is not above 0")
    model = load_model(model_spec)
    expected = {"tokenizer_hash": model.tokenizer_hash, "width": model.shape.hidden_width}
    with open_shard(shard, {**expected, "representation": "hidden", "pooling": "mean"}) as opened:
        layer = int(opened.meta["layer"])
    labels = label_embeddings(model, layer, texts, options.get("template", "{label}"))
    logits = shard_logits(shard, dataset, lambda X: normalized(X) @ labels.T / temperature)
    threshold = score_threshold(task, logits[task.rows["validation"]])
    if task.classes == 2 and not task.multilabel:
        logits = logits[:, 1:] - logits[:, :1]
    seconds, timed = _time_embedding(model, layer, dataset, labels)
    meta = {"model": model_name, "method": "zero-shot", "variant": f"hidden.mean.{layer}"}
    more = {
        "layer": layer,
        "temperature": temperature,
        "threshold": threshold,
        "label_texts": dict(zip(task.labels, map(list, texts), strict=True)),
    }
    cost = Cost(time.perf_counter() - started, 0.0, seconds, timed, 0)
    decided = logits - threshold
    write_baseline(predictions, scores, dataset, task, decided, meta, cost, more, threshold)


def _time_embedding(
    model: LoadedModel, layer: int, dataset: Dataset, labels: np.ndarray
) -> tuple[float, int]:
    """Seconds from text to answer for a few test texts: the shard says nothing of them."""
    rows = dataset.split("test")
    rows = slice(rows.start, min(rows.stop, rows.start + _TIMED))
    started = time.perf_counter()
    pairs = None if dataset.pairs is None else dataset.pairs[rows]
    (embed(model, layer, dataset.texts[rows], pairs) @ labels.T).argmax(axis=1)
    return time.perf_counter() - started, rows.stop - rows.start
