"""Triplets that teach an embedding which label a text means: the text, its label, a wrong one.

Negatives are hard ones: wrong labels that the classifier ranks above the true one or next to it
(LRSL: Huang et al., Findings of EMNLP 2024, section 3.2, where they are the wrong ones of the top
k = 3).
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from probeline.data.splits import generator
from probeline.errors import ProbelineError
from probeline.files import replacing
from probeline.lrsl.hardness import misclassified

log = logging.getLogger(__name__)
TRIPLETS_FORMAT = 1
_WHOLE, _TEXT, _REAL = pa.int64(), pa.large_string(), pa.float32()
SCHEMA = pa.schema(
    {
        "row": _WHOLE,
        "text": _TEXT,
        "label": _TEXT,
        "positive": _TEXT,
        "negative_label": _TEXT,
        "negative": _TEXT,
        "rank": pa.int32(),
        "logit_gap": _REAL,
    }
)
_MARK = b"probeline"


def mine(
    rows: np.ndarray,
    texts: Sequence[str],
    y: np.ndarray,
    logits: np.ndarray,
    labels: Sequence[str],
    label_texts: Sequence[Sequence[str]],
    options: Mapping,
    seed: int,
    hard: np.ndarray | None = None,
) -> pa.Table:
    """Take triplets from a classifier's ranking of the labels.

    Negatives of a text with t true labels are the wrong labels among its top k + t - 1, which are
    the top k where there is one true label. In a multi-label task each true label is the positive
    of triplets of its own; a text without a label has none.

    Parameters
    ----------
    rows : ndarray of int64, shape (n,)
        Row numbers in the dataset.
    texts : sequence of str, n of them
    y : ndarray, shape (n,) of codes, or (n, K) of 0/1 for multi-label
    logits : ndarray, shape (n, K)
        Rows with NaN, whose scores are not known, are left out, and the log says how many.
    labels : sequence of str, K of them
    label_texts : sequence of sequence of str, K of them
        Of several texts of a label, one is drawn for each triplet.
    options : mapping
        `k`: of how many top labels the wrong ones are negatives; `per_text`: most negatives of a
        text, the highest ranked first (None: all); `hard_only`: only texts the classifier gets
        wrong, or marked in `hard`; `per_class`: most texts per positive label, drawn by the seed
        (None: all).
    seed : int
    hard : ndarray of bool, shape (n,), optional

    Returns
    -------
    pyarrow.Table
        Of `SCHEMA`, ordered by row, positive, rank. `rank` is that of the negative among all
        labels, 1 being the highest; `logit_gap` the true label's logit minus the negative's.

    Raises
    ------
    ProbelineError
        If k is larger than the number of labels, or no row has logits.
    """
    k, K = options["k"], len(labels)
    if k > K:
        raise ProbelineError(
            f"lrsl.triplets.k: {k} is more than the {K} labels there are; set it to at most {K}"
        )
    known = _with_logits(logits)
    true = indicators(y[known], K)
    place, positive, negative, rank = _pairs(logits[known], true, k, options["per_text"])
    if options["hard_only"]:
        chosen = misclassified(logits[known], y[known], np.ndim(y) == 2)
        if hard is not None:
            chosen |= hard[known]
        kept = chosen[place]
        place, positive, negative, rank = (
            values[kept] for values in (place, positive, negative, rank)
        )
    kept = _capped(place, positive, K, options["per_class"], generator(seed, "lrsl anchors"))
    place, positive, negative, rank = (values[kept] for values in (place, positive, negative, rank))
    at = known[place]
    draw = generator(seed, "lrsl label texts")
    names = pa.array(list(labels), _TEXT)
    columns = [
        pa.array(np.asarray(rows)[at], _WHOLE),
        pa.array([texts[i] for i in at], _TEXT),
        names.take(pa.array(positive)),
        _drawn(label_texts, positive, draw),
        names.take(pa.array(negative)),
        _drawn(label_texts, negative, draw),
        pa.array(rank, pa.int32()),
        pa.array((logits[at, positive] - logits[at, negative]).astype(np.float32), _REAL),
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def indicators(y: np.ndarray, classes: int) -> np.ndarray:
    """Which labels are true, bool (n, K), from codes (n,) or 0/1 (n, K)."""
    return y.astype(bool) if y.ndim == 2 else y[:, None] == np.arange(classes)


def _with_logits(logits: np.ndarray) -> np.ndarray:
    """Places of the rows whose logits are known, int64 (m,)."""
    known = np.flatnonzero(~np.isnan(logits).any(axis=1))
    if len(known) == 0 and len(logits):
        raise ProbelineError(
            "lrsl: none of the training texts has scores, so there is nothing to take triplets "
            "from; give scores of the training texts, or set lrsl.tune: null"
        )
    if len(known) < len(logits):
        log.warning(
            "%d of %d training texts have no scores; triplets are taken from the other %d",
            len(logits) - len(known),
            len(logits),
            len(known),
        )
    return known


def _pairs(logits: np.ndarray, true: np.ndarray, k: int, per_text: int | None) -> tuple:
    """All (place, positive, negative, rank), int64 each, ordered by place, positive, rank."""
    # Of equal logits the first label ranks higher, as argmax has it.
    order = np.argsort(-logits, axis=1, kind="stable")
    ranked = np.take_along_axis(true, order, axis=1)
    near = np.arange(logits.shape[1]) < k + true.sum(axis=1, keepdims=True) - 1
    wrong = ~ranked & near
    if per_text is not None:
        wrong &= np.cumsum(wrong, axis=1) <= per_text
    place, positive = np.nonzero(true)
    # Each (text, true label) once for every negative of the text.
    owner, column = np.nonzero(wrong[place])
    place, positive = place[owner], positive[owner]
    return place, positive, order[place, column], column + 1


def _capped(place, positive, classes: int, most: int | None, rng) -> np.ndarray:
    """Bool: triplets of at most `most` texts per positive, which are drawn."""
    if most is None or len(place) == 0:
        return np.ones(len(place), dtype=bool)
    # An anchor is a text with one of its labels; its triplets stay or go together.
    first = np.append(True, (np.diff(place) != 0) | (np.diff(positive) != 0))
    anchor = np.cumsum(first) - 1
    label = positive[first]
    order = rng.permutation(len(label))
    order = order[np.argsort(label[order], kind="stable")]
    starts = np.cumsum(np.bincount(label, minlength=classes)) - np.bincount(
        label, minlength=classes
    )
    kept = np.empty(len(label), dtype=bool)
    kept[order] = np.arange(len(label)) - starts[label[order]] < most
    return kept[anchor]


def _drawn(label_texts: Sequence[Sequence[str]], codes: np.ndarray, rng) -> pa.Array:
    """One text of each label, drawn among its several."""
    counts = np.array([len(own) for own in label_texts], dtype=np.int64)
    starts = np.cumsum(counts) - counts
    # Drawn also where there is no choice, so that a second text of one label moves no other's draw.
    at = starts[codes] + (rng.random(len(codes)) * counts[codes]).astype(np.int64)
    return pa.array([text for own in label_texts for text in own], _TEXT).take(pa.array(at))


def write_triplets(path: str | os.PathLike, triplets: pa.Table, meta: Mapping) -> None:
    """Write triplets as Parquet, whole or not at all, with `meta` as JSON in the file's metadata.

    `meta` names what they are of: dataset, dataset_fingerprint, task, source, options, seed.
    """
    described = dict(meta) | {"format": TRIPLETS_FORMAT}
    table = triplets.replace_schema_metadata({_MARK: json.dumps(described, sort_keys=True)})
    with replacing(path) as temporary:
        pq.write_table(table, temporary)


def read_triplets(
    path: str | os.PathLike, fingerprint: str | None = None, task: str | None = None
) -> tuple[pa.Table, dict]:
    """Read triplets and what they are of.

    Parameters
    ----------
    fingerprint, task : str, optional
        Of the dataset and the task that they must be of.

    Raises
    ------
    ProbelineError
        If the file is missing, no triplets of this version, or of other data.
    """
    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
        meta = json.loads((table.schema.metadata or {})[_MARK])
    except FileNotFoundError:
        raise ProbelineError(f"{path}: no such triplets; run the triplets stage") from None
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise ProbelineError(
            f"{path}: not readable triplets ({error}); delete it and run again"
        ) from None
    if meta.get("format") != TRIPLETS_FORMAT or table.schema.names != SCHEMA.names:
        raise ProbelineError(f"{path}: not triplets of this version; delete it and run again")
    for key, wanted in (("dataset_fingerprint", fingerprint), ("task", task)):
        if wanted is not None and meta.get(key) != wanted:
            raise ProbelineError(
                f"{path}: triplets of another dataset or task: {key} is '{meta.get(key)}', "
                f"expected '{wanted}'; delete it and run again"
            )
    return table.replace_schema_metadata(None), meta
