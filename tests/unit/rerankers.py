"""Rerankers by a tiny embedding, and what they answer computed one text at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer

from probeline.data.label_text import label_texts
from probeline.lrsl.decision import Decision
from probeline.lrsl.embedding import label_vectors, load_embedder
from probeline.lrsl.folder import write_reranker
from probeline.lrsl.rerank import Form
from probeline.lrsl.reranking import Reranking

TEMPLATE = "the film is {label}"
POWER = 8.0
# Words of the tiny tokenizers' vocabulary.
GIVEN = {"money": "bank", "art": "film", "home": "cat"}


def decide(threshold: float | None, **more) -> Decision:
    """Reranks the top two labels by a high power: similarities of random models are alike."""
    more = {"form": Form("prob", POWER, candidates=2)} | more
    return Decision(Reranking(threshold=threshold, **more), "variance", 2)


def texts_of(task) -> list[tuple[str, ...]]:
    return label_texts(task.labels, {k: v for k, v in GIVEN.items() if k in task.labels})


def write(
    folder: Path,
    embedder: str,
    decision: Decision,
    dataset,
    task,
    model: str = "tiny",
    source: str = "stc",
    max_length: int | None = 16,
) -> Path:
    loaded = load_embedder({"path": embedder, "max_length": max_length, "device": "cpu"})
    texts = texts_of(task)
    vectors = label_vectors(loaded, texts, TEMPLATE)
    write_reranker(
        folder,
        decision,
        vectors,
        loaded,
        texts,
        TEMPLATE,
        dataset,
        task,
        model,
        source,
        {"seed": 42, "validation_score": 0.5},
    )
    return folder


def naive_similarities(embedder: str | Path, task, texts: Sequence[str]) -> np.ndarray:
    """Cosines by sentence-transformers itself, one text at a time."""
    model = SentenceTransformer(str(embedder), device="cpu")
    model.max_seq_length = 16
    names = [TEMPLATE.replace("{label}", own) for (own,) in texts_of(task)]
    labels = model.encode(names, normalize_embeddings=True)
    return np.array([labels @ model.encode(text, normalize_embeddings=True) for text in texts])


def naive_answers(
    embedder: str | Path, task, texts: Sequence[str], logits: np.ndarray, threshold: float
) -> tuple[list[int], list[bool]]:
    """Codes and which texts are hard, of `decide(threshold)`."""
    codes, hard = [], []
    cosines = naive_similarities(embedder, task, texts)
    for z, s in zip(logits.astype(float), cosines.clip(0), strict=True):
        first, second = np.argsort(-z)[:2]
        hard.append(bool(np.var([z[first], z[second]]) <= threshold))
        codes.append(int(first))
        if hard[-1]:
            scores = np.exp(z) * s**POWER
            if max(s[first], s[second]) > 0 and scores[second] > scores[first]:
                codes[-1] = int(second)
    return codes, hard
