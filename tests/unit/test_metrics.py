"""Every metric against scikit-learn."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import softmax
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    matthews_corrcoef,
    roc_auc_score,
)

from probeline.errors import ProbelineError
from probeline.probe.losses import sigmoid
from probeline.probe.metrics import METRICS, predict_codes, score
from probeline.results.predictions import two_columns

SKLEARN = {
    "accuracy": accuracy_score,
    "macro-f1": lambda y, p: f1_score(y, p, average="macro", zero_division=0),
    "micro-f1": lambda y, p: f1_score(y, p, average="micro", zero_division=0),
    "matthews": matthews_corrcoef,
}


def close(value):
    return pytest.approx(value, abs=1e-12)


@st.composite
def single_label(draw):
    """(labels, logits, classes): few values, so that ties and absent classes are common."""
    K, n = draw(st.integers(2, 5)), draw(st.integers(1, 25))
    labels = draw(arrays(np.int64, n, elements=st.integers(0, K - 1)))
    columns = 1 if K == 2 else K
    logits = draw(arrays(np.float32, (n, columns), elements=st.integers(-3, 3).map(float)))
    return labels, logits, K


@pytest.mark.parametrize("metric", SKLEARN)
@settings(max_examples=40, deadline=None)
@given(case=single_label())
def test_single_label(metric, case):
    labels, logits, K = case
    predicted = (logits[:, 0] > 0).astype(int) if K == 2 else logits.argmax(axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = SKLEARN[metric](labels, predicted)
    assert score(metric, labels, logits, K) == close(expected)
    if K == 2:
        assert score(metric, labels, two_columns(logits), K) == close(expected)


@settings(max_examples=40, deadline=None)
@given(case=single_label())
def test_roc_auc(case):
    labels, logits, K = case
    present = np.bincount(labels, minlength=K)
    if present.max() == len(labels):
        with pytest.raises(ProbelineError, match="rows of both kinds"):
            score("roc-auc", labels, logits, K)
        return
    if K == 2:
        expected = roc_auc_score(labels, logits[:, 0])
        assert score("roc-auc", labels, two_columns(logits), K) == close(expected)
    else:
        p = softmax(logits.astype(np.float64), axis=1)
        expected = np.mean([roc_auc_score(labels == k, p[:, k]) for k in range(K) if present[k]])
        if present.all():
            assert expected == close(roc_auc_score(labels, p, multi_class="ovr"))
    assert score("roc-auc", labels, logits, K) == close(expected)


@pytest.mark.parametrize("metric", ["accuracy", "macro-f1", "micro-f1", "roc-auc"])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_multi_label(metric, data):
    n, K = data.draw(st.integers(1, 15)), data.draw(st.integers(1, 4))
    labels = data.draw(arrays(np.uint8, (n, K), elements=st.integers(0, 1)))
    logits = data.draw(arrays(np.float32, (n, K), elements=st.integers(-2, 2).map(float)))
    if metric == "roc-auc":
        mixed = [k for k in range(K) if 0 < labels[:, k].sum() < n]
        if not mixed:
            with pytest.raises(ProbelineError, match="rows of both kinds"):
                score(metric, labels, logits, K)
            return
        expected = roc_auc_score(labels[:, mixed], logits[:, mixed], average="macro")
    else:
        predicted = (sigmoid(logits) > 0.5).astype(int)
        # One column would be a binary task to scikit-learn.
        if K == 1:
            kind = {"accuracy": accuracy_score}.get(metric)
            expected = (
                kind(labels, predicted)
                if kind
                else f1_score(labels, predicted, average="binary", zero_division=0)
            )
        else:
            expected = SKLEARN[metric](labels, predicted)
    assert score(metric, labels, logits, K) == close(expected)


def test_sure_rows_are_not_tied():
    """Two columns of large logits: softmax in float32 is 1 for all of them, their order is not."""
    labels = np.array([0, 0, 1, 1, 0, 1])
    z = np.array([[30], [40], [50], [60], [45], [35]], np.float32)
    expected = roc_auc_score(labels, z[:, 0])
    assert 0.5 < expected < 1
    assert score("roc-auc", labels, z, 2) == close(expected)
    assert score("roc-auc", labels, two_columns(z), 2) == close(expected)
    wide = np.concatenate([np.zeros((6, 1)), z / 2, np.full((6, 1), -50)], axis=1)
    areas = [roc_auc_score(labels == 0, -z[:, 0]), expected]
    found = score("roc-auc", labels, wide.astype(np.float32), 3)
    assert found == close(np.mean(areas))


def test_one_row():
    assert score("accuracy", np.array([1]), np.array([[2.0]]), 2) == 1.0
    assert score("macro-f1", np.array([0]), np.array([[2.0]]), 2) == 0.0


def test_predicted_codes():
    assert predict_codes(np.array([[0.0], [1e-9], [-3]])).tolist() == [0, 1, 0]
    assert predict_codes(np.array([[1.0, 1, 0], [0, 0, 2]])).tolist() == [0, 2]


@pytest.mark.parametrize("metric", METRICS)
def test_no_rows(metric):
    with pytest.raises(ProbelineError, match="no rows"):
        score(metric, np.zeros(0, np.int64), np.zeros((0, 3)), 3)


def test_unknown_or_unfit_metric():
    with pytest.raises(ProbelineError, match=r"'acuracy' is not one of.*did you mean 'accuracy'"):
        score("acuracy", np.array([0]), np.array([[0.0]]), 2)
    with pytest.raises(ProbelineError, match="matthews is not defined for a multi-label task"):
        score("matthews", np.array([[0, 1]]), np.array([[0.0, 1.0]]), 2)
