"""Reranking many texts by the meaning of their labels, against one text after the other."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import numpy as np

from benchmarks.bench import Bench
from benchmarks.machine import multiplications
from benchmarks.rows import Outcome, Part, combined
from benchmarks.timing import interleaved, spread

_TEXTS, _LABELS, _WIDTH = 100_000, 77, 384
_K, _POWER = 3, 2
# The share of Banking77's test texts that the variance of three logits calls hard is 14 %.
_HARD_SHARE = 0.14
_REPEATS = 5


@dataclass(frozen=True)
class Given:
    """Random stand-ins of a classifier's logits and of embeddings of length 1, float32."""

    logits: np.ndarray
    texts: np.ndarray
    labels: np.ndarray

    def threshold(self, share: float) -> float:
        """The variance up to which so many texts are hard."""
        if share == 1:
            return float("inf")
        some = self.logits[:10_000].astype(np.float64)
        return float(np.quantile(np.sort(some, axis=1)[:, -_K:].var(axis=1), share))


def against_loop(bench: Bench) -> Outcome:
    """P9: how many times faster texts are reranked at once; the note has the hard ones alone."""
    given = make()
    count = bench.size(1_000, _TEXTS)
    parts, notes, same = [], [], True
    least = 2 * _TEXTS * _LABELS * _WIDTH / multiplications()
    for name, share in (("every text", 1.0), ("hard ones only", _HARD_SHARE)):
        threshold, results = given.threshold(share), {}

        def ours(threshold=threshold, results=results) -> None:
            results["ours"] = vectorised(given, threshold)

        def theirs(threshold=threshold, results=results) -> None:
            results["loop"] = one_at_a_time(given, threshold, count)

        seconds = interleaved({"ours": ours, "loop": theirs}, _REPEATS, once=["loop"])
        fast = statistics.median(seconds["ours"])
        slow = seconds["loop"][0] * _TEXTS / count
        if share == 1:
            parts.append(Part(name, slow / fast, 100.0, least=True))
            floor = slow / least
        notes.append(
            f"{name}: {slow / fast:.0f} x, {fast:.2f} s ({spread(seconds['ours'])}) against "
            f"{slow:.0f} s"
        )
        same &= np.allclose(results["ours"][:count], results["loop"], atol=1e-3)
    scale = "" if count == _TEXTS else f", the loop scaled from {count:,}"
    notes.append(f"{_TEXTS:,} texts x {_LABELS} labels, embeddings of width {_WIDTH}{scale}")
    notes.append("same scores" if same else "scores differ")
    notes.append(f"floor: the similarities of every text alone would take {least:.2f} s")
    return combined(parts, notes, floor, [same])


def make() -> Given:
    """The same texts each time."""
    rng = np.random.default_rng(0)

    def unit(rows: int) -> np.ndarray:
        values = rng.standard_normal((rows, _WIDTH), dtype=np.float32) + 0.6
        return values / np.linalg.norm(values, axis=1, keepdims=True)

    logits = 2 * rng.standard_normal((_TEXTS, _LABELS), dtype=np.float32)
    return Given(logits, unit(_TEXTS), unit(_LABELS))


def vectorised(given: Given, threshold: float) -> np.ndarray:
    """The library: certainties, similarities of the hard texts, reranking."""
    from probeline.lrsl.hardness import certainty, is_hard
    from probeline.lrsl.rerank import Form, apply

    hard = is_hard(certainty(given.logits, "variance", _K), threshold)
    # Picking them is timed as well, though a run embeds hard texts alone and has none to pick.
    texts = given.texts if hard.all() else given.texts[hard]
    similarity = texts @ given.labels.T
    return apply(given.logits, hard, similarity, Form("prob", _POWER))


def one_at_a_time(given: Given, threshold: float, count: int) -> np.ndarray:
    """The recipe of the public reference, written anew: a softmax per text, a cosine per label."""
    result = []
    for z, text in zip(given.logits[:count], given.texts[:count], strict=True):
        if np.var(np.sort(z)[-_K:]) > threshold:
            result.append(z)
            continue
        p = np.exp(z - z.max())
        p = p / p.sum()
        for k, label in enumerate(given.labels):
            cosine = np.dot(text, label) / (np.linalg.norm(text) * np.linalg.norm(label))
            p[k] *= max(cosine, 1e-9) ** _POWER
        result.append(np.log(p / p.sum()))
    return np.array(result)
