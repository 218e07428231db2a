"""Cutting validation and test from train, with copies of a text kept together."""

from __future__ import annotations

import math
import zlib

import numpy as np
import pyarrow as pa

from probeline.errors import ProbelineError, one_of

METHODS = ("stratified", "random", "datasets")


def generator(seed: int, purpose: str) -> np.random.Generator:
    """Return a generator for one purpose, independent of those for others."""
    return np.random.default_rng([seed, zlib.crc32(purpose.encode())])


def group_copies(texts: pa.Table) -> np.ndarray:
    """Number the distinct texts (pairs as wholes) in order of appearance.

    Parameters
    ----------
    texts : pyarrow.Table
        Columns ``text`` and perhaps ``text_pair``.

    Returns
    -------
    numpy.ndarray
        int64 (rows,): rows with the same number hold exactly the same text.
    """
    group = np.zeros(texts.num_rows, dtype=np.int64)
    for column in texts.columns:
        encoded = column.combine_chunks().dictionary_encode()
        group = group * len(encoded.dictionary) + encoded.indices.to_numpy()
    _, first, inverse = np.unique(group, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


def by_appearance(values: np.ndarray) -> np.ndarray:
    """Number distinct values in order of first appearance, int64.

    Random draws go by these numbers, so that other label names draw the same rows.
    """
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse.reshape(-1)]


def by_content(has: np.ndarray) -> np.ndarray:
    """Return bool (n, K) with its columns in an order that does not depend on the given one."""
    order = sorted(range(has.shape[1]), key=lambda column: has[:, column].tobytes())
    return has[:, order]


def cut(
    rows: int,
    fractions: dict[str, float],
    method: str,
    seed: int,
    *,
    groups: np.ndarray | None = None,
    strata: np.ndarray | None = None,
    within: np.ndarray | None = None,
    has: np.ndarray | None = None,
    names: list[str] | None = None,
) -> dict[str, np.ndarray]:
    """Cut shares off a pool of rows; what is left is train.

    Parameters
    ----------
    rows : int
        Size of the pool.
    fractions : dict
        {"validation" and/or "test": share of the whole pool in (0, 1)}. Test is cut first.
    method : str
        ``stratified``: by `strata`, or by `has` with iterative stratification (Sechidis,
        Tsoumakas and Vlahavas 2011). ``random``: by nothing. ``datasets``: exactly the rows, in
        the order, of ``datasets.Dataset.train_test_split(test_size=fraction, seed=seed)``; a
        second cut takes ``test_size`` as the number of rows that is its share of the whole.
    seed : int
    groups : numpy.ndarray, optional
        int64 (rows,): rows of one number stay together. Not used by ``datasets``.
    strata : numpy.ndarray, optional
        int64 (rows,), from 0 (a level's undefined rows may be -1).
    within : numpy.ndarray, optional
        int64 (rows,): finer classes, spread evenly inside each stratum.
    has : numpy.ndarray, optional
        bool (rows, K), for multi-label tasks, in place of `strata`.
    names : list of str, optional
        Names of the strata, or of the columns of `has`, for messages.

    Returns
    -------
    dict of str to numpy.ndarray
        int64 row numbers of train and of each share; in the pool's order except for ``datasets``.

    Raises
    ------
    ProbelineError
        A share that leaves a split empty; under ``stratified`` a class with fewer distinct texts
        than there are splits.
    """
    if method not in METHODS:
        raise ProbelineError(f"split_method: {one_of(method, METHODS)}")
    # Rounded up like scikit-learn and datasets, but 0.1 * 30 is 3 here.
    sizes = {split: math.ceil(share * rows - 1e-9) for split, share in fractions.items()}
    if sum(sizes.values()) >= rows:
        raise ProbelineError(
            f"splits: shares {', '.join(f'{s} {f}' for s, f in fractions.items())} of {rows} texts "
            "leave none for train"
        )
    order = [split for split in ("test", "validation") if split in fractions]
    if method == "datasets":
        return _like_datasets(rows, {split: fractions[split] for split in order}, seed)
    groups = np.arange(rows) if groups is None else groups
    if method == "random":
        strata, within, has = np.zeros(rows, dtype=np.int64), None, None
    elif has is not None:
        _enough_texts(groups, has, len(order) + 1, names)
        return _iterative(groups, has, {split: sizes[split] for split in order}, seed)
    else:
        present = np.unique(strata)
        places = np.searchsorted(present, strata[_firsts(groups)])
        counts = np.bincount(places, minlength=len(present))
        for code, count in zip(present, counts, strict=True):
            _refuse_rare(int(count), len(order) + 1, names[code] if code >= 0 else None)
    splits = deal(groups, strata, within, [sizes[split] for split in order], seed)
    parts = dict(zip([*order, "train"], range(len(order) + 1), strict=True))
    return {split: np.flatnonzero(splits == part) for split, part in parts.items()}


def _like_datasets(rows: int, fractions: dict[str, float], seed: int) -> dict[str, np.ndarray]:
    left, splits = np.arange(rows), {}
    for split, share in fractions.items():
        size = math.ceil(share * rows)
        order = np.random.default_rng(seed).permutation(len(left))
        splits[split], left = left[order[:size]], left[order[size:]]
    return {**splits, "train": left}


def _firsts(groups: np.ndarray) -> np.ndarray:
    """Return the first row of each group, in order of group number."""
    return np.unique(groups, return_index=True)[1]


def members_of(stratum: np.ndarray) -> list[np.ndarray]:
    """Return the rows of each stratum, numbered from 0 without gaps, in order."""
    order = np.argsort(stratum, kind="stable")
    return np.split(order, np.cumsum(np.bincount(stratum))[:-1])


def _refuse_rare(count: int, splits: int, name: str | None) -> None:
    if count < splits:
        label = "texts without a label on the first level" if name is None else f"label '{name}'"
        raise ProbelineError(
            f"{label}: {count} distinct text{'s' * (count != 1)}, fewer than the {splits} splits "
            "to be made; add texts, remove the class, or name files for the splits"
        )


def _enough_texts(groups: np.ndarray, has: np.ndarray, splits: int, names: list[str]) -> None:
    counts = has[_firsts(groups)].sum(axis=0)
    for code in np.flatnonzero((counts < splits) & (has.sum(axis=0) > 0)):
        _refuse_rare(int(counts[code]), splits, names[code])


def _iterative(
    groups: np.ndarray, has: np.ndarray, sizes: dict[str, int], seed: int
) -> dict[str, np.ndarray]:
    """Cut with iterative stratification over groups, each standing for its first row."""
    firsts, has = _firsts(groups), by_content(has)
    left, of_group = np.arange(len(firsts)), np.full(len(firsts), "train", dtype=object)
    for split, size in sizes.items():
        chosen = multilabel_subset(has[firsts][left], size * len(firsts) / len(groups), seed)
        of_group[left[chosen]] = split
        left = np.delete(left, chosen)
    return {split: np.flatnonzero(of_group[groups] == split) for split in [*sizes, "train"]}


def multilabel_subset(has: np.ndarray, size: float, seed: int) -> np.ndarray:
    """Return about `size` row numbers with about the label shares of the whole."""
    from iterstrat.ml_stratifiers import MultilabelStratifiedShuffleSplit

    if not has.any():
        return generator(seed, "rows without labels").permutation(len(has))[: round(size)]
    size = min(max(1, round(size)), len(has) - 1)
    splitter = MultilabelStratifiedShuffleSplit(n_splits=1, test_size=size, random_state=seed)
    return next(splitter.split(has, has.astype(np.int8)))[1]


def apportion(total: int, sizes: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Share `total` out in proportion to `sizes` as integers between `low` and `high`.

    The largest remainders round up. The sum is `total`, unless the bounds forbid it.
    """
    shares = total * sizes / sizes.sum()
    counts = np.clip(np.floor(shares + 1e-9).astype(np.int64), low, high)
    while counts.sum() < total and (counts < high).any():
        counts[np.argmax(np.where(counts < high, shares - counts, -np.inf))] += 1
    while counts.sum() > total and (counts > low).any():
        counts[np.argmin(np.where(counts > low, shares - counts, np.inf))] -= 1
    return counts


def deal(
    groups: np.ndarray,
    strata: np.ndarray,
    within: np.ndarray | None,
    sizes: list[int],
    seed: int,
) -> np.ndarray:
    """Give each group to one of len(sizes) + 1 splits, stratum by stratum.

    Each stratum gives each split its proportional part, at least one group where the split is
    large enough for all strata. With copies (groups of several rows) sizes are met as closely as
    whole groups allow.

    Returns
    -------
    numpy.ndarray
        int64 (rows,): the split of each row; the last split takes what `sizes` leave.
    """
    rng = generator(seed, "split")
    firsts = _firsts(groups)
    weights = np.bincount(groups)
    stratum = by_appearance(strata[firsts])
    totals = np.bincount(stratum, weights=weights).astype(np.int64)
    quotas, room = [], totals - 1
    for size in sizes:
        low = np.minimum(int(size >= len(totals)), room)
        quotas.append(apportion(size, totals, low, room))
        room = room - quotas[-1]
    quotas.append(totals - sum(quotas))
    fine = by_appearance(np.zeros(len(firsts)) if within is None else within[firsts])
    of_group = np.empty(len(firsts), dtype=np.int64)
    for place, members in enumerate(members_of(stratum)):
        members = rng.permutation(members)
        members = members[np.argsort(fine[members], kind="stable")]
        quota = np.array([q[place] for q in quotas])
        of_group[members] = _deal_stratum(weights[members], quota)
    return of_group[groups]


def _deal_stratum(weights: np.ndarray, quota: np.ndarray) -> np.ndarray:
    """Deal groups, in the order given, so that every stretch of them is near the quotas."""
    splits = np.empty(len(weights), dtype=np.int64)
    share, have = quota / quota.sum(), np.zeros(len(quota))
    several = np.flatnonzero(weights > 1)
    for done, group in enumerate(several):
        size = weights[group]
        fits = have + size <= quota
        wanted = share * (weights[several[: done + 1]].sum()) - have
        best = np.argmax(np.where(fits, wanted, -np.inf)) if fits.any() else np.argmax(quota - have)
        splits[group], have[best] = best, have[best] + size
    single = np.flatnonzero(weights == 1)
    left = np.maximum(quota - have, 0).astype(np.int64)
    while left.sum() > len(single):
        left[np.argmax(left)] -= 1
    # Split s gets its i-th text at (i + 1/2) / left[s] of the way: evenly spread.
    at = np.concatenate([(np.arange(n) + 0.5) / n for n in left if n] or [np.zeros(0)])
    owner = np.repeat(np.arange(len(left)), left)
    splits[single] = owner[np.argsort(at, kind="stable")]
    return _fill_empty(splits, quota)


def _fill_empty(splits: np.ndarray, quota: np.ndarray) -> np.ndarray:
    """Move one group to each split that large groups left without any."""
    for split in np.flatnonzero(quota > 0):
        counts = np.bincount(splits, minlength=len(quota))
        if counts[split] == 0 and counts.max() > 1:
            splits[np.flatnonzero(splits == counts.argmax())[-1]] = split
    return splits
