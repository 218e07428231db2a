"""Models that are fine-tuned in the run, and baselines: what is asked for, and its mistakes."""

from __future__ import annotations

import copy

import pytest

from probeline.config import Origin, validate
from probeline.errors import ConfigError

RIGHT = {
    "seed": 5,
    "models": {
        "m": {"path": "some/model", "layers": 6, "dtype": "bfloat16", "max_length": 64},
        "other": {"path": "some/other", "layers": 2},
        "tuned": {"finetuned_from": "m", "on": "d", "max_length": 32},
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


def test_a_fine_tuned_model_runs_where_it_is_trained():
    assert validate(RIGHT).pairs() == [
        ("d", "m"),
        ("d", "other"),
        ("d", "tuned"),
        ("deep", "m"),
        ("deep", "other"),
    ]
    runs = [{"model": "tuned", "dataset": ["d", "deep"]}]
    assert validate(changed(("runs", runs))).pairs() == [("d", "tuned"), ("deep", "tuned")]


def test_a_fine_tuned_model_is_as_its_source_but_for_what_it_says():
    config = validate(RIGHT)
    spec = config.model_spec("tuned")
    source = config.model_spec("m")
    folder = "./results/finetuned/d/label/m/5"
    assert spec == source | {"path": folder, "max_length": 32}
    assert set(spec) == set(source)
    assert config.origin("tuned") == Origin("d", "label", "m", 5)
    assert config.origin("m") is None


def test_the_trainings_of_a_run_are_each_named_once():
    config = validate(
        changed(("baselines", ["finetune"]), ("finetune", {"models": ["m"], "seeds": [5, 6]}))
    )
    assert config.origins() == [
        Origin("d", "label", "m", 5),
        Origin("d", "label", "m", 6),
        Origin("deep", "coarse", "m", 5),
        Origin("deep", "coarse", "m", 6),
        Origin("deep", "fine", "m", 5),
        Origin("deep", "fine", "m", 6),
    ]
    every = validate(changed(("baselines", ["finetune"])))
    assert {origin.model for origin in every.origins()} == {"m", "other"}
    assert validate(RIGHT).origins() == [Origin("d", "label", "m", 5)]


def test_a_bare_on_is_the_key_although_yaml_reads_a_boolean():
    values = changed(("models/tuned", {"finetuned_from": "m", True: "d"}))
    assert validate(values).origin("tuned") == Origin("d", "label", "m", 5)


def test_label_texts_are_lists_by_task():
    values = changed(
        ("datasets/d/label_texts", {"a": "one", "b": ["two", "three"]}),
        ("datasets/deep/label_texts", {"fine": {"x": "words"}}),
    )
    config = validate(values)
    assert config.label_texts("d", "label") == {"a": ["one"], "b": ["two", "three"]}
    assert config.label_texts("deep", "fine") == {"x": ["words"]}
    assert config.label_texts("deep", "coarse") == {}
    # The labels are encoded the same whatever words stand for them.
    assert config.dataset_spec("d") == validate(RIGHT).dataset_spec("d")


MISTAKES = [
    (
        [("models/m/on", "d")],
        "models.m.on: only with finetuned_from; remove it",
    ),
    (
        [("models/tuned/path", "./x")],
        "models.tuned.path: not with finetuned_from, which decides the folder; remove one",
    ),
    (
        [("models/tuned/revision", "abc")],
        "models.tuned.revision: is that of 'm'; remove it here",
    ),
    (
        [("models/tuned/finetuned_from", "mm")],
        "models.tuned.finetuned_from: 'mm' is not one of models (m, other); did you mean 'm'?",
    ),
    (
        [("models/again", {"finetuned_from": "tuned", "on": "d"})],
        "models.again.finetuned_from: 'tuned' is not one of models (m, other)",
    ),
    (
        [("models/tuned", {"finetuned_from": "m"})],
        "models.tuned.on: missing; give the name of the dataset to fine-tune on",
    ),
    (
        [("models/tuned/on", "dep")],
        "models.tuned.on: 'dep' is not one of datasets (d, deep); did you mean 'deep'?",
    ),
    (
        [("models/tuned/on", "deep")],
        "models.tuned.task: missing; 'deep' has the tasks coarse, fine",
    ),
    (
        [("models/tuned/task", "fine")],
        "models.tuned.task: 'fine' is not one of the tasks of 'd' (label)",
    ),
    (
        [("models/tfidf", {"path": "some/model"})],
        "models.tfidf: is the name of the results without a model; choose another",
    ),
    (
        [("finetune/lora", {"merge": False})],
        "finetune.lora.merge: false leaves no model that models.tuned could be read from; "
        "set it to true",
    ),
    (
        [("finetune/models", ["othr"])],
        "finetune.models: 'othr' is not one of models (m, other); did you mean 'other'?",
    ),
    (
        [("finetune/models", ["tuned"])],
        "finetune.models: 'tuned' is not one of models (m, other)",
    ),
    (
        [("icl/models", ["x"])],
        "icl.models: 'x' is not one of models (m, other, tuned)",
    ),
    (
        [("icl/neighbours", "x")],
        "icl.neighbours: 'x' is not one of models (m, other, tuned)",
    ),
    (
        [
            ("baselines", ["icl"]),
            ("icl", {"models": ["m"], "neighbours": "other", "select": "nearest"}),
            ("runs", [{"model": "m", "dataset": "d"}]),
        ],
        "icl.neighbours: 'other' does not run on 'd', so it has no embeddings of its texts; "
        "add the pair to runs",
    ),
    (
        [("baselines", ["zero-shot"]), ("extract/poolings", ["max"])],
        "baselines: zero-shot needs `hidden` and `mean` among extract.representations and "
        "extract.poolings",
    ),
    (
        [("baselines", ["icl"]), ("icl/select", "nearest"), ("extract/poolings", ["max"])],
        "icl.select: nearest needs `hidden` and `mean` among extract.representations and "
        "extract.poolings",
    ),
    (
        [("datasets/d/label_texts", {"a": {"b": "c"}})],
        "datasets.d.label_texts.a: give a text or a list of texts; only hierarchies have columns "
        "here",
    ),
    (
        [("datasets/deep/label_texts", {"fin": {"b": "c"}})],
        "datasets.deep.label_texts.fin: is none of the columns coarse, fine; did you mean 'fine'?",
    ),
    (
        [("datasets/deep/label_texts", {"fine": ["c"]})],
        "datasets.deep.label_texts.fine: is a column, so give a mapping of its labels to texts, or "
        "a file of them",
    ),
    (
        [
            ("baselines", ["finetune"]),
            ("finetune/models", ["other"]),
            ("runs", [{"model": "m", "dataset": "d"}]),
        ],
        "finetune.models: 'other' runs on no dataset; add it to runs, or remove it here",
    ),
    (
        [("tfidf/ngrams", [2, 1])],
        "tfidf.ngrams: [2, 1] is not [shortest, longest], such as [1, 2]",
    ),
    (
        [("zero_shot/template", "about it")],
        "zero_shot.template: 'about it' has no {label}, where the label's text goes",
    ),
    (
        [("finetune/warmup", 1.5)],
        "finetune.warmup: 1.5 is not a number from 0 to 1",
    ),
    (
        [("finetune/lora", {"quantize": "int8"})],
        "finetune.lora.quantize: 'int8' is not 'nf4' or null",
    ),
    (
        [("baselines", ["tf-idf"])],
        "baselines[0]: 'tf-idf' is not one of sentence-embedding, tfidf, zero-shot, icl, "
        "finetune, label-tokens, regular; did you mean 'tfidf'?",
    ),
]


@pytest.mark.parametrize(("changes", "line"), MISTAKES)
def test_each_mistake_is_one_line(changes, line):
    with pytest.raises(ConfigError) as caught:
        validate(changed(*changes))
    assert caught.value.problems == [f"config.yaml: {line}"]


def test_ngrams_of_one_length_and_a_bare_no_are_right():
    config = validate(changed(("tfidf/ngrams", [1, 1]), ("finetune/mixed_precision", False)))
    assert config.tfidf.ngrams == [1, 1]
    assert config.finetune.mixed_precision == "no"


def test_what_cannot_be_is_left_out_where_it_is_a_default():
    validate(changed(("extract/poolings", ["max"])))
