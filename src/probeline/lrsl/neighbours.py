"""The labels nearest to a text: exact, or by faiss where there are very many of them."""

from __future__ import annotations

import numpy as np

from probeline.errors import ProbelineError
from probeline.lrsl.label_vectors import LabelVectors

# Among very many labels so many of the classifier's top ones and of the nearest are candidates.
CANDIDATES = 100
# Up to here one matrix product is quicker than an index, or as quick.
EXACT_BELOW = 20_000
_NUMBERS_AT_ONCE = 1 << 24
# Of 4 sqrt(m) cells an eighth is searched: recall above 0.95 on clustered vectors (a test).
_CELLS, _PROBED = 4, 8
_SEED = 1234


def nearest(
    queries: np.ndarray, vectors: np.ndarray, m: int, exact_below: int = EXACT_BELOW
) -> tuple[np.ndarray, np.ndarray]:
    """The `m` vectors of largest cosine for each query.

    With fewer than `exact_below` vectors all are compared; else faiss looks for them in an inverted
    file (IVF: Jégou, Douze and Schmid 2011), which finds most of them in a fraction of the time.

    Parameters
    ----------
    queries : ndarray of float32, shape (n, d)
    vectors : ndarray of float32, shape (v, d)
        Rows of both have length 1.
    m : int
        All, if it is larger than v.

    Returns
    -------
    indices : ndarray of int64, shape (n, min(m, v))
        By descending cosine; of equal ones, in an exact search, the smaller index first.
    cosines : ndarray of float32, of that shape

    Raises
    ------
    ProbelineError
        If m is below 1, or the widths differ.
    """
    if m < 1:
        raise ProbelineError(f"nearest neighbours: expected 1 or more, found {m}")
    if queries.shape[1] != vectors.shape[1]:
        raise ProbelineError(
            f"nearest neighbours: queries of width {queries.shape[1]}, vectors of width "
            f"{vectors.shape[1]}; embed both with the same embedder"
        )
    queries, vectors = (np.ascontiguousarray(X, dtype=np.float32) for X in (queries, vectors))
    m = min(m, len(vectors))
    if len(vectors) < exact_below:
        return _exact(queries, vectors, m)
    return _indexed(queries, vectors, m)


def _exact(queries: np.ndarray, vectors: np.ndarray, m: int) -> tuple[np.ndarray, np.ndarray]:
    indices = np.empty((len(queries), m), dtype=np.int64)
    cosines = np.empty((len(queries), m), dtype=np.float32)
    step = max(1, _NUMBERS_AT_ONCE // len(vectors))
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        found = queries[part] @ vectors.T
        indices[part] = _largest(found, m)
        cosines[part] = np.take_along_axis(found, indices[part], axis=1)
    return indices, cosines


def _largest(values: np.ndarray, m: int) -> np.ndarray:
    """Columns of the `m` largest values of each row, largest first, of equal ones the first."""
    if m == 1:
        return values.argmax(axis=1)[:, None]
    if m * 8 > values.shape[1]:
        return np.argsort(-values, axis=1, kind="stable")[:, :m]
    last = np.partition(values, -m, axis=1)[:, -m : -m + 1]
    chosen, equal = values > last, values == last
    # Of those equal to the last one, the first are taken.
    chosen |= equal & (np.cumsum(equal, axis=1) <= m - chosen.sum(axis=1, keepdims=True))
    some = np.nonzero(chosen)[1].reshape(len(values), m)
    order = np.argsort(-np.take_along_axis(values, some, axis=1), axis=1, kind="stable")
    return np.take_along_axis(some, order, axis=1)


def _indexed(queries: np.ndarray, vectors: np.ndarray, m: int) -> tuple[np.ndarray, np.ndarray]:
    import faiss

    cells = max(1, min(int(_CELLS * np.sqrt(len(vectors))), len(vectors)))
    width = vectors.shape[1]
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, cells, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = _SEED
    index.cp.spherical = True
    index.cp.min_points_per_centroid = 1  # fewer only make faiss print a warning
    index.train(vectors)
    index.add(vectors)
    index.nprobe = max(1, cells // _PROBED)
    cosines, indices = index.search(queries, m)
    # The cells that were searched may hold fewer than m vectors.
    few = np.flatnonzero((indices < 0).any(axis=1))
    if len(few):
        indices[few], cosines[few] = _exact(queries[few], vectors, m)
    return indices, cosines


def candidate_labels(logits: np.ndarray, k: int, near: np.ndarray) -> np.ndarray:
    """The labels among which a text's winner is looked for, where there are very many.

    Parameters
    ----------
    logits : ndarray, shape (n, K)
    k : int
        So many of the classifier's top labels are candidates.
    near : ndarray of int64, shape (n, m)
        Labels that are nearest to the text, which are candidates too.

    Returns
    -------
    ndarray of bool, shape (n, K)

    Raises
    ------
    ProbelineError
        If k is larger than K.
    """
    if k > logits.shape[1]:
        raise ProbelineError(
            f"lrsl.k: {k} is more than the {logits.shape[1]} labels there are; set it to at most "
            f"{logits.shape[1]}"
        )
    found = np.zeros(logits.shape, dtype=bool)
    if k:
        np.put_along_axis(found, _largest(logits, k), True, axis=1)
    np.put_along_axis(found, near, True, axis=1)
    return found


def candidate_similarities(
    embeddings: np.ndarray,
    labels: LabelVectors,
    logits: np.ndarray,
    k: int,
    m: int,
    exact_below: int = EXACT_BELOW,
) -> np.ndarray:
    """Cosines to the candidate labels alone; 0 to all others.

    Parameters
    ----------
    embeddings : ndarray of float32, shape (n, d)
        Rows of length 1.
    labels : LabelVectors
    logits : ndarray, shape (n, K)
    k, m : int
        Candidates are the classifier's k top labels and those of the m nearest label vectors.

    Returns
    -------
    ndarray of float32, shape (n, K)
    """
    labels.check_width(embeddings)
    near, _ = nearest(embeddings, labels.vectors, m, exact_below)
    row, label = np.nonzero(candidate_labels(logits, k, labels.owner[near]))
    found = np.zeros(logits.shape, dtype=np.float32)
    found[row, label] = _pairwise(embeddings, labels, row, label)
    return found


def label_similarities(
    embeddings: np.ndarray,
    labels: LabelVectors,
    logits: np.ndarray | None,
) -> np.ndarray:
    """Cosines to all labels, or among very many to those that are likely to win.

    Parameters
    ----------
    embeddings : ndarray of float32, shape (n, d)
        Rows of length 1.
    labels : LabelVectors
    logits : ndarray, shape (n, K), or None
        The classifier's; None wherever cosines to all labels are needed. With them, from
        `EXACT_BELOW` labels on, its `CANDIDATES` top labels and those of as many nearest label
        vectors have their cosine, and all others have 0.

    Returns
    -------
    ndarray of float32, shape (n, K)
    """
    if logits is None or labels.labels < EXACT_BELOW:
        return labels.similarities(embeddings)
    k = min(CANDIDATES, labels.labels)
    return candidate_similarities(embeddings, labels, logits, k, CANDIDATES, EXACT_BELOW)


def narrows(form: str, candidates: int | None) -> bool:
    """Whether a reranking among `candidates` labels (None: all) may leave most of them out.

    In these forms a label of similarity 0 never wins. In `paper-logits` its score is above a
    negative logit's, and the combiner may give it any.
    """
    return candidates is None and form in ("prob", "mix", "paper-banking77")


def _pairwise(
    embeddings: np.ndarray, labels: LabelVectors, row: np.ndarray, label: np.ndarray
) -> np.ndarray:
    """Cosine of each (row, label), of a label's vectors the largest: float32, shape (pairs,)."""
    starts = np.searchsorted(labels.owner, np.arange(labels.labels))
    counts = np.bincount(labels.owner, minlength=labels.labels)
    best = np.full(len(row), -np.inf, dtype=np.float32)
    step = max(1, _NUMBERS_AT_ONCE // embeddings.shape[1])
    for number in range(counts.max()):
        pairs = np.flatnonzero(counts[label] > number)
        for start in range(0, len(pairs), step):
            part = pairs[start : start + step]
            texts = np.asarray(embeddings[row[part]], dtype=np.float32)
            vectors = labels.vectors[starts[label[part]] + number]
            best[part] = np.maximum(best[part], np.einsum("ij,ij->i", texts, vectors))
    return best
