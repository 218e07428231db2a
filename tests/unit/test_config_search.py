"""The hyperparameter search in the configuration: what is asked for, and its mistakes."""

from __future__ import annotations

import pytest
from test_config_comparing import changed

from probeline.config import validate
from probeline.config.search import SEARCHED, Space
from probeline.errors import ConfigError
from probeline.search import space, stage


def test_the_words_are_those_of_the_stage():
    assert set(SEARCHED) == set(stage.SECTIONS)
    assert tuple(Space.model_fields) == space.SEARCHED


def test_the_default_space_is_one():
    found = space.searched(validate(changed()).section("search")["space"])
    assert tuple(found) == space.SEARCHED
    assert found["learning_rate"] == {"low": 1e-6, "high": 7e-5, "log": True, "step": None}


def test_an_entry_can_be_left_out_or_be_a_list():
    config = validate(
        changed(("search/space", {"epochs": None, "warmup": [0.1, 0], "learning_rate": [1e-5]}))
    )
    found = space.searched(config.section("search")["space"])
    assert "epochs" not in found
    assert (found["warmup"], found["learning_rate"]) == ([0.0, 0.1], [1e-5])


MISTAKES = [
    (
        [("search/classifiers", ["stc"])],
        "search.classifiers[0]: 'stc' is not one of finetune, label-tokens",
    ),
    (
        [("search/models", ["tuned"])],
        "search.models: 'tuned' is not one of models (m, other)",
    ),
    ([("search/trials", 0)], "search.trials: 0 is not a whole number >= 1"),
    (
        [("search/space", {"epochs": {"low": 3, "high": 1}})],
        "search.space.epochs: low 3.0 is not below high 1.0",
    ),
    (
        [("search/space", {"learning_rate": {"low": 0, "high": 1, "log": True}})],
        "search.space.learning_rate: 0.0 to 1.0 is not within numbers above 0",
    ),
    (
        [("search/space", {"weight_decay": {"low": 0, "high": 1, "log": True}})],
        "search.space.weight_decay: log is for ranges above 0 and without step; set it to false",
    ),
    (
        [("search/space", {"warmup": {"low": 0, "high": 1.5}})],
        "search.space.warmup: 0.0 to 1.5 is not within 0 to 1",
    ),
    (
        [("search/space", {"epochs": {"low": 1, "high": 2, "step": 3}})],
        "search.space.epochs: step 3.0 leaves nothing but low; take a shorter one",
    ),
    (
        [("search/classifiers", ["label-tokens"]), ("finetune/lora", {})],
        "search.classifiers: label tokens are trained with the whole model, not with adapters; set "
        "label_tokens.finetune.lora to null",
    ),
]


@pytest.mark.parametrize(("changes", "line"), MISTAKES)
def test_a_mistake_is_one_line(changes, line):
    with pytest.raises(ConfigError) as caught:
        validate(changed(*changes))
    assert len(caught.value.problems) == 1
    assert line in caught.value.problems[0]
