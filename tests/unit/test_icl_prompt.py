"""Prompts: how they read, what gives way when they are too long, which examples they show."""

from __future__ import annotations

import numpy as np
import pytest
from labelled_texts import labelled
from tiny_language_models import build_causal
from tiny_models import VOCABULARY

from probeline.baselines.icl.fitting import Query, fit_prompts, label_tokens
from probeline.baselines.icl.prompt import template_of
from probeline.baselines.icl.rows import scored_rows
from probeline.baselines.icl.shots import class_shots, nearest_shots
from probeline.data.store import read_dataset
from probeline.errors import ProbelineError
from probeline.models.causal import load_causal
from probeline.probe.task import SPLITS, task_data

LINE = {"example": "{text} = {label}", "separator": " ; "}


def template(pair=False, **options):
    return template_of(options, pair, ["rain", "bread"])


def test_how_a_prompt_reads():
    default = template(instruction="One of {labels}.")
    shots = [default.shot("a film", None, "rain")]
    assert default.prompt(shots, "the cat") == (
        "One of bread, rain.\n\nText: a film\nLabel: rain\n\nText: the cat\nLabel:"
    )
    assert (default.lead, default.gap) == ("\nLabel:", " ")
    pair = template(pair=True)
    assert pair.prompt([], "a", "b") == "Text 1: a\nText 2: b\nLabel:"
    own = template(example="{{{text}}} -> {label}!", separator="|")
    assert own.prompt([own.shot("x {label}", None, "rain")], "y") == "{x {label}} -> rain!|{y} ->"


@pytest.mark.parametrize(
    "pair, example, message",
    [
        (False, "Label: {label}", "has no {text}"),
        (False, "{text}", "must have {label} once"),
        (False, "{label}: {text}", "must have {label} once, after the text"),
        (False, "{text} {label} {label}", "must have {label} once"),
        (False, "{text} {lable}", "did you mean 'label'"),
        (False, "{text} {} {label}", "not one of"),
        (False, "{text} {text_b} {label}", "no second texts"),
        (True, "{text} {label}", "has no {text_b}"),
        (True, "{text_b} {label}", "has no {text_a}"),
        (False, "{text {label}", "brace"),
        (False, "{text!r} {label}", "no format"),
    ],
)
def test_bad_templates_are_one_line(pair, example, message):
    with pytest.raises(ProbelineError, match=message) as error:
        template(pair, example=example)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = build_causal("llama", tmp_path_factory.mktemp("llama"))
    return load_causal({"path": str(folder), "dtype": "float32", "device": "cpu"})


@pytest.fixture(scope="module")
def bytes_model(tmp_path_factory):
    folder = build_causal("gpt2", tmp_path_factory.mktemp("bytes"), byte_level=True)
    return load_causal({"path": str(folder), "dtype": "float32", "device": "cpu"})


SHOTS = ["the cat = rain", "a film = bread", "stock markets fell = rain", "yes = bread"]


@pytest.mark.parametrize(
    "room, kept",
    # The start token, the text's two tokens, "=": 4; each example's tokens and its ";" beside.
    [(None, 4), (26, 4), (25, 4), (21, 3), (20, 3), (19, 2), (14, 2), (13, 1), (9, 1), (8, 0)],
)
def test_the_last_examples_are_dropped_first(model, room, kept):
    shots = SHOTS
    lengths = [1 + len(shot.split()) for shot in shots]
    fits = [k for k in range(5) if room is None or 4 + sum(lengths[:k]) <= room]
    found = fit_prompts(model, template(**LINE), [Query("the film", None, shots)], room)
    assert found.kept.tolist() == [max(fits)] == [kept]
    text = " ; ".join([*shots[: max(fits)], "the film ="])
    ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert found.ids[0].tolist() == [VOCABULARY["[CLS]"], *ids]
    assert not found.cut.any()


def test_each_text_drops_what_it_must(model):
    queries = [Query(text, None, SHOTS) for text in ("rain", "the cat sat on the mat " * 3)]
    found = fit_prompts(model, template(**LINE), queries, 25)
    assert found.kept.tolist() == [4, 1]
    assert not found.cut.any()


def test_reversed_examples_drop_the_farthest(model):
    query = Query("the film", None, SHOTS, reverse=True)
    found = fit_prompts(model, template(**LINE), [query], 15)
    text = " ; ".join([SHOTS[1], SHOTS[0], "the film ="])
    ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert found.ids[0].tolist()[1:] == ids


@pytest.mark.parametrize("pair", [None, "rain"])
def test_the_text_is_cut_when_no_example_is_left(model, pair):
    form = template(pair is not None, **(LINE if pair is None else {}))
    query = Query("the cat sat on the mat", pair, SHOTS)
    whole = fit_prompts(model, form, [Query(query.text, pair, [])], None).ids[0]
    found = fit_prompts(model, form, [query], len(whole) - 2)
    assert found.kept.tolist() == [0]
    assert found.cut.tolist() == [True]
    ids = found.ids[0]
    assert len(ids) <= len(whole) - 2
    # What the label follows is still there.
    ending = model.tokenizer(form.lead, add_special_tokens=False)["input_ids"]
    assert ids[-len(ending) :].tolist() == ending
    if pair:
        assert VOCABULARY["rain"] in ids


def test_a_context_too_small_for_the_template(model):
    with pytest.raises(ProbelineError, match="raise `context`"):
        fit_prompts(model, template(), [Query("the cat", None, [])], 3)


def test_byte_level_prompts_fill_the_room(bytes_model):
    shots = [template().shot(f"the film {k} is slow", None, "rain") for k in range(6)]
    queries = [Query("a new phone " * n, None, shots) for n in range(1, 6)]
    lengths = [len(ids) for ids in fit_prompts(bytes_model, template(), queries, None).ids]
    for room in range(min(lengths) - 40, max(lengths) + 1, 7):
        found = fit_prompts(bytes_model, template(), queries, room)
        for query, ids, kept in zip(queries, found.ids, found.kept, strict=True):
            assert len(ids) <= room
            if kept < len(shots):
                more = bytes_model.tokenizer(query.prompt(template(), kept + 1))["input_ids"]
                assert len(more) > room


def test_labels_take_their_space_along(bytes_model):
    form = template()
    for word in ("rain", "the bank"):
        whole = bytes_model.tokenizer("Text: yes\nLabel: " + word)["input_ids"]
        before = bytes_model.tokenizer("Text: yes\nLabel:")["input_ids"]
        assert before + label_tokens(bytes_model, form, word) == whole


def test_an_empty_prompt_begins_with_the_start_token(bytes_model):
    form = template(example="{text}{label}")
    assert fit_prompts(bytes_model, form, [Query("", None, [])], None).ids[0].tolist() == [0]


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel"])
def test_examples_of_every_class(tmp_path, kind):
    task = task_data(read_dataset(labelled(tmp_path / "d", kind)), "label")
    shots = class_shots(task, 2, seed=1)
    assert len(set(shots.tolist())) == len(shots) == 2 * task.classes
    y = task.y["train"][np.searchsorted(task.rows["train"], shots)]
    if kind != "multilabel":
        for part in (y[: task.classes], y[task.classes :]):
            assert sorted(part) == list(range(task.classes))
    assert np.array_equal(class_shots(task, 1, seed=1), shots[: task.classes])
    assert np.array_equal(class_shots(task, 2, seed=1), shots)
    assert not np.array_equal(class_shots(task, 2, seed=2), shots)
    assert class_shots(task, 0, seed=1).shape == (0,)


def test_the_vocabularys_order_does_not_choose_the_examples(tmp_path):
    codes = np.arange(48) % 3
    names = ["a", "b", "c"]
    one = labelled(tmp_path / "one", labels=names, codes=codes)
    other = labelled(tmp_path / "other", labels=names[::-1], codes=2 - codes)
    shots = [class_shots(task_data(read_dataset(d), "label"), 2, 0) for d in (one, other)]
    assert np.array_equal(*shots)


def test_a_class_without_training_texts(tmp_path, caplog):
    codes = np.where(np.arange(48) < 24, np.arange(48) % 3, np.arange(48) % 4)
    task = task_data(read_dataset(labelled(tmp_path / "d", codes=codes)), "label")
    with caplog.at_level("INFO"):
        shots = class_shots(task, 2, 0)
    assert len(shots) == 6
    assert "no example: longSpeech" in caplog.text


def test_a_class_with_fewer_texts_gives_all_it_has(tmp_path):
    codes = np.zeros(48, dtype=int)
    codes[[3, 30, 40]] = 1
    task = task_data(read_dataset(labelled(tmp_path / "d", "binary", codes=codes)), "label")
    assert len(class_shots(task, 3, 0)) == 4


def test_nearest_examples_equal_a_loop(tmp_path):
    task = task_data(read_dataset(labelled(tmp_path / "d")), "label")
    X = np.random.default_rng(0).normal(size=(48, 5)).astype(np.float32)
    rows = np.array([2, 30, 47])
    found = nearest_shots(X, task, rows, 4)
    for row, own in zip(rows, found, strict=True):
        cosines = {
            k: X[row] @ X[k] / np.linalg.norm(X[row]) / np.linalg.norm(X[k])
            for k in range(24)
            if k != row
        }
        assert own.tolist() == sorted(cosines, key=cosines.get, reverse=True)[:4]


def test_equally_near_examples_stand_in_order(tmp_path):
    task = task_data(read_dataset(labelled(tmp_path / "d")), "label")
    found = nearest_shots(np.ones((48, 3), np.float32), task, np.array([2, 30]), 99)
    assert found.shape == (2, 23)
    assert found[0].tolist() == [0, 1, *range(3, 24)]
    assert found[1].tolist() == list(range(23))
    with pytest.raises(ProbelineError, match="30 embeddings"):
        nearest_shots(np.ones((30, 3)), task, np.array([40]), 2)


@pytest.mark.parametrize("hierarchy", [False, True])
def test_a_part_of_a_split(tmp_path, hierarchy):
    dataset = read_dataset(labelled(tmp_path / "d", hierarchy=hierarchy))
    task = task_data(dataset, "label")
    rows, part = scored_rows(dataset, task, {"train": 0, "validation": 5}, seed=3)
    assert {split: len(part.rows[split]) for split in SPLITS} == {
        "train": 0,
        "validation": 5,
        "test": len(task.rows["test"]),
    }
    # All of the test split, rows without a label of this level included.
    assert rows.tolist() == [*part.rows["validation"], *range(36, 48)]
    codes = dataset.labels("label")
    assert np.array_equal(part.y["validation"], codes[part.rows["validation"]])
    more, _ = scored_rows(dataset, task, {"train": 0, "validation": 7}, seed=3)
    assert set(rows) <= set(more)
    other, _ = scored_rows(dataset, task, {"train": 0, "validation": 5}, seed=4)
    assert other.tolist() != rows.tolist()
