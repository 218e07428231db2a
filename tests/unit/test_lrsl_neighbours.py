"""Nearest vectors against a loop; what faiss finds against the exact search."""

from __future__ import annotations

import numpy as np
import pytest

from probeline.errors import ProbelineError
from probeline.lrsl.label_vectors import LabelVectors
from probeline.lrsl.neighbours import candidate_labels, candidate_similarities, nearest


def unit(X):
    return (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32)


def clustered(rng, count, width=32, centres=150):
    """Vectors as label texts have them: groups of related ones."""
    middle = rng.standard_normal((centres, width))
    return unit(middle[rng.integers(centres, size=count)] + rng.standard_normal((count, width)) / 2)


@pytest.mark.parametrize("m", [1, 2, 7, 40, 99])
def test_exact_search_against_a_loop(m, monkeypatch):
    monkeypatch.setattr("probeline.lrsl.neighbours._NUMBERS_AT_ONCE", 300)
    rng = np.random.default_rng(m)
    queries, vectors = unit(rng.standard_normal((23, 5))), unit(rng.standard_normal((60, 5)))
    indices, cosines = nearest(queries, vectors, m)
    assert indices.dtype == np.int64 and cosines.dtype == np.float32
    for row, query in enumerate(queries):
        known = [float(query @ vector) for vector in vectors]
        order = sorted(range(60), key=lambda i: -known[i])[:m]
        assert indices[row].tolist() == order
        np.testing.assert_allclose(cosines[row], [known[i] for i in order], atol=1e-6)


@pytest.mark.parametrize("m", [1, 2, 3, 30])
def test_of_equal_vectors_the_first_comes_first(m):
    vectors = np.tile(np.eye(3, dtype=np.float32), (10, 1))
    indices, _ = nearest(np.eye(3, dtype=np.float32), vectors, m)
    for row in range(3):
        equal = [row + 3 * i for i in range(10)]
        assert indices[row, :10].tolist() == equal[:m]


def test_recall_of_the_index_against_the_exact_search():
    rng = np.random.default_rng(0)
    vectors = clustered(rng, 4000)
    queries = unit(vectors[rng.integers(4000, size=300)] + rng.standard_normal((300, 32)) / 10)
    exact, known = nearest(queries, vectors, 10)
    found, cosines = nearest(queries, vectors, 10, exact_below=1)
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact, found, strict=True)])
    assert recall > 0.95
    assert np.mean(exact[:, 0] == found[:, 0]) > 0.97
    # The cosines are those of what it found, exactly, by descending value.
    expected = np.einsum("nd,nmd->nm", queries, vectors[found])
    np.testing.assert_allclose(cosines, expected, atol=1e-5)
    assert (np.diff(cosines, axis=1) <= 1e-6).all()
    assert (cosines <= known + 1e-5).all()
    again, _ = nearest(queries, vectors, 10, exact_below=1)
    np.testing.assert_array_equal(found, again)


def test_an_index_whose_cells_hold_too_few_vectors_finds_all(recwarn):
    rng = np.random.default_rng(0)
    queries, vectors = unit(rng.standard_normal((9, 4))), unit(rng.standard_normal((20, 4)))
    exact, _ = nearest(queries, vectors, 20)
    found, _ = nearest(queries, vectors, 25, exact_below=1)
    np.testing.assert_array_equal(np.sort(found), np.sort(exact))


def test_candidates_are_the_top_and_the_near_labels():
    logits = np.array([[3.0, 1.0, 2.0, 0.0, -1.0], [0.0, 0.0, 5.0, 1.0, 9.0]])
    near = np.array([[4, 0], [0, 4]])
    found = candidate_labels(logits, 2, near)
    assert [np.flatnonzero(row).tolist() for row in found] == [[0, 2, 4], [0, 2, 4]]
    assert candidate_labels(logits, 0, near).sum() == 4
    with pytest.raises(ProbelineError, match=r"lrsl\.k: 6 is more than the 5 labels"):
        candidate_labels(logits, 6, near)


@pytest.mark.parametrize("exact_below", [1, 1000])
def test_similarities_of_candidates_against_a_loop(exact_below):
    rng = np.random.default_rng(3)
    owner = np.sort(np.r_[np.arange(40), rng.integers(0, 40, 30)])
    labels = LabelVectors(unit(rng.standard_normal((70, 6))), owner, "best")
    texts, logits = unit(rng.standard_normal((25, 6))), rng.standard_normal((25, 40))
    found = candidate_similarities(texts, labels, logits, 3, 5, exact_below)
    near, _ = nearest(texts, labels.vectors, 5, exact_below)
    whole = labels.similarities(texts)
    for row in range(25):
        expected = set(np.argsort(-logits[row])[:3]) | {owner[i] for i in near[row]}
        for label in range(40):
            known = whole[row, label] if label in expected else 0.0
            assert found[row, label] == pytest.approx(known, abs=1e-5)


def test_bad_input_is_one_line():
    with pytest.raises(ProbelineError, match="expected 1 or more, found 0"):
        nearest(np.eye(2), np.eye(2), 0)
    with pytest.raises(ProbelineError, match="width 3, vectors of width 2"):
        nearest(np.eye(3), np.eye(2), 1)
