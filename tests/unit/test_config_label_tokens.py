"""Labels as tokens in the configuration: what is asked for, and its mistakes."""

from __future__ import annotations

import pytest
from test_config_comparing import changed

from probeline.config import INITIALIZATIONS, SOURCES, validate
from probeline.errors import ConfigError
from probeline.label_tokens import initial
from probeline.probe.threshold import THRESHOLDS

ON = ("baselines", ["label-tokens"])


def test_the_words_are_those_of_the_model_and_the_stage():
    assert INITIALIZATIONS == initial.INITIALIZATIONS
    for word in THRESHOLDS:
        validate(changed(("label_tokens/thresholds", word)))
    assert "label-tokens" in SOURCES


def test_every_model_with_a_path_is_trained_or_those_that_are_named():
    every = validate(changed(ON))
    assert [name for name in every.models if every.reads_labels(name)] == ["m", "other"]
    some = validate(changed(ON, ("label_tokens/models", ["other"])))
    assert [name for name in some.models if some.reads_labels(name)] == ["other"]
    none = validate(changed())
    assert not any(none.reads_labels(name) for name in none.models)


def test_the_regular_classifier_is_trained_where_label_tokens_would_be():
    config = validate(changed(("baselines", ["regular"]), ("label_tokens/models", ["other"])))
    assert [name for name in config.models if config.is_counterpart(name)] == ["other"]
    assert not any(config.reads_labels(name) for name in config.models)
    assert not any(validate(changed(ON)).is_counterpart(name) for name in ("m", "other"))


def test_what_the_training_leaves_out_is_as_in_finetune():
    config = validate(
        changed(
            ("finetune", {"epochs": 7, "batch_size": 4, "max_grad_norm": 2.0}),
            ("label_tokens/finetune", {"batch_size": 8, "max_grad_norm": None}),
        )
    )
    found, theirs = config.label_token_training(), config.section("finetune")
    assert found == theirs | {"batch_size": 8, "max_grad_norm": None}
    assert theirs["batch_size"] == 4
    assert validate(changed()).label_token_training() == validate(changed()).section("finetune")


def test_adapters_of_the_regular_classifier_can_be_switched_off():
    config = validate(changed(ON, ("finetune/lora", {}), ("label_tokens/finetune", {"lora": None})))
    assert config.label_token_training()["lora"] is None
    assert config.section("finetune")["lora"] is not None


NOT_ADAPTERS = "label tokens are trained with the whole model, not with adapters; set it to null"
MISTAKES = [
    (
        [("label_tokens/initializations", ["mix", "zeros"])],
        "label_tokens.initializations[1]: 'zeros' is not one of random, mean, label_text, cls, mix",
    ),
    (
        [("label_tokens/initializations", [])],
        "label_tokens.initializations: is empty; give a list, each item one of random, mean, "
        "label_text, cls, mix",
    ),
    (
        [("label_tokens/position", "before")],
        "label_tokens.position: 'before' is not one of auto, prefix, suffix",
    ),
    (
        [("label_tokens/chunk", 0)],
        "label_tokens.chunk: 0 is not a whole number >= 1 or null",
    ),
    (
        [("label_tokens/shortlist", 1)],
        "label_tokens.shortlist: 1 is not a whole number >= 2 or null",
    ),
    (
        [("label_tokens/attention", -1)],
        "label_tokens.attention: -1 is not a whole number >= 0",
    ),
    (
        [("label_tokens/readings", ["isolatd"])],
        "label_tokens.readings[0]: 'isolatd' is not one of joint, unordered, isolated; did you "
        "mean 'isolated'?",
    ),
    (
        [("label_tokens/thresholds", "chosn")],
        "label_tokens.thresholds: 'chosn' is not one of fixed, chosen, per-label; did you mean "
        "'chosen'?",
    ),
    (
        [("label_tokens/models", ["tuned"])],
        "label_tokens.models: 'tuned' is not one of models (m, other)",
    ),
    (
        [
            ON,
            ("label_tokens/models", ["other"]),
            ("runs", [{"model": "m", "dataset": "d"}]),
        ],
        "label_tokens.models: 'other' runs on no dataset; add it to runs, or remove it here",
    ),
    (
        [("label_tokens/finetune", {"seeds": [1]})],
        "label_tokens.finetune.seeds: is that of the section around it; set label_tokens.seeds",
    ),
    (
        [("label_tokens/finetune", {"epoch": 1})],
        "label_tokens.finetune.epoch: unknown key; did you mean 'epochs'?",
    ),
    (
        [ON, ("finetune/lora", {})],
        f"label_tokens.finetune.lora: {NOT_ADAPTERS}, which is as in `finetune` if left out",
    ),
    (
        [ON, ("label_tokens/finetune", {"lora": {}})],
        f"label_tokens.finetune.lora: {NOT_ADAPTERS}",
    ),
    (
        [("lrsl", {"sources": ["label-tokens"], "embedder": "a/b"})],
        "lrsl.sources: label-tokens is none of baselines (sentence-embedding, tfidf), so there is "
        "nothing to rerank; add it there, or remove it here",
    ),
]


@pytest.mark.parametrize(("changes", "line"), MISTAKES)
def test_each_mistake_is_one_line(changes, line):
    with pytest.raises(ConfigError) as caught:
        validate(changed(*changes))
    assert caught.value.problems == [f"config.yaml: {line}"]
