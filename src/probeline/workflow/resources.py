"""What a job asks a cluster for, estimated from the size of its work.

Estimates from above, by the cost model of docs/performance.md and seconds measured there on one
core: a job that asks for too much waits longer, one that asks for too little is killed. Those that
were killed ask for twice as much, attempt by attempt. No estimate falls when an argument rises.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# Operations per second in a forward pass: half of what a core does, and what an old GPU does.
CORE_RATE = 5e10
GPU_RATE = 5e12
# Two interpreters of Snakemake that wait for the job, and its own libraries, with torch or without.
PLAIN_MB = 1_000
TORCH_MB = 3_000
# The libraries may be read over a network, and the machine be slower than the one of the estimates.
START_MINUTES = 10
MARGIN = 3

_MB = 1e6
_BLOCK_BYTES = 256 << 20  # as in `probeline.activations.extract`, which would import torch


@dataclass(frozen=True)
class Need:
    """What a job needs.

    Attributes
    ----------
    mb : float
        Memory in MB.
    seconds : float
        On one core or, with `gpu`, on a GPU; start-up apart.
    gpu : bool
    """

    mb: float
    seconds: float
    gpu: bool = False

    def mem_mb(self, attempt: int = 1) -> int:
        """MB to ask for at an attempt, counted from 1; in hundreds."""
        return math.ceil(self.mb / 100) * 100 * 2 ** (attempt - 1)

    def runtime(self, attempt: int = 1, threads: int = 1) -> int:
        """Minutes to ask for at an attempt, counted from 1; more threads need fewer on a CPU."""
        seconds = self.seconds if self.gpu else self.seconds / threads
        return (START_MINUTES + math.ceil(MARGIN * seconds / 60)) * 2 ** (attempt - 1)


def parameters_of(layers: int, width: int, ffn_width: int, vocabulary: int) -> int:
    """Parameters of a transformer: attention, a gated feed-forward block, embeddings in and out."""
    return layers * (4 * width**2 + 3 * width * ffn_width) + 2 * vocabulary * width


def loading(megabytes: float) -> Need:
    """A table or folder of texts is read, split and written: files of `megabytes`."""
    return Need(PLAIN_MB + 1_000 + 12 * megabytes, megabytes)


def reading(rows: int, columns: int) -> Need:
    """Float32 features (rows, columns) are read, and a cheap thing is done with them."""
    return Need(PLAIN_MB + 3 * _matrix_mb(rows, columns), 1e-8 * rows * columns)


def tables(rows: int, classes: int, files: int) -> Need:
    """Predictions (rows, classes) of several files are resampled 10,000 times."""
    return Need(PLAIN_MB + 1_000 + 8 * _matrix_mb(rows, classes), files * (2 + 2e-3 * rows))


def largest_part(rows: int, parts: int, block: int) -> int:
    """The most rows of one of `parts` that share `rows` in whole blocks of at most `block`."""
    return min(rows, -(-rows // parts) + block)


def extraction(
    parameters: int,
    bytes_per_parameter: int,
    columns: int,
    bytes_per_value: int,
    rows: int,
    tokens: int,
    block_texts: int,
    gpu: bool,
) -> Need:
    """One forward pass over all texts, every layer and pooling stored.

    Parameters
    ----------
    columns : int
        Columns of all shards together: what is stored of one text.
    rows, tokens : int
        Texts, and the most tokens of one.
    """
    block = min(_BLOCK_BYTES, block_texts * columns * bytes_per_value)
    mb = (1.3 * bytes_per_parameter * parameters + 2 * block + 64 * rows) / _MB
    stored = 2e-9 * rows * columns * bytes_per_value
    return Need(TORCH_MB + mb, forward_seconds(parameters, rows, tokens, gpu) + stored, gpu)


def forward_seconds(parameters: int, rows: int, tokens: int, gpu: bool) -> float:
    """Two operations per parameter and token."""
    return 2 * parameters * rows * tokens / (GPU_RATE if gpu else CORE_RATE)


def scoring(parameters: int, bytes_per_parameter: int, rows: int, tokens: int, gpu: bool) -> Need:
    """A model reads texts; what is kept of them is small."""
    mb = (1.3 * bytes_per_parameter * parameters + 4_000 * rows) / _MB
    return Need(TORCH_MB + mb, forward_seconds(parameters, rows, tokens, gpu), gpu)


def attention(layers: int, width: int, tokens: int, labels: int, texts: int) -> Need:
    """Attention weights of every layer and head, text by text, and a table of what labels look at.

    Parameters
    ----------
    width : int
        Of the model; 64 of it are taken to be a head.
    tokens, labels : int
        The most of one text.
    """
    weights = layers * -(-width // 64) * (tokens + labels) ** 2
    table = texts * labels * tokens
    return Need((8 * weights + 200 * table) / _MB, 2e-6 * table)


def training(
    parameters: int, rows: int, tokens: int, epochs: float, gpu: bool, adapters: bool = False
) -> Need:
    """A model is trained whole, by AdamW in float32, or by `adapters` beside it.

    On a GPU, gradients and moments lie there.
    """
    per_parameter = 6 if gpu or adapters else 18
    passes = 3 * epochs + 2
    seconds = passes * forward_seconds(parameters, rows, tokens, gpu)
    return Need(TORCH_MB + 1_000 + (per_parameter * parameters + 4_000 * rows) / _MB, seconds, gpu)


def probes(rows: int, widths: Sequence[int], classes: int, steps: int) -> Need:
    """Probes of several shards, one after the other.

    Parameters
    ----------
    widths : sequence of int
        Neurons of each.
    steps : int
        Penalties and class weights that are tried of each.
    """
    work = sum(widths) * rows * classes * steps
    return Need(
        PLAIN_MB + 5 * _matrix_mb(rows, max(widths)) + 8 * _matrix_mb(max(widths), classes),
        5 * len(widths) + 1e-8 * work,
    )


def batched_probes(rows: int, widths: Sequence[int], classes: int, steps: int) -> Need:
    """Probes of several shards in one problem on a GPU: 400 steps of 4 n p K operations each.

    The features of all are in the GPU's memory; the host has those of two shards, one that is read
    and one that is copied, and the coefficients of all.
    """
    mb = 10 * _matrix_mb(rows, max(widths)) + 8 * _matrix_mb(sum(widths), classes)
    work = 40 * 4 * rows * sum(widths) * classes * steps
    return Need(TORCH_MB + mb, 5 * len(widths) + work / GPU_RATE, gpu=True)


def grid(rows: int, columns: int, classes: int, points: int) -> Need:
    """Classifiers over the kept neurons, `points` of them.

    A quarter of the columns is taken to be kept. Penalties are dense, q neurons cost q^2.
    """
    kept = max(1, columns // 4)
    mb = 3 * _matrix_mb(rows, kept) + 3 * _matrix_mb(kept, kept)
    return Need(PLAIN_MB + 1_000 + mb, 10 + 2e-10 * points * rows * kept * (classes + 10))


def times(need: Need, factor: float) -> Need:
    """The same work several times over, in the same memory."""
    return Need(need.mb, factor * need.seconds, need.gpu)


def together(needs: Sequence[Need]) -> Need:
    """Several things by one job, each with its memory until the end."""
    mb, seconds = (sum(getattr(need, key) for need in needs) for key in ("mb", "seconds"))
    return Need(mb, seconds, any(need.gpu for need in needs))


def _matrix_mb(rows: int, columns: int) -> float:
    return 4 * rows * columns / _MB
