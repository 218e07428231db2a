"""Cuts: sizes, class balance, copies kept together, the datasets library's own split."""

from __future__ import annotations

import datasets
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from probeline.data.splits import apportion, cut, group_copies
from probeline.data.subsample import subsample
from probeline.errors import ProbelineError

FIFTHS = {"validation": 0.2, "test": 0.2}


def names(count):
    return [f"class{code}" for code in range(count)]


def partition(splits, rows):
    """All rows, each once."""
    assert np.array_equal(np.sort(np.concatenate(list(splits.values()))), np.arange(rows))


def test_copies_are_exact_copies_and_pairs_are_wholes():
    texts = pa.table({"text": pa.array(["a", "b", "a", "a ", "b"], pa.large_string())})
    assert group_copies(texts).tolist() == [0, 1, 0, 2, 1]
    pairs = texts.append_column("text_pair", pa.array(["x", "x", "y", "x", "x"]))
    assert group_copies(pairs).tolist() == [0, 1, 2, 3, 1]


@given(
    st.integers(0, 60),
    st.lists(st.integers(1, 50), min_size=1, max_size=8),
    st.integers(0, 1),
)
def test_apportion_keeps_its_bounds_and_its_sum(total, sizes, low):
    sizes = np.array(sizes)
    low = np.full(len(sizes), low)
    counts = apportion(total, sizes, low, sizes)
    assert (counts >= low).all() and (counts <= sizes).all()
    assert counts.sum() == min(max(total, low.sum()), sizes.sum())
    shares = total * sizes / sizes.sum()
    if low.max() == 0 and total <= sizes.sum():
        assert (np.abs(counts - shares) < 1 + 1e-9).all()


@given(
    st.lists(st.integers(3, 40), min_size=2, max_size=6),
    st.sampled_from([0.1, 0.2, 0.25]),
    st.sampled_from([0.1, 0.2, 0.3]),
    st.integers(0, 5),
)
@example([3, 3, 3, 31], 0.1, 0.1, 0)
def test_a_stratified_cut_is_exact(sizes, validation, test, seed):
    strata = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    rows = len(strata)
    splits = cut(
        rows,
        {"validation": validation, "test": test},
        "stratified",
        seed,
        strata=strata,
        names=names(len(sizes)),
    )
    partition(splits, rows)
    for split, share in (("validation", validation), ("test", test)):
        size = int(np.ceil(share * rows - 1e-9))
        present = np.bincount(strata[splits[split]], minlength=len(sizes))
        if size >= len(sizes):
            assert (present >= 1).all()
            # A guaranteed text per class can push the total up, never down.
            assert size <= len(splits[split]) <= size + len(sizes)
        # What small classes get beyond their share is taken from the large ones.
        lifted = np.maximum(0, 1 - share * np.array(sizes)).sum()
        assert (np.abs(present - share * np.array(sizes)) <= 2 + lifted).all()
        assert (np.diff(splits[split]) > 0).all()
    assert (np.bincount(strata[splits["train"]], minlength=len(sizes)) >= 1).all()


def test_the_seed_decides_and_nothing_else():
    strata = np.arange(300) % 3
    cuts = [
        cut(300, FIFTHS, method, seed, strata=strata, names=names(3))["test"].tolist()
        for method in ("stratified", "random", "datasets")
        for seed in (1, 1, 2)
    ]
    for method in range(3):
        same, again, other = cuts[3 * method : 3 * method + 3]
        assert same == again != other


def test_a_cut_is_not_a_pattern_of_positions():
    splits = cut(3000, FIFTHS, "stratified", 0, strata=np.zeros(3000, dtype=int), names=["x"])
    # 600 of 3000 drawn at random: mean 1499.5, standard deviation 31.6.
    assert abs(splits["test"].mean() - 1499.5) < 4 * 31.6
    assert len(np.unique(splits["test"] % 5)) == 5
    gaps = np.diff(splits["test"])
    assert gaps.max() > 10 and (gaps == 1).mean() == pytest.approx(0.2, abs=0.07)


@settings(deadline=None)
@given(st.data())
def test_copies_stay_together(data):
    rows = data.draw(st.integers(30, 120))
    texts = data.draw(st.lists(st.integers(0, rows // 2), min_size=rows, max_size=rows))
    groups = np.unique(texts, return_inverse=True)[1]
    strata = np.array(data.draw(st.lists(st.integers(0, 2), min_size=rows, max_size=rows)))
    method = data.draw(st.sampled_from(["stratified", "random"]))
    try:
        splits = cut(rows, FIFTHS, method, 0, groups=groups, strata=strata, names=names(3))
    except ProbelineError as error:
        assert "distinct text" in str(error)
        return
    partition(splits, rows)
    of_row = np.empty(rows, dtype=int)
    for code, part in enumerate(splits.values()):
        of_row[part] = code
    for group in range(groups.max() + 1):
        assert len(np.unique(of_row[groups == group])) == 1
    if method == "stratified":
        first = np.unique(groups, return_index=True)[1]
        for part in splits.values():
            assert set(strata[np.intersect1d(first, part)]) == set(strata[first])


def test_copies_are_dealt_in_proportion():
    groups = np.repeat(np.arange(500), 2)
    splits = cut(
        1000, FIFTHS, "stratified", 0, groups=groups, strata=np.zeros(1000, int), names=["x"]
    )
    assert {split: len(part) for split, part in splits.items()} == {
        "test": 200,
        "validation": 200,
        "train": 600,
    }


def test_finer_levels_are_spread_inside_a_stratum():
    strata = np.repeat([0, 1], [400, 600])
    within = np.repeat(np.arange(10), 100)
    splits = cut(1000, FIFTHS, "stratified", 3, strata=strata, within=within, names=names(2))
    assert np.bincount(strata[splits["test"]]).tolist() == [80, 120]
    assert (np.abs(np.bincount(within[splits["test"]]) - 20) <= 1).all()


@pytest.mark.parametrize("share", [0.03, 0.2, 0.1, 1 / 3])
@pytest.mark.parametrize("rows", [30, 101])
def test_the_datasets_library_s_split_is_reproduced(share, rows):
    data = datasets.Dataset.from_dict({"row": list(range(rows))})
    theirs = data.train_test_split(test_size=share, seed=42)
    ours = cut(rows, {"validation": share}, "datasets", 42)
    assert ours["train"].tolist() == theirs["train"]["row"][:]
    assert ours["validation"].tolist() == theirs["test"]["row"][:]


def test_two_cuts_of_the_datasets_library():
    data = datasets.Dataset.from_dict({"row": list(range(97))})
    first = data.train_test_split(test_size=0.2, seed=7)
    # 0.1 of the whole is ten texts of the 77 that are left.
    second = first["train"].train_test_split(test_size=10, seed=7)
    ours = cut(97, {"validation": 0.1, "test": 0.2}, "datasets", 7)
    assert ours["test"].tolist() == first["test"]["row"][:]
    assert ours["validation"].tolist() == second["test"]["row"][:]
    assert ours["train"].tolist() == second["train"]["row"][:]


def multilabel(rows, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((rows, 5)) < np.array([0.5, 0.3, 0.1, 0.05, 0.02])


def test_iterative_stratification_of_several_labels():
    has = multilabel(2000)
    groups = np.arange(2000)
    groups[1000:1100] = groups[:100]
    groups = np.unique(groups, return_inverse=True)[1]
    has[1000:1100] = has[:100]
    splits = cut(2000, FIFTHS, "stratified", 1, groups=groups, has=has, names=names(5))
    partition(splits, 2000)
    for split in ("validation", "test"):
        assert len(splits[split]) == pytest.approx(400, abs=25)
        assert has[splits[split]].sum(axis=0) == pytest.approx(0.2 * has.sum(axis=0), abs=12)
        assert not set(groups[splits[split]]) & set(groups[splits["train"]])


@pytest.mark.parametrize(
    ("rows", "keys", "message"),
    [
        (
            10,
            {"strata": np.array([0] * 8 + [1] * 2), "names": ["a", "b"]},
            "label 'b': 2 distinct texts, fewer than the 3 splits to be made",
        ),
        (
            10,
            {
                "strata": np.array([0] * 6 + [1] * 4),
                "groups": np.array([0, 1, 2, 3, 4, 5, 6, 6, 6, 6]),
                "names": ["a", "b"],
            },
            "label 'b': 1 distinct text, fewer than the 3 splits",
        ),
        (
            12,
            {"strata": np.array([0] * 6 + [1] * 5 + [-1]), "names": ["a", "b"]},
            "texts without a label on the first level: 1 distinct text, fewer",
        ),
        (
            8,
            {
                "has": np.eye(8, 2, dtype=bool) | (np.arange(8) > 2)[:, None] * [True, False],
                "names": ["a", "b"],
            },
            "label 'b': 1 distinct text, fewer than the 3 splits",
        ),
        (2, {"strata": np.array([0, 1]), "names": ["a", "b"]}, "of 2 texts leave none for train"),
    ],
)
def test_cuts_that_cannot_be_made(rows, keys, message):
    with pytest.raises(ProbelineError) as caught:
        cut(rows, FIFTHS, "stratified", 0, **keys)
    assert message in str(caught.value)


def test_an_unknown_method():
    with pytest.raises(ProbelineError, match=r"split_method: 'stratify' is not one of .*'stratif"):
        cut(10, FIFTHS, "stratify", 0)


@given(st.integers(1, 200), st.booleans(), st.integers(0, 3))
def test_a_subsample_is_stratified_and_never_larger(most, every_class, seed):
    strata = np.repeat([0, 1, 2], [100, 17, 3])
    rows = np.arange(1000, 1120)
    if every_class and most < 3:
        with pytest.raises(ProbelineError, match="cannot hold all 3 classes"):
            subsample(rows, most, seed, "train", strata=strata, every_class=True)
        return
    chosen = subsample(rows, most, seed, "train", strata=strata, every_class=every_class)
    assert len(chosen) == min(most, 120)
    assert (np.diff(chosen) > 0).all() and set(chosen) <= set(rows)
    counts = np.bincount(strata[chosen - 1000], minlength=3)
    # What the guaranteed texts of small classes take, the others give.
    slack = 3 if every_class else 1
    shares = len(chosen) * np.array([100, 17, 3]) / 120
    assert (np.abs(counts - shares) <= slack + 1e-9).all()
    assert not every_class or counts.min() >= 1


@pytest.mark.parametrize("most", [5, 20, 101, 499, 500])
def test_a_subsample_with_several_labels(most):
    has = multilabel(500)
    chosen = subsample(np.arange(500), most, 0, "train", has=has, every_class=True)
    assert len(chosen) == most and len(set(chosen)) == most
    counts = has[chosen].sum(axis=0)
    assert counts.min() >= 1
    if most > 50:
        assert counts == pytest.approx(has.sum(axis=0) * most / 500, abs=4)


def test_a_subsample_of_texts_without_labels():
    has = np.zeros((50, 3), dtype=bool)
    assert len(subsample(np.arange(50), 20, 0, "test", has=has)) == 20
