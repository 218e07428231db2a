"""Triplets against a loop over texts; the true label never stands as a negative."""

from __future__ import annotations

import logging

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probeline.errors import ProbelineError
from probeline.lrsl.triplets import mine, read_triplets, write_triplets

OPTIONS = {"k": 3, "per_text": None, "hard_only": False, "per_class": None}
NAMES = ["art", "bank", "cat", "door", "egg", "fog", "gold"]


def texts_of(names) -> list[tuple[str, ...]]:
    """One to three texts of each label, none of them of two labels."""
    return [tuple(f"{name} {i}" for i in range(1 + code % 3)) for code, name in enumerate(names)]


def mined(y, logits, seed=0, hard=None, **options):
    y, logits = np.asarray(y), np.asarray(logits, np.float32)
    names = NAMES[: logits.shape[1]]
    rows = 100 + np.arange(len(y))
    texts = [f"text {row}" for row in rows]
    options = OPTIONS | options
    return mine(rows, texts, y, logits, names, texts_of(names), options, seed, hard).to_pylist()


def by_loop(y, logits, k, per_text=None) -> list[tuple]:
    """(row, positive, negative, rank, gap), text by text."""
    found = []
    for i, (own, z) in enumerate(zip(y, logits, strict=True)):
        true = np.flatnonzero(own).tolist() if np.ndim(own) else [int(own)]
        order = sorted(range(len(z)), key=lambda c: (-z[c], c))
        top = order[: max(k + len(true) - 1, 0)]
        wrong = [c for c in top if c not in true][:per_text]
        for t in true:
            found += [(100 + i, NAMES[t], NAMES[c], order.index(c) + 1, z[t] - z[c]) for c in wrong]
    return found


def keys(triplets) -> list[tuple]:
    names = ("row", "label", "negative_label", "rank", "logit_gap")
    return [tuple(triplet[name] for name in names) for triplet in triplets]


def random_case(multilabel: bool, n=60, K=7, seed=0):
    rng = np.random.default_rng(seed)
    # Whole numbers, so that there are ties.
    logits = rng.integers(-4, 5, (n, K)).astype(np.float32)
    return (rng.random((n, K)) < 0.3 if multilabel else rng.integers(0, K, n)), logits


@st.composite
def cases(draw):
    n, K = draw(st.integers(1, 12)), draw(st.integers(2, 7))
    multilabel = draw(st.booleans())
    y, logits = random_case(multilabel, n, K, draw(st.integers(0, 10_000)))
    options = {
        "k": draw(st.integers(1, K)),
        "per_text": draw(st.none() | st.integers(1, K)),
        "hard_only": draw(st.booleans()),
        "per_class": draw(st.none() | st.integers(1, 4)),
    }
    return y, logits, options, draw(st.integers(0, 99))


@settings(deadline=None)
@given(cases())
def test_the_true_label_is_never_a_negative(case):
    y, logits, options, seed = case
    names = NAMES[: logits.shape[1]]
    own = dict(zip(names, texts_of(names), strict=True))
    for triplet in mined(y, logits, seed, **options):
        code = y[triplet["row"] - 100]
        true = [names[c] for c in (np.flatnonzero(code) if y.ndim == 2 else [code])]
        assert triplet["label"] in true
        assert triplet["negative_label"] not in true
        assert triplet["positive"] in own[triplet["label"]]
        assert triplet["negative"] in own[triplet["negative_label"]]
        assert all(triplet["negative"] not in own[label] for label in true)


@pytest.mark.parametrize("per_text", [None, 1, 2])
@pytest.mark.parametrize("k", [1, 3, 7])
@pytest.mark.parametrize("multilabel", [False, True])
def test_equal_a_loop(multilabel, k, per_text):
    y, logits = random_case(multilabel)
    assert keys(mined(y, logits, k=k, per_text=per_text)) == by_loop(y, logits, k, per_text)


def test_by_hand():
    y, logits = [1, 0, 0], [[3, 1, 2, -9], [5, -1, 0, 1], [0, 1, 2, 3]]
    assert keys(mined(y, logits, k=2)) == [
        (100, "bank", "art", 1, -2),
        (100, "bank", "cat", 2, -1),
        (101, "art", "door", 2, 4),
        (102, "art", "door", 1, -3),
        (102, "art", "cat", 2, -2),
    ]


@pytest.mark.parametrize("multilabel", [False, True])
def test_only_hard_texts(multilabel):
    y, logits = random_case(multilabel)
    if multilabel:
        logits[::2] = np.abs(logits[::2]) * np.where(y[::2], 1, -1) + y[::2]
    hard = np.arange(len(y)) % 4 == 0
    whole = keys(mined(y, logits))
    if multilabel:
        wrong = [
            i
            for i in range(len(y))
            if set(np.flatnonzero(y[i])) != set(np.flatnonzero(logits[i] > 0))
        ]
    else:
        wrong = [i for i in range(len(y)) if logits[i].argmax() != y[i]]
    right = [100 + i for i in range(len(y)) if i not in wrong]
    assert right, "a case that tests nothing"
    assert keys(mined(y, logits, hard_only=True)) == [t for t in whole if t[0] not in right]
    marked = [t for t in whole if t[0] not in right or hard[t[0] - 100]]
    assert keys(mined(y, logits, hard_only=True, hard=hard)) == marked
    assert keys(mined(y, logits, hard=hard)) == whole


@pytest.mark.parametrize("multilabel", [False, True])
def test_texts_per_class_are_capped(multilabel):
    y, logits = random_case(multilabel, n=200)
    whole, capped = keys(mined(y, logits)), keys(mined(y, logits, per_class=5))
    of = {name: {t[0] for t in whole if t[1] == name} for name in NAMES}
    drawn = {name: {t[0] for t in capped if t[1] == name} for name in NAMES}
    assert {name: len(rows) for name, rows in drawn.items()} == {n: min(5, len(of[n])) for n in of}
    # An anchor keeps all of its negatives.
    assert capped == [t for t in whole if t[0] in drawn[t[1]]]
    assert keys(mined(y, logits, per_class=5)) == capped
    assert keys(mined(y, logits, seed=1, per_class=5)) != capped


def test_label_texts_are_drawn_by_the_seed():
    y, logits = random_case(False, n=400)
    first, again, other = (mined(y, logits, seed) for seed in (0, 0, 1))
    assert first == again
    assert keys(first) == keys(other)
    for column in ("positive", "negative"):
        assert [t[column] for t in first] != [t[column] for t in other]
        drawn = [t[column] for t in first if t[column].startswith("cat")]
        shares = [drawn.count(f"cat {i}") / len(drawn) for i in range(3)]
        assert min(shares) > 0.2


def test_texts_without_scores_are_left_out(caplog):
    y, logits = random_case(False)
    logits[::3] = np.nan
    with caplog.at_level(logging.WARNING):
        found = keys(mined(y, logits))
    assert found == [t for t in by_loop(y, logits, 3) if (t[0] - 100) % 3]
    assert "20 of 60 training texts have no scores" in caplog.text
    with pytest.raises(ProbelineError, match="none of the training texts has scores"):
        mined(y, np.full_like(logits, np.nan))


def test_k_beyond_the_labels():
    with pytest.raises(ProbelineError, match=r"^lrsl\.triplets\.k: 8 is more than the 7 labels"):
        mined(*random_case(False), k=8)


def test_nothing_to_take():
    assert mined([0, 1], [[2, 1], [1, 2]], k=1) == []
    assert mined([0, 1], [[2, 1], [1, 2]], k=2, hard_only=True, per_class=3) == []
    assert mined(np.zeros((2, 3), int), np.zeros((2, 3))) == []


def test_files(tmp_path):
    y, logits = random_case(False)
    rows = np.arange(len(y))
    table = mine(rows, [str(r) for r in rows], y, logits, NAMES, texts_of(NAMES), OPTIONS, 0)
    path = tmp_path / "triplets.parquet"
    meta = {"dataset_fingerprint": "abc", "task": "label", "source": "stc", "options": OPTIONS}
    with pytest.raises(ProbelineError, match=r"triplets\.parquet: no such triplets"):
        read_triplets(path)
    write_triplets(path, table, meta)
    read, found = read_triplets(path, "abc", "label")
    assert read.equals(table)
    assert found.items() >= meta.items()
    for wanted in (("other", "label"), ("abc", "level 2")):
        with pytest.raises(ProbelineError, match="triplets of another dataset or task"):
            read_triplets(path, *wanted)
    pq.write_table(table, path)
    with pytest.raises(ProbelineError, match="not readable triplets"):
        read_triplets(path)
    path.write_text("text")
    with pytest.raises(ProbelineError, match="not readable triplets"):
        read_triplets(path)
