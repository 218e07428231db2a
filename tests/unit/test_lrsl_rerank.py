"""Every form against one text at a time, by hand on three classes, and its corner cases."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reranking import candidates_of, reranked_labels, reranked_text, rows
from scipy.special import expit

from probeline.errors import ProbelineError
from probeline.lrsl.rerank import FORMS, Form, apply, rerank
from probeline.lrsl.reranking import Reranking
from probeline.lrsl.temperature import probabilities

INFINITE = float("inf")

ALL_FORMS = [
    Form(name, power, weight, candidates)
    for name in FORMS
    for power in (0.5, 1.0, 2.0, 3.0)
    for weight in (0.3, 1.0)
    for candidates in (None, 1, 3, 7)
    if (weight == 0.3 or name == "mix") and (power == 1.0 or name != "paper-banking77")
]


@pytest.mark.parametrize("form", ALL_FORMS, ids=str)
@pytest.mark.parametrize("temperature", [1.0, 1.8])
def test_one_text_at_a_time(form, temperature):
    logits, similarity = rows(0)
    found = rerank(logits, similarity, form, temperature=temperature)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    expected = [
        reranked_text(z, s, form, temperature)
        for z, s in zip(logits.tolist(), similarity.tolist(), strict=True)
    ]
    np.testing.assert_allclose(np.exp(found.astype(np.float64)), expected, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(np.exp(found.astype(np.float64)).sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("form", ALL_FORMS, ids=str)
@pytest.mark.parametrize("temperature", [1.0, 1.8])
def test_several_labels_one_text_at_a_time(form, temperature):
    logits, similarity = rows(1)
    found = rerank(logits, similarity, form, multilabel=True, temperature=temperature)
    assert np.isfinite(found).all()
    expected = [
        reranked_labels(z, s, form, temperature)
        for z, s in zip(logits.tolist(), similarity.tolist(), strict=True)
    ]
    np.testing.assert_allclose(probabilities(found, True), expected, rtol=1e-5, atol=1e-9)


# p is 1/2, 1/4, 1/4; negative logits, since log-probabilities are logits.
LOGITS = np.log(np.array([[0.5, 0.25, 0.25]])).astype(np.float32)
SIMILAR = np.array([[0.25, 1.0, -0.5]], dtype=np.float32)


@pytest.mark.parametrize(
    "form, expected",
    [
        # 1/8, 1/4, 0
        (Form("prob", 1.0), [1 / 3, 2 / 3, 0]),
        # 1/32, 1/4, 0: an even power gives no bonus for a negative cosine.
        (Form("prob", 2.0), [1 / 9, 8 / 9, 0]),
        # 1/128, 1/4, 0
        (Form("paper-banking77"), [1 / 33, 32 / 33, 0]),
        # exp(-ln 2 / 4), exp(-ln 4), exp(0): a negative logit times a small number comes first.
        (
            Form("paper-logits", 1.0),
            [v / (2**-0.25 + 1 / 4 + 1) for v in (2**-0.25, 1 / 4, 1)],
        ),
        # sqrt(1/8), sqrt(1/4), 0
        (Form("mix", 1.0, 0.5), [1 / (1 + math.sqrt(2)), math.sqrt(2) / (1 + math.sqrt(2)), 0]),
        # A single candidate keeps what it had.
        (Form("prob", 1.0, candidates=1), [0.5, 0.25, 0.25]),
    ],
)
def test_three_classes_by_hand(form, expected):
    found = np.exp(rerank(LOGITS, SIMILAR, form).astype(np.float64))
    np.testing.assert_allclose(found[0], expected, atol=1e-6)


def test_candidates_share_what_they_had():
    logits = np.log([[0.5, 0.3, 0.2]])
    found = np.exp(rerank(logits, SIMILAR, Form("prob", 1.0, candidates=2)))[0]
    np.testing.assert_allclose(found, [0.8 * 0.125 / 0.425, 0.8 * 0.3 / 0.425, 0.2], atol=1e-6)


def test_several_labels_by_hand():
    logits = np.log([[1.0, 3.0, 1 / 3]])
    found = probabilities(rerank(logits, SIMILAR, Form("prob", 1.0), multilabel=True), True)
    np.testing.assert_allclose(found, [[0.125, 0.75, 0]], atol=1e-7)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("candidates", [None, 2])
def test_no_similarity_above_zero_keeps_the_row(name, multilabel, candidates):
    logits, similarity = rows(2)
    none = -np.abs(similarity)
    none[::2] = 0
    found = rerank(logits, none, Form(name, 2.0, candidates=candidates), multilabel)
    np.testing.assert_allclose(
        probabilities(found, multilabel), probabilities(logits, multilabel), rtol=1e-5
    )


@pytest.mark.parametrize("form", [Form("prob", 0.0), Form("mix", 2.0, 0.0), Form.nothing()])
@pytest.mark.parametrize("multilabel", [False, True])
def test_without_power_the_probabilities_stay(form, multilabel):
    logits, similarity = rows(3)
    assert form.is_nothing
    found = rerank(logits, similarity, form, multilabel, temperature=2.0)
    np.testing.assert_allclose(
        probabilities(found, multilabel), probabilities(logits, multilabel, 2.0), rtol=1e-5
    )


@pytest.mark.parametrize("name", ["prob", "paper-logits", "mix"])
@pytest.mark.parametrize("candidates", [None, 3])
def test_without_power_the_order_stays(name, candidates):
    logits, similarity = rows(4)
    found = rerank(logits, similarity, Form(name, 0.0, candidates=candidates))
    assert np.array_equal(found.argmax(axis=1), logits.argmax(axis=1))
    if candidates is None:
        assert np.array_equal(np.argsort(found), np.argsort(logits))


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_what_is_not_hard_is_bit_for_bit_the_input(multilabel, temperature):
    logits, similarity = rows(5)
    hard = np.zeros(60, dtype=bool)
    for form in (Form("prob"), Form("mix"), Form.nothing()):
        none = apply(logits, hard, similarity[hard], form, multilabel, temperature)
        assert none.tobytes() == logits.tobytes()
        assert none is not logits
    everything = ~hard
    kept = apply(logits, everything, similarity, Form.nothing(), multilabel, temperature)
    assert kept.tobytes() == logits.tobytes()
    hard[[3, 40, 59]] = True
    some = apply(logits, hard, similarity[hard], Form("prob"), multilabel, temperature)
    assert some[~hard].tobytes() == logits[~hard].tobytes()
    every = rerank(logits, similarity, Form("prob"), multilabel, temperature)
    np.testing.assert_allclose(
        probabilities(some[hard], multilabel, temperature),
        probabilities(every[hard], multilabel),
        rtol=1e-5,
        atol=1e-12,
    )


@pytest.mark.parametrize("form", ALL_FORMS, ids=str)
@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_an_offset_is_taken_off_what_was_reranked(form, temperature):
    """Other labels, and rows without a similarity above 0, stay as they were bit for bit."""
    logits, similarity = rows(7)
    similarity[::5] = -np.abs(similarity[::5])
    hard = np.arange(60) % 3 > 0
    reranking = Reranking(form, INFINITE, None, -1.25, True, temperature)
    found = reranking.apply(logits, hard, similarity[hard])
    kept = 0
    for row, (z, s) in enumerate(zip(logits.tolist(), similarity.tolist(), strict=True)):
        candidates = candidates_of(z, form.candidates)
        if not hard[row] or max(s[c] for c in candidates) <= 0:
            candidates = []
        p = reranked_labels(z, s, form, temperature)
        for c in range(7):
            if c not in candidates:
                assert found[row, c] == logits[row, c]
                kept += 1
            elif p[c] > 1e-9:
                expected = temperature * (math.log(p[c]) - math.log1p(-p[c])) + 1.25
                assert found[row, c] == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert kept >= 7 * 28


def log_odds_of(p: float) -> float:
    return math.log(p / (1 - p))


def test_probabilities_are_those_before_the_threshold_was_taken_off():
    """By hand: 0.30 * 0.9^2 = 0.243 and 0.90 * 0.6^2 = 0.324, so that the second is likelier."""
    at = log_odds_of(0.3)
    logits = np.array([[log_odds_of(0.3) - at, log_odds_of(0.9) - at]], dtype=np.float32)
    similarity = np.array([[0.9, 0.6]], dtype=np.float32)
    found = rerank(logits, similarity, Form("prob", 2.0), True, taken_off=(at, at))
    np.testing.assert_allclose(expit(found), [[0.243, 0.324]], rtol=1e-5)
    hard = np.ones(1, dtype=bool)
    for offset in (0.0, -0.4):
        reranking = Reranking(Form("prob", 2.0), INFINITE, None, offset, True, 1.0, (at, at))
        after = reranking.apply(logits, hard, similarity)
        np.testing.assert_allclose(expit(after + at + offset), [[0.243, 0.324]], rtol=1e-5)
    # Of the first alone, the threshold of 0.2 is below its 0.243.
    lower = Reranking(Form("prob", 2.0), INFINITE, None, log_odds_of(0.3) - at, True, 1.0, (at, at))
    assert (lower.apply(logits, hard, similarity) > 0).tolist() == [[False, True]]
    lower = Reranking(Form("prob", 2.0), INFINITE, None, log_odds_of(0.2) - at, True, 1.0, (at, at))
    assert (lower.apply(logits, hard, similarity) > 0).tolist() == [[True, True]]


@pytest.mark.parametrize("form", ALL_FORMS, ids=str)
@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_thresholds_of_each_label_one_text_at_a_time(form, temperature):
    logits, similarity = rows(8)
    similarity[::5] = -np.abs(similarity[::5])
    off = tuple(np.random.default_rng(9).normal(size=7).astype(np.float32).tolist())
    hard = np.arange(60) % 3 > 0
    reranking = Reranking(form, INFINITE, None, 0.5, True, temperature, off)
    found = reranking.apply(logits, hard, similarity[hard])
    compared = 0
    for row, (z, s) in enumerate(zip(logits.tolist(), similarity.tolist(), strict=True)):
        candidates = candidates_of(z, form.candidates)
        if not hard[row] or max(s[c] for c in candidates) <= 0:
            candidates = []
        p = reranked_labels(z, s, form, temperature, list(off))
        for c in range(7):
            if c not in candidates:
                assert found[row, c] == logits[row, c]
            elif 1e-9 < p[c] < 1 - 1e-9:
                expected = temperature * log_odds_of(p[c]) - off[c] - 0.5
                assert found[row, c] == pytest.approx(expected, rel=1e-4, abs=1e-4)
                compared += 1
    assert compared >= 20


def test_thresholds_and_nothing_to_do_is_bit_for_bit_the_input():
    logits, similarity = rows(5)
    reranking = Reranking(Form.nothing(), INFINITE, None, 0.0, True, 1.7, (0.3,) * 7)
    everything = np.ones(60, dtype=bool)
    assert reranking.idle
    assert reranking.apply(logits, everything, similarity).tobytes() == logits.tobytes()


def test_a_label_that_is_no_candidate_has_its_own_threshold():
    """By hand: 0.3 times the probabilities of the first three."""
    logits = np.array([[3, 2.5, 2, -0.5]], dtype=np.float32)
    all_hard = np.ones(1, dtype=bool)
    reranking = Reranking(Form("prob", candidates=3), INFINITE, None, -1.1, True)
    found = reranking.apply(logits, all_hard, np.full((1, 4), 0.3, np.float32))
    p = [0.3 / (1 + math.exp(-z)) for z in (3, 2.5, 2)]
    np.testing.assert_allclose(
        found[0], [*(math.log(v / (1 - v)) + 1.1 for v in p), -0.5], rtol=1e-5
    )
    assert (found > 0).tolist() == [[True, True, True, False]]


@pytest.mark.parametrize("candidates", [None, 2])
def test_a_threshold_alone(candidates):
    logits, similarity = rows(3)
    hard = np.arange(60) < 20
    reranking = Reranking(Form.nothing(candidates), 0.5, None, 0.75, True, 2.0)
    assert not reranking.idle
    assert reranking.hard(np.array([0.4, 0.6])).tolist() == [True, False]
    found = reranking.apply(logits, hard, -similarity[hard])
    for row, z in enumerate(logits.tolist()):
        among = candidates_of(z, candidates) if row < 20 else []
        expected = [value - 0.75 * (c in among) for c, value in enumerate(z)]
        np.testing.assert_allclose(found[row], expected, rtol=1e-5)


@pytest.mark.parametrize("temperature", [0.4, 3.0])
@pytest.mark.parametrize("candidates", [None, 3])
def test_temperature_with_a_free_power_changes_no_winner(temperature, candidates):
    logits, similarity = rows(6, n=400)
    for power in (0.5, 1.0, 2.0, 3.0):
        plain = rerank(logits, similarity, Form("prob", power * temperature, 0.5, candidates))
        cooled = rerank(
            logits, similarity, Form("prob", power, 0.5, candidates), temperature=temperature
        )
        assert np.array_equal(plain.argmax(axis=1), cooled.argmax(axis=1))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(ALL_FORMS),
    st.booleans(),
    st.booleans(),
)
def test_the_order_of_labels_says_nothing(seed, form, multilabel, ties):
    logits, similarity = rows(seed, n=20)
    if ties:
        logits, similarity = np.round(logits / 3), np.round(similarity, 1)
    order = np.random.default_rng(seed).permutation(7)
    plain = rerank(logits, similarity, form, multilabel)
    shuffled = rerank(logits[:, order], similarity[:, order], form, multilabel)
    np.testing.assert_allclose(shuffled, plain[:, order], rtol=1e-5, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(ALL_FORMS))
def test_the_winner_comes_from_the_candidates(seed, form):
    logits, similarity = rows(seed, n=20)
    wanted = form.candidates or 7
    ranks = np.argsort(np.argsort(-logits, axis=1), axis=1)
    winner = rerank(logits, similarity, form).argmax(axis=1)
    assert (ranks[np.arange(20), winner] < wanted).all()


@pytest.mark.parametrize("form", ALL_FORMS, ids=str)
@pytest.mark.parametrize("multilabel", [False, True])
def test_extreme_logits_stay_finite(form, multilabel):
    logits = np.array([[900, -900, 0, 1, 2, 3, 899], [-1e4] * 6 + [0]], dtype=np.float32)
    similarity = np.array([[-1, 1, 0.5, 0, 0, 0, 1], [1.0000001] * 7], dtype=np.float32)
    assert np.isfinite(rerank(logits, similarity, form, multilabel)).all()


def test_more_rows_than_a_block_and_no_row():
    logits, similarity = rows(8, n=5000)
    form = Form("prob", 2.0, candidates=3)
    whole = rerank(logits, similarity, form)
    alone = np.concatenate(
        [rerank(logits[i : i + 1], similarity[i : i + 1], form) for i in (0, 4999)]
    )
    np.testing.assert_array_equal(whole[[0, 4999]], alone)
    assert rerank(logits[:0], similarity[:0], form).shape == (0, 7)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: Form("probs"), r"^lrsl\.forms: 'probs' .* mean 'prob'"),
        (lambda: Form("prob", -1.0), r"^lrsl\.powers: -1.0 is below 0"),
        (lambda: Form("mix", 1.0, 1.5), r"^lrsl\.weights: 1.5 is not from 0 to 1"),
        (lambda: Form("prob", candidates=0), r"^lrsl\.candidates: 0 labels"),
        (
            lambda: rerank(*rows(0), Form("prob", candidates=8)),
            r"^lrsl\.k: 8 candidates of a task with 7 classes; give at most 7$",
        ),
        (lambda: rerank(rows(0)[0], rows(0)[1][:, :6], Form("prob")), r"\(60, 7\) .* \(60, 6\)"),
    ],
)
def test_refused_in_one_line(make, words):
    with pytest.raises(ProbelineError, match=words):
        make()
