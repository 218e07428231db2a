"""Reranking one text at a time in plain Python, from the formulas alone, and rows to try it on."""

from __future__ import annotations

import math

import numpy as np


def rows(seed: int, n: int = 60, classes: int = 7, scale: float = 3.0):
    """Logits of both signs and cosines of both signs, float32 (n, classes)."""
    rng = np.random.default_rng(seed)
    logits = (scale * rng.normal(size=(n, classes))).astype(np.float32)
    return logits, rng.uniform(-0.4, 1, size=(n, classes)).astype(np.float32)


def softmax_of(values: list[float]) -> list[float]:
    highest = max(values)
    exponentials = [math.exp(value - highest) for value in values]
    return [value / sum(exponentials) for value in exponentials]


def candidates_of(z: list[float], count: int | None) -> list[int]:
    order = sorted(range(len(z)), key=lambda c: -z[c])
    return order if count is None else order[:count]


def powered(similarity: list[float], candidates: list[int], form) -> dict[int, float]:
    s = {c: min(max(similarity[c], 0.0), 1.0) for c in candidates}
    if form.name == "paper-banking77":
        best = max(s.values())
        s = {c: 1.0 if value == best else value for c, value in s.items()}
    return {c: value**form.power for c, value in s.items()}


def reranked_text(z, similarity, form, temperature=1.0) -> list[float]:
    """Probabilities of one text."""
    z = [float(value) / temperature for value in z]
    p = softmax_of(z)
    candidates = candidates_of(z, form.candidates)
    if max(similarity[c] for c in candidates) <= 0:
        return p
    s = powered(similarity, candidates, form)
    if form.name == "paper-logits":
        new = dict(zip(candidates, softmax_of([z[c] * s[c] for c in candidates]), strict=True))
    elif form.name == "mix":
        new = {c: p[c] ** (1 - form.weight) * s[c] ** form.weight for c in candidates}
    else:
        new = {c: p[c] * s[c] for c in candidates}
    together, total = sum(p[c] for c in candidates), sum(new.values())
    return [together * new[c] / total if c in new else p[c] for c in range(len(z))]


def reranked_labels(z, similarity, form, temperature=1.0, taken_off=None) -> list[float]:
    """Probabilities of each label of one text of a multi-label task."""
    candidates = candidates_of(z, form.candidates)
    taken_off = taken_off or [0.0] * len(z)
    z = [(float(value) + t) / temperature for value, t in zip(z, taken_off, strict=True)]
    p = [1 / (1 + math.exp(-value)) for value in z]
    if max(similarity[c] for c in candidates) <= 0:
        return p
    s = powered(similarity, candidates, form)
    for c in candidates:
        if form.name == "paper-logits":
            p[c] = 1 / (1 + math.exp(-z[c] * s[c]))
        elif form.name == "mix":
            p[c] = p[c] ** (1 - form.weight) * s[c] ** form.weight
        else:
            p[c] *= s[c]
    return p
