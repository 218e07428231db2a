"""The TF-IDF baseline: words or characters counted, L2 logistic regression. The honest floor."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy import sparse

from probeline.baselines.report import Cost, write_baseline
from probeline.data.store import Dataset, read_dataset
from probeline.errors import ProbelineError, one_of
from probeline.probe.task import TaskData, task_data
from probeline.probe.threshold import Evaluation, evaluate
from probeline.results.predictions import every_row

log = logging.getLogger(__name__)
ANALYZERS = ("auto", "word", "char")
_NGRAMS = {"word": (1, 2), "char": (1, 3)}
# Scripts without spaces between words: Thai, Lao, Burmese, Khmer, kana, Chinese characters.
_UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    r"\U00020000-\U0002fa1f]"
)
_LETTER = re.compile(r"[^\W\d_]")
_UNSPACED_SHARE = 0.3
# How far a class without a training text stays below the least likely of the others.
_NEVER = 10.0


class Vectorizer:
    """TF-IDF of texts, or of first and second texts side by side. Fitted on what it is made with.

    Parameters
    ----------
    texts, pairs : sequence of str
        Training texts; `pairs` are the second ones, or None.
    options : mapping
        analyzer, ngrams, min_df, max_features, sublinear_tf.

    Attributes
    ----------
    analyzer : {"word", "char"}
    """

    def __init__(self, texts: Sequence[str], pairs: Sequence[str] | None, options: Mapping):
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.analyzer = analyzer_of(texts, options.get("analyzer", "auto"))
        ngrams = options.get("ngrams", "auto")
        if ngrams != "auto" and ngrams[0] > ngrams[1]:
            raise ProbelineError(
                f"tfidf.ngrams: {list(ngrams)}: expected the shorter run first, then the longer"
            )
        self._parts = []
        for part in (texts, pairs):
            if part is None:
                continue
            vectorizer = TfidfVectorizer(
                analyzer=self.analyzer,
                ngram_range=_NGRAMS[self.analyzer] if ngrams == "auto" else tuple(ngrams),
                sublinear_tf=options.get("sublinear_tf", True),
                min_df=options.get("min_df", 1),
                max_features=options.get("max_features"),
            )
            try:
                vectorizer.fit(part)
            except ValueError as error:
                raise ProbelineError(
                    f"tfidf: no features are left of the training texts ({error}); lower `min_df` "
                    "or set `analyzer: char`"
                ) from None
            self._parts.append(vectorizer)

    def __call__(self, texts: Sequence[str], pairs: Sequence[str] | None) -> sparse.csr_array:
        """Features float64 (n, p) of texts; each text's part has length 1."""
        columns = [texts] if pairs is None else [texts, pairs]
        parts = [v.transform(part) for v, part in zip(self._parts, columns, strict=True)]
        return sparse.csr_array(sparse.hstack(parts, format="csr"))


def analyzer_of(texts: Sequence[str], setting: str) -> str:
    """Resolve 'auto': characters where much of the writing has no spaces between words."""
    if setting not in ANALYZERS:
        raise ProbelineError(f"tfidf.analyzer: {one_of(setting, ANALYZERS)}")
    if setting != "auto":
        return setting
    letters = sum(len(_LETTER.findall(text)) for text in texts)
    unspaced = sum(len(_UNSPACED.findall(text)) for text in texts)
    return "char" if unspaced > _UNSPACED_SHARE * max(letters, 1) else "word"


@dataclass(frozen=True)
class Linear:
    """A fitted classifier: weights float64 (p, 1 or K) and intercept (1 or K,)."""

    weights: np.ndarray
    intercept: np.ndarray

    def __call__(self, X) -> np.ndarray:
        """Logits (n, 1 or K)."""
        return X @ self.weights + self.intercept


def fit_linear(
    X, y: np.ndarray, classes: int, C: float, class_weight: str | None, max_iterations: int
) -> Linear:
    """Fit an L2 logistic regression, multinomial, or one per label for indicators `y` (n, K).

    A class or label that every training text has, or none, gets a constant instead of an error.
    """
    if y.ndim == 2:
        parts = [_fit(X, column, C, class_weight, max_iterations) for column in y.T.astype(int)]
        return Linear(
            np.concatenate([p.weights for p in parts], axis=1),
            np.concatenate([p.intercept for p in parts]),
        )
    if classes == 2:
        return _fit(X, y, C, class_weight, max_iterations)
    present = np.unique(y)
    weights = np.zeros((X.shape[1], classes))
    intercept = np.full(classes, -_NEVER)
    if len(present) == 1:
        intercept[present] = 0.0
        return Linear(weights, intercept)
    part = _fit(X, np.searchsorted(present, y), C, class_weight, max_iterations)
    if len(present) == 2:
        part = Linear(
            np.concatenate([-part.weights, part.weights], 1) / 2,
            np.concatenate([-part.intercept, part.intercept]) / 2,
        )
    weights[:, present] = part.weights
    if len(present) < classes:
        # A logit linear in X cannot lie below all others everywhere, but below their mean it can.
        absent = np.setdiff1d(np.arange(classes), present)
        weights[:, absent] = part.weights.mean(axis=1, keepdims=True)
        intercept[absent] = part.intercept.mean() - _NEVER
    intercept[present] = part.intercept
    return Linear(weights, intercept)


def _fit(X, y: np.ndarray, C: float, class_weight, max_iterations: int) -> Linear:
    """Two classes or more that all occur, or 0/1 of which one may be missing."""
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(y)) == 1:
        positive, n = y.sum(), len(y)
        odds = np.log((positive + 0.5) / (n - positive + 0.5))
        return Linear(np.zeros((X.shape[1], 1)), np.array([odds]))
    model = LogisticRegression(C=C, class_weight=class_weight, max_iter=max_iterations)
    model.fit(X, y)
    return Linear(model.coef_.T, model.intercept_)


@dataclass(frozen=True)
class Choice:
    """A fit and what validation says of it."""

    C: float
    class_weight: str | None
    linear: Linear
    evaluation: Evaluation


def choose(X: Mapping, task: TaskData, options: Mapping) -> Choice:
    """Fit every C and class weight; the best validation score, then the lowest log loss, wins."""
    choices = []
    for class_weight in task.class_weights(options.get("class_weight", "auto")):
        for C in sorted(options["penalties"]):
            linear = fit_linear(
                X["train"],
                task.y["train"],
                task.classes,
                C,
                class_weight,
                options.get("max_iterations", 1000),
            )
            evaluation = evaluate(task, linear(X["validation"]))
            choices.append(Choice(C, class_weight, linear, evaluation))
            log.info("tfidf: C %g, weights %s: %.4f", C, class_weight, evaluation.score)
    return min(choices, key=lambda c: (-c.evaluation.score, c.evaluation.log_loss))


def tfidf(
    dataset_folder: str | os.PathLike,
    task_name: str,
    predictions: str | os.PathLike,
    scores: str | os.PathLike,
    options: Mapping,
    metric: str | None = None,
) -> None:
    """Train and score the baseline.

    Parameters
    ----------
    predictions, scores : path
        HDF5 and JSON that are written.
    options : mapping
        `penalties`: scikit-learn C values; `class_weight`, `analyzer`, `ngrams`, `min_df`,
        `max_features`, `sublinear_tf`, `max_iterations`.

    Raises
    ------
    ProbelineError
        If the training texts leave no features.
    """
    started = time.perf_counter()
    dataset = read_dataset(dataset_folder)
    task = task_data(dataset, task_name, metric)
    train = task.rows["train"]
    vectorize = Vectorizer(*texts_of(dataset, train), options)
    X = {
        split: vectorize(*texts_of(dataset, task.rows[split])) for split in ("train", "validation")
    }
    choice = choose(X, task, options)
    trained = time.perf_counter()
    linear, threshold = choice.linear, choice.evaluation.threshold

    def logits_of(rows: slice) -> np.ndarray:
        features = vectorize(*texts_of(dataset, np.arange(rows.start, rows.stop)))
        return linear(features) - threshold

    logits = every_row(dataset, logits_of)
    finished = time.perf_counter()
    cost = Cost(
        finished - started,
        trained - started,
        finished - trained,
        dataset.rows,
        linear.weights.size + linear.intercept.size,
    )
    more = {
        "analyzer": vectorize.analyzer,
        "features": X["train"].shape[1],
        "C": choice.C,
        "class_weight": choice.class_weight,
        "validation": asdict(choice.evaluation),
    }
    meta = {"model": "tfidf", "method": "tfidf", "variant": vectorize.analyzer}
    write_baseline(predictions, scores, dataset, task, logits, meta, cost, more, threshold)


def texts_of(dataset: Dataset, rows: np.ndarray) -> tuple[list[str], list[str] | None]:
    """Texts of some rows, and their second texts, or None."""
    first = [dataset.texts[row] for row in rows]
    return first, None if dataset.pairs is None else [dataset.pairs[row] for row in rows]
