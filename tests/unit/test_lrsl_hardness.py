"""Certainties against loops, scikit-learn and scipy; thresholds, and that temperature is idle."""

import logging
import statistics
import subprocess
import sys

import numpy as np
import pytest
from reranking import rows, softmax_of
from scipy.stats import entropy

from probeline.errors import ProbelineError
from probeline.lrsl.hardness import certainty, is_hard, misclassified, threshold_of
from probeline.lrsl.temperature import fit_temperature, log_losses, probabilities


@pytest.mark.parametrize("k", [2, 3, 7])
@pytest.mark.parametrize("multilabel", [False, True])
def test_variance_by_a_loop(k, multilabel):
    logits, _ = rows(0)
    found = certainty(logits, "variance", k, multilabel)
    expected = [statistics.pvariance(sorted(row, reverse=True)[:k]) for row in logits.tolist()]
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_margin_and_entropy_by_a_loop():
    logits, _ = rows(1)
    margins, entropies = [], []
    for row in logits.tolist():
        p = softmax_of([value / 1.7 for value in row])
        margins.append(sorted(p)[-1] - sorted(p)[-2])
        entropies.append(-entropy(p))
    np.testing.assert_allclose(certainty(logits, "margin", 3, temperature=1.7), margins, atol=1e-9)
    np.testing.assert_allclose(
        certainty(logits, "entropy", 3, temperature=1.7), entropies, atol=1e-9
    )


def test_margin_and_entropy_of_several_labels():
    logits, _ = rows(2)
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    np.testing.assert_allclose(
        certainty(logits, "margin", 3, multilabel=True), np.abs(2 * p - 1).min(axis=1), atol=1e-9
    )
    entropies = [np.mean([entropy([value, 1 - value]) for value in row]) for row in p]
    np.testing.assert_allclose(
        certainty(logits, "entropy", 3, multilabel=True), -np.array(entropies), atol=1e-9
    )


@pytest.mark.parametrize("measure", ["variance", "margin", "entropy"])
@pytest.mark.parametrize("multilabel", [False, True])
def test_sure_logits_stay_finite(measure, multilabel):
    sure = np.array([[900.0, -900.0, 0.0], [0.0, 0.0, 0.0]], dtype=np.float32)
    found = certainty(sure, measure, 2, multilabel)
    assert np.isfinite(found).all()
    assert found[1] <= found[0]


@pytest.mark.parametrize("measure", ["variance", "margin", "entropy"])
@pytest.mark.parametrize("multilabel", [False, True])
def test_the_order_of_labels_says_nothing(measure, multilabel):
    logits, _ = rows(3)
    shuffled = logits[:, np.random.default_rng(0).permutation(7)]
    np.testing.assert_allclose(
        certainty(shuffled, measure, 3, multilabel),
        certainty(logits, measure, 3, multilabel),
        rtol=1e-9,
    )


@pytest.mark.parametrize("k", [1, 8])
def test_k_is_a_number_of_labels(k):
    with pytest.raises(ProbelineError, match=rf"^lrsl\.k: {k} top labels .* 7 classes; .* 2 to 7$"):
        certainty(rows(0)[0], "variance", k)


def test_unknown_measure():
    with pytest.raises(ProbelineError, match=r"^lrsl\.hardness: 'variances' .* mean 'variance'"):
        certainty(rows(0)[0], "variances", 3)


def test_misclassified_by_a_loop():
    logits, _ = rows(4)
    y = np.random.default_rng(4).integers(0, 7, 60)
    expected = [max(range(7), key=row.__getitem__) != t for row, t in zip(logits, y, strict=True)]
    assert misclassified(logits, y, False).tolist() == expected
    sets = (logits > 0).astype(np.uint8)
    sets[::3, 2] ^= 1
    assert misclassified(logits, sets, True).tolist() == [i % 3 == 0 for i in range(60)]


def test_sigma_of_the_misclassified_by_a_loop():
    logits, _ = rows(5)
    y = np.random.default_rng(5).integers(0, 7, 60)
    variances = []
    for row, true in zip(logits.tolist(), y, strict=True):
        if row.index(max(row)) != true:
            variances.append(statistics.pvariance(sorted(row)[-3:]))
    sure = certainty(logits, "variance", 3)
    threshold = threshold_of(sure, misclassified(logits, y, False), "misclassified")
    assert threshold == pytest.approx(sum(variances) / len(variances), rel=1e-6)
    assert is_hard(sure, threshold).tolist() == [value <= threshold for value in sure]


def test_nothing_misclassified_is_nothing_hard(caplog):
    caplog.set_level(logging.INFO)
    sure = np.arange(4.0)
    threshold = threshold_of(sure, np.zeros(4, dtype=bool), "misclassified")
    assert threshold is None
    assert not is_hard(sure, threshold).any()
    assert "no validation text is misclassified" in caplog.text


def test_threshold_as_a_quantile():
    sure = np.arange(101.0)
    wrong = np.zeros(101, dtype=bool)
    assert threshold_of(sure, wrong, 0.25) == 25
    assert is_hard(sure, threshold_of(sure, wrong, 1.0)).all()


@pytest.mark.parametrize("rule", ["wrong", 0.0, 1.5, -1])
def test_a_threshold_that_is_none(rule):
    with pytest.raises(ProbelineError, match=r"^lrsl\.threshold: .* neither 'misclassified' nor"):
        threshold_of(np.ones(3), np.ones(3, dtype=bool), rule)


@pytest.mark.parametrize("temperature", [0.3, 0.5, 2.0, 7.3])
def test_temperature_cannot_change_the_variance_mask(temperature):
    logits, _ = rows(6, n=500)
    y = np.random.default_rng(6).integers(0, 7, 500)
    wrong = misclassified(logits, y, False)
    masks = []
    for T in (1.0, temperature):
        sure = certainty(logits, "variance", 3, temperature=T)
        masks.append(is_hard(sure, threshold_of(sure, wrong, "misclassified")))
    assert 0 < masks[0].sum() < 500
    assert np.array_equal(*masks)


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("sharpness", [0.4, 1.0, 3.0])
def test_temperature_is_the_best_of_a_fine_grid(multilabel, sharpness):
    rng = np.random.default_rng(7)
    true = rng.normal(size=(400, 5))
    p = 1 / (1 + np.exp(-true)) if multilabel else probabilities(true)
    y = (rng.random(p.shape) < p).astype(np.uint8)
    if not multilabel:
        y = np.array([rng.choice(5, p=row) for row in p])
    logits = (sharpness * true).astype(np.float32)
    fitted = fit_temperature(logits, y, multilabel)
    grid = np.exp(np.linspace(np.log(0.05), np.log(20), 2000))
    losses = [log_losses(logits / T, y, multilabel).mean() for T in grid]
    assert fitted == pytest.approx(grid[np.argmin(losses)], rel=5e-3)


@pytest.mark.parametrize("multilabel", [False, True])
def test_log_losses_are_those_of_scikit_learn(multilabel):
    from sklearn.metrics import log_loss

    logits, _ = rows(8)
    p = probabilities(logits, multilabel)
    if multilabel:
        y = (logits + np.random.default_rng(8).normal(size=logits.shape) > 0).astype(np.uint8)
        expected = np.mean([log_loss(y[:, c], p[:, c]) for c in range(7)])
    else:
        y = np.random.default_rng(8).integers(0, 7, 60)
        expected = log_loss(y, p, labels=range(7))
    assert log_losses(logits, y, multilabel).mean() == pytest.approx(expected, rel=1e-6)


def test_temperature_of_separable_logits_is_finite_and_of_none_refused():
    sure = np.eye(4, dtype=np.float32)
    assert 0.01 <= fit_temperature(sure, np.arange(4), False) < 0.1
    with pytest.raises(ProbelineError, match=r"^lrsl\.temperature: there are no validation texts"):
        fit_temperature(sure[:0], np.arange(0), False)


@pytest.mark.parametrize("name", ["hardness", "rerank", "temperature"])
def test_torch_is_not_imported(name):
    code = f"import sys, probeline.lrsl.{name}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
