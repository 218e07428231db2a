"""The threshold of multi-label tasks, against trying all of them."""

from __future__ import annotations

import numpy as np
import pytest
from problems import indicators, problem, task_of
from scipy.special import expit
from sklearn.metrics import f1_score, log_loss
from sklearn.utils.class_weight import compute_sample_weight

from probeline.probe.standard_error import standard_error
from probeline.probe.threshold import evaluate, label_thresholds


def multilabel_task(metric: str):
    _, Y = indicators(90, 4)
    return task_of({"train": Y[:30], "validation": Y[30:70], "test": Y[70:]}, metric=metric)


@pytest.mark.parametrize("metric", ["macro-f1", "micro-f1", "accuracy"])
@pytest.mark.parametrize("shift", [-2.0, 0.0, 1.5])
def test_the_best_threshold_is_found(metric, shift):
    task = multilabel_task(metric)
    Y = task.y["validation"]
    rng = np.random.default_rng(0)
    Z = (2.0 * Y - 1 + rng.normal(size=Y.shape) + shift).astype(np.float32)
    evaluation = evaluate(task, Z)
    found, threshold = evaluation.score, evaluation.threshold

    def value(probability):
        predicted = expit(Z) > probability
        if metric == "accuracy":
            return (predicted == Y).all(axis=1).mean()
        return f1_score(Y, predicted, average=metric.split("-")[0], zero_division=0)

    tried = [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8, 0.9]
    assert found == pytest.approx(max(map(value, tried)))
    assert found == pytest.approx(value(expit(threshold)))
    ties = [p for p in tried if value(p) == pytest.approx(found)]
    nearest = min(ties, key=lambda p: abs(np.log(p / (1 - p))))
    assert expit(threshold) == pytest.approx(nearest)
    # The threshold is taken off before scoring, and the score is then the same.
    assert task.score("validation", Z - np.float32(threshold)) == pytest.approx(found)
    # Labels that are rare weigh as much as others where they do in the metric.
    weight = "balanced" if metric == "macro-f1" else None
    each = [
        log_loss(
            Y[:, k],
            expit(Z[:, k]),
            labels=[0, 1],
            sample_weight=compute_sample_weight(weight, Y[:, k]),
        )
        for k in range(4)
    ]
    assert evaluation.log_loss == pytest.approx(sum(each), rel=1e-5)
    error = standard_error(metric, Y, Z - np.float32(threshold), 4)
    assert evaluation.error == pytest.approx(error, rel=1e-6)


def test_ranking_needs_no_threshold():
    task = multilabel_task("roc-auc")
    Z = np.random.default_rng(0).normal(size=task.y["validation"].shape)
    assert evaluate(task, Z).threshold == 0.0


@pytest.mark.parametrize("classes", [2, 3])
def test_single_label_has_none(classes):
    _, y = problem(60, 3, classes)
    task = task_of({"train": y[:20], "validation": y[20:40], "test": y[40:]}, classes)
    Z = np.random.default_rng(0).normal(size=(20, 1 if classes == 2 else 3))
    found = evaluate(task, Z)
    assert found.threshold == 0.0
    p = np.hstack([1 - expit(Z), expit(Z)])
    if classes == 3:
        p = np.exp(Z) / np.exp(Z).sum(axis=1, keepdims=True)
    assert found.score == (p.argmax(axis=1) == y[20:40]).mean()
    assert found.log_loss == pytest.approx(
        log_loss(y[20:40], p, labels=np.arange(classes)), rel=1e-5
    )


def test_a_fixed_threshold_is_0():
    task = multilabel_task("micro-f1")
    Z = np.random.default_rng(1).normal(-1, 1, task.y["validation"].shape).astype(np.float32)
    found = evaluate(task, Z, fixed=True)
    predicted = expit(Z) > 0.5
    assert found.threshold == 0
    assert found.score == pytest.approx(f1_score(task.y["validation"], predicted, average="micro"))


TRIED = [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8, 0.9]


def shifted(task, seed: int = 2) -> np.ndarray:
    """Logits whose best threshold is another one for each label."""
    Y = task.y["validation"]
    rng = np.random.default_rng(seed)
    return (2.0 * Y - 1 + rng.normal(size=Y.shape) + [-2, -1, 0, 1.5]).astype(np.float32)


def test_thresholds_of_each_label_are_the_best_for_macro_f1():
    task = multilabel_task("macro-f1")
    Y, Z = task.y["validation"], shifted(multilabel_task("macro-f1"))
    found = label_thresholds(task, Z)
    for label in range(4):
        own = [f1_score(Y[:, label], expit(Z[:, label]) > p, zero_division=0) for p in TRIED]
        mine = f1_score(Y[:, label], Z[:, label] > found[label], zero_division=0)
        assert mine == pytest.approx(max(own))


@pytest.mark.parametrize("metric", ["micro-f1", "accuracy"])
def test_no_single_change_of_a_label_s_threshold_is_better(metric):
    task = multilabel_task(metric)
    Y, Z = task.y["validation"], shifted(task)
    start = evaluate(task, Z)
    found = label_thresholds(task, Z, start.threshold)

    def value(thresholds):
        predicted = thresholds < Z
        if metric == "accuracy":
            return (predicted == Y).all(axis=1).mean()
        return f1_score(Y, predicted, average="micro", zero_division=0)

    best = value(found)
    assert best >= start.score
    for label in range(4):
        for p in TRIED:
            other = found.copy()
            other[label] = np.log(p / (1 - p))
            assert value(other) <= best + 1e-9


def test_metrics_that_rank_leave_thresholds_alone():
    task = multilabel_task("roc-auc")
    assert label_thresholds(task, shifted(task), 0.25).tolist() == [0.25] * 4
