"""TF-IDF and logistic regression equal a scikit-learn pipeline put together by hand."""

from __future__ import annotations

import numpy as np
import pytest
from labelled_texts import labelled
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.multiclass import OneVsRestClassifier

from probeline.baselines.tfidf import Vectorizer, analyzer_of, choose, fit_linear, tfidf
from probeline.data.store import read_dataset
from probeline.errors import ProbelineError
from probeline.files import read_json
from probeline.probe.task import task_data
from probeline.results.predictions import read_predictions

OPTIONS = {"penalties": [0.1, 1.0, 10.0], "class_weight": "auto"}


def run(folder, data, **options):
    files = folder / "p.h5", folder / "s.json"
    tfidf(data, "label", *files, OPTIONS | options)
    return read_predictions(files[0]), read_json(files[1])


def by_hand(dataset, split, C, codes):
    """Logits of a split: TfidfVectorizer and LogisticRegression, nothing of ours."""
    train, part = dataset.split("train"), dataset.split(split)
    columns = [dataset.texts] if dataset.pairs is None else [dataset.texts, dataset.pairs]
    fitted, wanted = [], []
    for texts in columns:
        vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
        fitted.append(vectorizer.fit_transform(texts[train]))
        wanted.append(vectorizer.transform(texts[part]))
    model = LogisticRegression(C=C, max_iter=1000)
    if codes.ndim == 2:
        model = OneVsRestClassifier(model)
    model.fit(sparse.hstack(fitted), codes[train])
    logits = model.decision_function(sparse.hstack(wanted))
    return np.stack([-logits / 2, logits / 2], axis=1) if logits.ndim == 1 else logits


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel"])
def test_equals_a_pipeline_by_hand(tmp_path, kind, pairs):
    data = labelled(tmp_path / "d", kind, pairs)
    dataset = read_dataset(data)
    codes = dataset.labels("label")
    found, report = run(tmp_path, data)
    for split in ("train", "validation", "test"):
        truth = by_hand(dataset, split, report["C"], codes)
        truth = truth - report["validation"]["threshold"]
        assert (found.thresholds == np.float32(report["validation"]["threshold"])).all()
        np.testing.assert_allclose(found.of(split), truth, atol=2e-3)
    answers = found.of("test") > 0 if kind == "multilabel" else found.of("test").argmax(1)
    true = codes[dataset.split("test")]
    score = (
        f1_score(true, answers, average="micro")
        if kind == "multilabel"
        else accuracy_score(true, answers)
    )
    assert report["test_score"] == pytest.approx(score)
    assert report["method"] == found.meta["method"] == "tfidf"
    columns = {"binary": 1}.get(kind, 4)
    assert report["parameters_trained"] == (report["features"] + 1) * columns
    assert report["texts_per_second"] > 0
    assert report["seconds"] > report["train_seconds"] > 0


def test_c_is_the_one_that_validation_likes(tmp_path):
    data = labelled(tmp_path / "d")
    dataset = read_dataset(data)
    codes = dataset.labels("label")[dataset.split("validation")]
    _, report = run(tmp_path, data)
    scores = {
        C: accuracy_score(
            codes, by_hand(dataset, "validation", C, dataset.labels("label")).argmax(1)
        )
        for C in OPTIONS["penalties"]
    }
    assert report["validation_score"] == pytest.approx(max(scores.values()))
    assert scores[report["C"]] == max(scores.values())


def test_a_hierarchy_level_is_trained_where_it_is_defined_and_answers_everywhere(tmp_path):
    data = labelled(tmp_path / "d", hierarchy=True)
    dataset = read_dataset(data)
    found, _ = run(tmp_path, data)
    assert np.array_equal(found.defined, dataset.defined("label"))
    assert len(found.logits) == dataset.rows
    assert np.isfinite(found.logits).all()
    train = dataset.split("train")
    defined = dataset.defined("label")[train]
    vectorizer = Vectorizer(
        [t for t, d in zip(dataset.texts[train], defined, strict=True) if d], None, {}
    )
    assert vectorizer(["the"], None).shape[1] > 0


def test_balanced_weights_follow_the_metric(tmp_path):
    dataset = read_dataset(labelled(tmp_path / "d"))
    task = task_data(dataset, "label", "macro-f1")
    vectorize = Vectorizer(dataset.texts[:24], None, {})
    X = {s: vectorize([dataset.texts[r] for r in task.rows[s]], None) for s in task.rows}
    seen = []
    for weights, expected in (("auto", {None, "balanced"}), ("balanced", {"balanced"})):
        options = OPTIONS | {"class_weight": weights}
        chosen = choose(X, task, options)
        assert chosen.class_weight in expected
        seen.append(chosen.evaluation.score)
    answers = task.y["validation"], chosen.linear(X["validation"]).argmax(1)
    assert seen[1] == pytest.approx(f1_score(*answers, average="macro"))
    assert seen[0] >= seen[1]


CHINESE = ["我的信用卡什么时候到", "余额为什么没有更新", "汇率是多少", "卡被拒绝了"]


@pytest.mark.parametrize(
    "texts, analyzer",
    [
        (CHINESE, "char"),
        (["カードはいつ届きますか"], "char"),
        (["บัตรของฉันอยู่ที่ไหน"], "char"),
        (["when does my card arrive", "你好"], "word"),
        (["моя карта не пришла"], "word"),
        (["카드가 언제 도착하나요"], "word"),
        (["", "12 3"], "word"),
    ],
)
def test_scripts_without_spaces_are_counted_by_character(texts, analyzer):
    assert analyzer_of(texts, "auto") == analyzer


def test_chinese_texts_share_features():
    X = Vectorizer(CHINESE, None, {})(["信用卡被拒绝"], None)
    assert X.nnz > 5
    assert Vectorizer(CHINESE, None, {"analyzer": "word"})(["信用卡被拒绝"], None).nnz == 0


@pytest.mark.parametrize("classes", [2, 3])
def test_train_texts_of_one_class(classes):
    X = sparse.csr_array(np.eye(4))
    linear = fit_linear(X, np.ones(4, dtype=int), classes, 1.0, None, 100)
    logits = linear(X)
    answers = logits[:, 0] > 0 if classes == 2 else logits.argmax(1)
    assert (answers == 1).all()
    assert np.isfinite(logits).all()


@pytest.mark.parametrize("present", [[0, 2], [0, 1, 3]])
def test_classes_without_a_training_text_are_not_predicted(present):
    rng = np.random.default_rng(0)
    y = np.array(present * 10)
    X = rng.normal(size=(len(y), 3)) + np.eye(4)[y][:, :3]
    linear = fit_linear(sparse.csr_array(X), y, 4, 1.0, None, 100)
    reference = LogisticRegression(C=1.0).fit(X, y)
    assert np.array_equal(linear(X).argmax(1), reference.predict(X))


def test_a_label_that_no_training_text_has():
    y = np.array([[0, 1], [0, 0], [0, 1]])
    logits = fit_linear(sparse.csr_array(np.eye(3)), y, 2, 1.0, None, 100)(np.eye(3))
    assert (logits[:, 0] < 0).all()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"analyzer": "words"}, "did you mean 'word'"),
        ({"min_df": 999}, "lower `min_df`"),
        ({"ngrams": [2, 1]}, "ngrams: .2, 1.: expected the shorter run first"),
    ],
)
def test_mistakes_are_one_line(tmp_path, options, message):
    with pytest.raises(ProbelineError, match=message) as error:
        run(tmp_path, labelled(tmp_path / "d"), **options)
    assert "\n" not in str(error.value)
