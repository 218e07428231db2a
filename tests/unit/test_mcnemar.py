"""McNemar's test against scipy's binomial test and the formula of the chi-squared statistic."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, chi2

from probeline.results.mcnemar import mcnemar_p


def logits_of(right: np.ndarray, labels: np.ndarray, classes: int = 3) -> np.ndarray:
    answers = np.where(right, labels, (labels + 1) % classes)
    return np.eye(classes)[answers]


def pair(first: int, second: int, n: int = 300):
    """Labels and logits: so many texts that one method alone has right, and some of the rest."""
    labels = np.random.default_rng(0).integers(0, 3, n)
    one = np.random.default_rng(1).random(n) < 0.5
    other = one.copy()
    one[:first], other[:first] = True, False
    one[first : first + second], other[first : first + second] = False, True
    return labels, logits_of(one, labels), logits_of(other, labels)


@pytest.mark.parametrize("counts", [(0, 0), (1, 0), (4, 0), (7, 7), (3, 21), (20, 4)])
def test_few_texts_are_tested_exactly(counts):
    expected = binomtest(counts[0], sum(counts)).pvalue if sum(counts) else 1
    assert mcnemar_p(*pair(*counts)) == pytest.approx(expected)


@pytest.mark.parametrize("counts", [(20, 5), (60, 40), (41, 40), (10, 90), (30, 30)])
def test_many_texts_by_chi_squared(counts):
    first, second = counts
    difference = max(abs(first - second) - 1, 0)
    expected = chi2.sf(difference**2 / (first + second), 1)
    found = mcnemar_p(*pair(*counts))
    assert found == pytest.approx(expected)
    assert found == pytest.approx(binomtest(first, first + second).pvalue, abs=0.01)


def test_one_column_of_a_binary_task():
    labels = np.array([0, 1, 1, 0, 1])
    z = np.array([[-1.0], [1.0], [-1.0], [1.0], [1.0]])
    truth = np.eye(2)[labels]
    assert mcnemar_p(labels, z, truth) == mcnemar_p(labels, truth, z) == 0.5
