"""Stratified subsamples of a split: `max_texts`."""

from __future__ import annotations

import numpy as np

from probeline.data.splits import (
    apportion,
    by_appearance,
    by_content,
    generator,
    members_of,
    multilabel_subset,
)
from probeline.errors import ProbelineError


def subsample(
    rows: np.ndarray,
    most: int,
    seed: int,
    purpose: str,
    *,
    strata: np.ndarray | None = None,
    has: np.ndarray | None = None,
    every_class: bool = False,
) -> np.ndarray:
    """Return at most `most` of `rows`, stratified, in their order.

    Parameters
    ----------
    rows : numpy.ndarray
        int64 (n,): row numbers of one split.
    most : int
    seed : int
    purpose : str
        The split's name: part of the random state.
    strata : numpy.ndarray, optional
        int64 (n,): class of each of `rows`.
    has : numpy.ndarray, optional
        bool (n, K), for multi-label tasks, in place of `strata`.
    every_class : bool
        Keep at least one text of every class (train needs it).

    Raises
    ------
    ProbelineError
        If `most` is smaller than the number of classes that must stay.
    """
    if most >= len(rows):
        return rows
    present = np.unique(strata).size if has is None else int(has.any(axis=0).sum())
    if every_class and most < present:
        raise ProbelineError(
            f"max_texts: {most} texts of {purpose} cannot hold all {present} classes; raise it"
        )
    rng = generator(seed, f"max_texts {purpose}")
    if has is not None:
        has = by_content(has)
        chosen = _exactly(multilabel_subset(has, most, seed), has, most, every_class, rng)
        return rows[np.sort(chosen)]
    stratum = by_appearance(strata)
    totals = np.bincount(stratum)
    low = np.full(len(totals), int(every_class))
    counts = apportion(most, totals, low, totals)
    chosen = [
        rng.permutation(members)[:count]
        for members, count in zip(members_of(stratum), counts, strict=True)
    ]
    return rows[np.sort(np.concatenate(chosen))]


def _exactly(
    chosen: np.ndarray, has: np.ndarray, size: int, every_class: bool, rng: np.random.Generator
) -> np.ndarray:
    """Mend an approximate multi-label subset: exactly `size` rows, and every label if asked."""
    chosen = set(chosen.tolist())
    if every_class:
        for label in np.flatnonzero(has.any(axis=0)):
            rows = np.flatnonzero(has[:, label])
            if chosen.isdisjoint(rows.tolist()):
                chosen.add(int(rng.choice(rows)))
    counts = has[sorted(chosen)].sum(axis=0)
    for row in rng.permutation(sorted(chosen)).tolist():
        if len(chosen) <= size:
            break
        if not every_class or (counts[has[row]] > 1).all():
            chosen.remove(row)
            counts = counts - has[row]
    spare = np.setdiff1d(np.arange(len(has)), sorted(chosen))
    missing = max(0, size - len(chosen))
    chosen.update(rng.permutation(spare)[:missing].tolist())
    return np.array(sorted(chosen), dtype=np.int64)
