"""The combiner: against plain Python, what it learns, and that order and seeds are as they must."""

import json
import math

import numpy as np
import pytest
from reranking import rows, softmax_of

from probeline.lrsl.combiner import Combiner, CombinerOptions, cross_validated, fit_combiner
from probeline.lrsl.hardness import misclassified
from probeline.lrsl.rerank import Form
from probeline.lrsl.reranking import Reranking
from probeline.lrsl.temperature import log_losses


def telling(seed: int, n: int = 300, multilabel: bool = False):
    """Logits that say little and similarities that say more: what a combiner can learn."""
    rng = np.random.default_rng(seed)
    if multilabel:
        y = (rng.random((n, 7)) < 0.3).astype(np.uint8)
        true = y
    else:
        y = rng.integers(0, 7, n)
        true = np.eye(7)[y]
    logits = (rng.normal(size=(n, 7)) + true).astype(np.float32)
    similarity = (0.4 * true + 0.2 * rng.normal(size=(n, 7))).astype(np.float32)
    return logits, similarity, y


def scores_of_text(combiner: Combiner, z, s) -> list[float]:
    """Scores of one text by loops over labels and units."""
    options = combiner.options
    z = [float(value) / options.temperature for value in z]
    order = sorted(range(len(z)), key=lambda c: -z[c])[: options.candidates]
    if combiner.multilabel:
        own, log_p = z, [-math.log1p(math.exp(-value)) for value in z]
    else:
        own = log_p = [math.log(value) for value in softmax_of(z)]
    scores = {}
    for c in order:
        best_own, best_s = max(own[d] for d in order), max(s[d] for d in order)
        x = [
            max(log_p[c], -30),
            s[c],
            own[c] - best_own,
            1 / (1 + sum(own[d] > own[c] for d in order)),
            s[c] - best_s,
            1 / (1 + sum(s[d] > s[c] for d in order)),
        ]
        x = [(v - m) / k for v, m, k in zip(x, combiner.mean, combiner.scale, strict=True)]
        scores[c] = own[c]
        for unit, weight in enumerate(combiner.output):
            inner = sum(v * w for v, w in zip(x, combiner.hidden[:, unit], strict=True))
            scores[c] += weight * math.tanh(inner + combiner.bias[unit])
    if combiner.multilabel:
        return [scores.get(c, own[c]) for c in range(len(z))]
    mass = sum(math.exp(own[c]) for c in order) / sum(math.exp(v) for v in scores.values())
    return [scores[c] + math.log(mass) if c in scores else own[c] for c in range(len(z))]


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("candidates", [None, 3])
@pytest.mark.parametrize("temperature", [1.0, 1.6])
def test_one_text_at_a_time(multilabel, candidates, temperature):
    logits, similarity, y = telling(0, multilabel=multilabel)
    options = CombinerOptions(candidates, temperature=temperature)
    combiner = fit_combiner(logits, similarity, y, options, 0, multilabel)
    assert np.abs(combiner.output).max() > 0.01
    found = combiner.scores(logits[:40], similarity[:40])
    expected = [
        scores_of_text(combiner, z, s)
        for z, s in zip(logits[:40].tolist(), similarity[:40].tolist(), strict=True)
    ]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("multilabel", [False, True])
def test_it_learns_what_similarities_tell(multilabel):
    logits, similarity, y = telling(1, multilabel=multilabel)
    combiner = fit_combiner(logits, similarity, y, CombinerOptions(), 0, multilabel)
    logits, similarity, y = telling(2, 1000, multilabel)
    before = log_losses(logits, y, multilabel).mean()
    assert log_losses(combiner.scores(logits, similarity), y, multilabel).mean() < 0.8 * before


def test_weight_decay_draws_it_to_nothing():
    logits, similarity, y = telling(3)
    combiner = fit_combiner(logits, similarity, y, CombinerOptions(weight_decay=100.0), 0)
    np.testing.assert_allclose(
        log_losses(combiner.scores(logits, similarity), y, False),
        log_losses(logits, y, False),
        atol=1e-3,
    )


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("candidates", [None, 3])
def test_the_order_of_labels_says_nothing(multilabel, candidates):
    logits, similarity, y = telling(4, 120, multilabel)
    order = np.random.default_rng(0).permutation(7)
    shuffled_y = y[:, order] if multilabel else np.argsort(order)[y]
    options = CombinerOptions(candidates)
    plain = fit_combiner(logits, similarity, y, options, 0, multilabel)
    shuffled = fit_combiner(
        logits[:, order], similarity[:, order], shuffled_y, options, 0, multilabel
    )
    scores = plain.scores(logits, similarity)
    np.testing.assert_allclose(
        plain.scores(logits[:, order], similarity[:, order]), scores[:, order], atol=1e-5
    )
    np.testing.assert_allclose(
        shuffled.scores(logits[:, order], similarity[:, order]), scores[:, order], atol=2e-2
    )


def test_the_same_seed_is_the_same_combiner():
    given = telling(5, 100)
    one, two = (fit_combiner(*given, CombinerOptions(), 3) for _ in range(2))
    for name, values in one.arrays().items():
        assert values.tobytes() == two.arrays()[name].tobytes()


def test_arrays_and_meta_make_it_again(tmp_path):
    import json

    from safetensors.numpy import load_file, save_file

    logits, similarity, y = telling(6, 100)
    combiner = fit_combiner(logits, similarity, y, CombinerOptions(3), 0)
    save_file(combiner.arrays(), tmp_path / "combiner.safetensors")
    meta = json.loads(json.dumps(combiner.meta()))
    again = Combiner.of(load_file(tmp_path / "combiner.safetensors"), meta)
    np.testing.assert_array_equal(
        again.scores(logits, similarity), combiner.scores(logits, similarity)
    )


def test_nothing_to_learn_from_corrects_nothing():
    logits, similarity = rows(0)
    worst = logits.argmin(axis=1)
    combiner = fit_combiner(logits, similarity, worst, CombinerOptions(2), 0)
    np.testing.assert_allclose(
        log_losses(combiner.scores(logits, similarity), worst, False),
        log_losses(logits, worst, False),
        atol=1e-5,
    )


@pytest.mark.parametrize("multilabel", [False, True])
def test_no_score_comes_from_a_fold_that_has_the_text(multilabel):
    logits, similarity, y = telling(7, 50, multilabel)
    wrong = misclassified(logits, y, multilabel)
    options = CombinerOptions()
    found = cross_validated(logits, similarity, y, options, 0, wrong, 5, multilabel)
    for row in (0, 17, 49):
        other = y.copy()
        other[row] = 1 - y[row] if multilabel else (y[row] + 1) % 7
        again = cross_validated(logits, similarity, other, options, 0, wrong, 5, multilabel)
        np.testing.assert_array_equal(again[row], found[row])
        assert not np.array_equal(again, found)


def test_too_few_texts_for_folds(caplog):
    logits, similarity, y = telling(8, 4)
    wrong = np.ones(4, dtype=bool)
    with caplog.at_level("INFO"):
        assert cross_validated(logits, similarity, y, CombinerOptions(), 0, wrong) is None
    (line,) = caplog.messages
    assert "mlp is left out" in line and "4 hard validation texts" in line and "5 folds" in line


def test_thresholds_are_added_before_anything_is_read():
    """One for all labels, which leaves their order: the same as the logits before it was off."""
    logits, similarity, y = telling(9, 80, multilabel=True)
    off = (0.75,) * 7
    plain = CombinerOptions(3, temperature=1.7)
    given = CombinerOptions(3, temperature=1.7, taken_off=off)
    one = fit_combiner(logits.astype(np.float64), similarity, y, plain, 0, multilabel=True)
    less = logits.astype(np.float64) - off
    two = fit_combiner(less, similarity, y, given, 0, multilabel=True)
    np.testing.assert_allclose(
        two.scores(less, similarity), one.scores(logits.astype(np.float64), similarity), atol=1e-5
    )
    again = Combiner.of(two.arrays(), json.loads(json.dumps(two.meta())))
    assert again.options == two.options
    hard = np.ones(80, dtype=bool)
    reranking = Reranking(Form.nothing(), 0.0, two, 0.5, True, 1.7, off)
    found = reranking.apply(less, hard, similarity)
    among = np.argsort(np.argsort(-logits, axis=1), axis=1) < 3
    expected = 1.7 * one.scores(logits, similarity) - 0.75 - 0.5
    np.testing.assert_allclose(found[among], expected[among], atol=1e-4)
    np.testing.assert_allclose(found[~among], less[~among], rtol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_an_offset_is_taken_off_candidates(temperature):
    logits, similarity, y = telling(9, 80, multilabel=True)
    options = CombinerOptions(3, temperature=temperature)
    combiner = fit_combiner(logits, similarity, y, options, 0, multilabel=True)
    hard = np.arange(80) % 2 == 0
    reranking = Reranking(Form.nothing(), 0.0, combiner, 0.5, True, temperature)
    found = reranking.apply(logits, hard, similarity[hard])
    among = np.argsort(np.argsort(-logits, axis=1), axis=1) < 3
    assert np.array_equal(found[~(among & hard[:, None])], logits[~(among & hard[:, None])])
    for row in np.flatnonzero(hard)[:10]:
        scores = scores_of_text(combiner, logits[row].tolist(), similarity[row].tolist())
        expected = temperature * np.array(scores) - 0.5
        np.testing.assert_allclose(
            found[row, among[row]], expected[among[row]], rtol=1e-4, atol=1e-4
        )
