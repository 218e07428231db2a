"""Reranking and scores made elsewhere: what is asked for, and its mistakes."""

from __future__ import annotations

import copy

import pytest

from probeline.config import validate
from probeline.errors import ConfigError

RIGHT = {
    "models": {
        "m": {"path": "some/model", "layers": 6},
        "other": {"path": "some/other", "layers": 2},
    },
    "datasets": {
        "d": {"loader": "hub", "path": "a/d", "splits": {"validation": 0.1, "test": "test"}},
        "deep": {
            "loader": "csv",
            "path": "x.csv",
            "label": ["coarse", "fine"],
            "splits": {"validation": 0.1, "test": 0.1},
        },
    },
    "lrsl": {"sources": ["stc", "tfidf", "given"], "embedder": "./embedder"},
    "scores": {"theirs": {"dataset": "d", "path": "scores.csv"}},
}


def changed(*changes: tuple[str, object]) -> dict:
    values = copy.deepcopy(RIGHT)
    for path, value in changes:
        *parents, last = path.split("/")
        place = values
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return values


def test_nothing_is_reranked_by_default():
    config = validate({key: RIGHT[key] for key in ("models", "datasets")})
    assert config.lrsl.sources == [] and config.scores == {}


def test_what_is_asked_for_stands_in_a_fixed_order():
    config = validate(changed(("lrsl/sources", ["given", "tfidf", "probe", "stc"])))
    assert config.lrsl.sources == ["stc", "probe", "tfidf", "given"]
    # Here the order has a meaning: with `fixed` the first one is taken.
    forms = validate(changed(("lrsl/forms", ["mlp", "prob"]), ("lrsl/powers", [3, 1]))).lrsl
    assert (forms.forms, forms.powers) == (["mlp", "prob"], [3.0, 1.0])


def test_an_embedding_may_be_used_as_it_comes():
    assert validate(changed(("lrsl/tune", None))).lrsl.tune is None
    assert validate(changed(("lrsl/tune", {}))).lrsl.tune.loss == "mnrl"
    no = validate(changed(("lrsl/tune", {"mixed_precision": False})))
    assert no.lrsl.tune.mixed_precision == "no"


@pytest.mark.parametrize("folds", [0, 2, 127])
def test_so_many_folds_there_can_be(folds):
    assert validate(changed(("lrsl/crossfit", folds))).lrsl.crossfit == folds


def test_seeds_are_the_global_one_where_none_are_given():
    assert validate(RIGHT).seeds(validate(RIGHT).lrsl) == [42]
    config = validate(changed(("lrsl/seeds", [3, 1])))
    assert config.seeds(config.lrsl) == [1, 3]


def test_label_texts_may_be_a_file():
    values = changed(
        ("datasets/d/label_texts", "labels.csv"),
        ("datasets/deep/label_texts", {"fine": "fine.yaml"}),
    )
    config = validate(values)
    assert config.label_texts("d", "label") == "labels.csv"
    assert config.label_texts("deep", "fine") == "fine.yaml"
    assert config.label_texts("deep", "coarse") == {}


MISTAKES = [
    (
        [("lrsl/sources", ["icl", "stc"]), ("lrsl/tune", None)],
        "lrsl.sources: icl is none of baselines (sentence-embedding, tfidf), so there is nothing "
        "to rerank; add it there, or remove it here",
    ),
    (
        [("lrsl/sources", ["sct"])],
        "lrsl.sources[0]: 'sct' is not text such as stc; did you mean 'stc'?",
    ),
    (
        [("scores", {})],
        "lrsl.sources: given are the scores made elsewhere, and `scores` names none",
    ),
    (
        [("lrsl", {"sources": ["stc"]})],
        "lrsl.embedder: missing; give a sentence embedding, such as "
        "'sentence-transformers/all-MiniLM-L6-v2'",
    ),
    (
        [("lrsl/revision", "abc")],
        "lrsl.revision: only hub models have revisions, and './embedder' is a local one",
    ),
    (
        [("lrsl/models", ["n", "m"])],
        "lrsl.models: 'n' is not one of models (m, other)",
    ),
    (
        [("lrsl/models", ["other"]), ("runs", [{"model": "m", "dataset": "d"}])],
        "lrsl.models: 'other' runs on no dataset; add it to runs, or remove it here",
    ),
    (
        [("lrsl/fixed", True), ("lrsl/threshold", "validation")],
        "lrsl.threshold: validation is a choice, and fixed leaves none; give misclassified or a "
        "number",
    ),
    (
        [("lrsl/sources", ["icl"]), ("baselines", ["icl"]), ("icl/models", ["m"])],
        "icl.max_texts.train: 0 leaves no scored training texts for lrsl to tune the embedding "
        "on; raise it, or set lrsl.tune to null",
    ),
    (
        [("lrsl/crossfit", 1)],
        "lrsl.crossfit: 1 folds cannot be held out in turn; give 2 to 127, or 0 for the "
        "classifiers' own logits",
    ),
    ([("lrsl/crossfit", 128)], "lrsl.crossfit: 128 folds cannot be held out in turn; give 2 to "),
    ([("lrsl/crossfit", -1)], "lrsl.crossfit: -1 is not a whole number >= 0"),
    ([("lrsl/k", 1)], "lrsl.k: 1 is not 'auto' or a whole number >= 2"),
    ([("lrsl/threshold", 1.5)], "lrsl.threshold: 1.5 is not one of misclassified, validation, or "),
    ([("lrsl/powers", [])], "lrsl.powers: is empty; give a list, each item a number > 0"),
    ([("lrsl/forms", [])], "lrsl.forms: is empty; give a list, each item one of prob, mix, mlp, "),
    ([("lrsl/weights", [1.5])], "lrsl.weights[0]: 1.5 is not a number > 0 and <= 1"),
    (
        [("lrsl/template", "about it")],
        "lrsl.template: 'about it' has no {label}, where the label's text goes",
    ),
    (
        [("lrsl/tune", {"loss": "mrl"})],
        "lrsl.tune.loss: 'mrl' is not one of mnrl, triplet, cached-mnrl; did you mean 'mnrl'?",
    ),
    (
        [("scores/theirs/dataset", "dd")],
        "scores.theirs.dataset: 'dd' is not one of datasets (d, deep); did you mean 'd'?",
    ),
    (
        [("scores/theirs/dataset", "deep")],
        "scores.theirs.task: missing; 'deep' has the tasks coarse, fine",
    ),
    (
        [("scores/theirs/task", "lable")],
        "scores.theirs.task: 'lable' is not one of the tasks of 'd' (label); did you mean 'label'?",
    ),
    (
        [("scores/M", RIGHT["scores"]["theirs"])],
        "scores.M: has the name of the model 'm', whose results lie in a folder of that name; "
        "choose another",
    ),
    (
        [("scores/tfidf", RIGHT["scores"]["theirs"])],
        "scores.tfidf: has the name of the model 'tfidf', whose results lie in a folder of that "
        "name; choose another",
    ),
    (
        [("runs", [{"model": "m", "dataset": "deep"}])],
        "scores.theirs.dataset: no model runs on 'd'; add it to runs, or remove the scores",
    ),
    ([("scores/theirs", {"dataset": "d"})], "scores.theirs.path: missing; give text, such as "),
    (
        [("scores/theirs/kind", "scores")],
        "scores.theirs.kind: 'scores' is not one of logits, probabilities",
    ),
    (
        [("datasets/deep/label_texts", "labels.csv")],
        "datasets.deep.label_texts: is a file, but there are several label columns; give a "
        "mapping of column (coarse, fine) to its file",
    ),
]


@pytest.mark.parametrize(("changes", "line"), MISTAKES)
def test_each_mistake_is_one_line(changes, line):
    with pytest.raises(ConfigError) as caught:
        validate(changed(*changes))
    (found,) = caught.value.problems
    assert found.startswith(f"config.yaml: {line}")
