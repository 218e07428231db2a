"""Whatever is misspelt is named, and whatever is written, the answer is lines, not a crash."""

from __future__ import annotations

import copy
import difflib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from probeline.config import load, read, reference, validate
from probeline.config.words import path_words
from probeline.errors import ConfigError

DEFAULT = read(Path(__file__).parents[2] / "config.yaml")

# The default configuration and entries that use every other key.
FULL = copy.deepcopy(DEFAULT)
FULL["models"]["hub"] = {
    "path": "some/model",
    "revision": "abc",
    "tokenizer": "some/other",
    "max_length": 64,
    "dtype": "auto",
    "device": "cpu",
    "layers": 12,
    "trust_remote_code": False,
    "batch_tokens": 4096,
}
FULL["models"]["tuned"] = {
    "finetuned_from": "hub",
    "on": "table",
    "task": "fine",
    "seed": 1,
    "max_length": 32,
}
FULL["finetune"]["lora"] = {
    "rank": 8,
    "alpha": 16,
    "dropout": 0.1,
    "targets": "all-linear",
    "quantize": None,
    "merge": True,
}
FULL["datasets"]["table"] = {
    "loader": "csv",
    "path": "folder",
    "encoding": "utf-8",
    "text": ["premise", "hypothesis"],
    "label": ["coarse", "fine"],
    "undefined": "none",
    "label_names": {"coarse": ["a", "b"]},
    "label_texts": {"coarse": {"a": "the first", "b": ["the second", "the other"]}},
    "splits": {"train": "a.csv", "validation": 0.1, "test": "b.csv"},
    "split_method": "random",
    "split_seed": 1,
    "max_texts": {"train": 100, "validation": 10, "test": 10},
    "empty": "drop",
    "duplicates": "keep",
    "metric": {"fine": "macro-f1"},
}
FULL["scores"] = {
    "theirs": {
        "dataset": "bbc",
        "task": "label",
        "path": "scores.csv",
        "kind": "logits",
        "text": "said",
        "row": None,
        "encoding": "cp1252",
    }
}
FULL["lrsl"] = {
    "sources": ["stc", "given"],
    "models": "all",
    "embedder": "some/embedder",
    "revision": "abc",
    "max_length": 64,
    "template": "about {label}",
    "label_similarity": "best",
    "crossfit": 3,
    "triplets": {"k": 3, "per_text": 2, "hard_only": True, "per_class": 10},
    "tune": {
        "loss": "cached-mnrl",
        "epochs": 2,
        "batch_size": 64,
        "learning_rate": 1e-5,
        "warmup": 0.1,
        "scale": 10,
        "margin": 0.3,
        "mini_batch": 16,
        "mixed_precision": "no",
        "keep": "last",
    },
    "seeds": [1, 2],
    "k": 3,
    "hardness": "margin",
    "threshold": 0.2,
    "temperature": True,
    "rerank": "all",
    "candidates": "all",
    "forms": ["prob", "mix"],
    "powers": [1, 2],
    "weights": [0.5],
    "fixed": True,
    "ablations": True,
}
FULL["datasets"]["remote"] = {
    "loader": "hub",
    "path": "glue",
    "config": "sst2",
    "revision": "abc",
    "splits": {"validation": 0.1, "test": "validation"},
}


def key_paths(node, path=()):
    """Paths of all keys that are the schema's words, not the user's names."""
    names = [("models",), ("datasets",), ("combinations",), ("scores",)]
    by_user = path in names or path[-1:] in [
        ("label_names",),
        ("label_texts",),
        ("metric",),
        ("coarse",),
    ]
    if isinstance(node, dict):
        for key, value in node.items():
            if not by_user:
                yield (*path, key)
            yield from key_paths(value, (*path, key))
    if isinstance(node, list):
        for index, value in enumerate(node):
            yield from key_paths(value, (*path, index))


PATHS = list(key_paths(FULL))
LETTERS = "abcdefghijklmnopqrstuvwxyz_"


@st.composite
def misspelt(draw, word: str) -> str:
    """`word` with one slip: a letter more, less or another, or two in the wrong order."""
    at = draw(st.integers(0, len(word) - 1))
    letter = draw(st.sampled_from(LETTERS))
    return draw(
        st.sampled_from(
            [
                word[:at] + letter + word[at:],
                word[:at] + word[at + 1 :],
                word[:at] + letter + word[at + 1 :],
                word[:at] + word[at : at + 2][::-1] + word[at + 2 :],
            ]
        )
    )


def at(node, path):
    for part in path:
        node = node[part]
    return node


def problems(values) -> list[str] | None:
    try:
        validate(values)
    except ConfigError as error:
        return error.problems
    return None


def test_the_full_configuration_is_right_and_uses_every_key():
    assert problems(FULL) is None
    used = {path[-1] for path in PATHS}
    for part in [reference.json_schema(), *reference.json_schema()["$defs"].values()]:
        assert set(part["properties"]) <= used


@given(data=st.data(), path=st.sampled_from(PATHS))
@settings(max_examples=150, deadline=None)
def test_a_misspelt_key_is_named(data, path):
    values = copy.deepcopy(FULL)
    holder, right = at(values, path[:-1]), path[-1]
    wrong = data.draw(misspelt(right))
    assume(wrong and wrong not in holder)
    siblings = [p[-1] for p in PATHS if len(p) == len(path)]
    assume(wrong not in siblings)
    # Put in the same place, as a slip of the fingers is.
    renamed = {wrong if key == right else key: value for key, value in holder.items()}
    holder.clear()
    holder.update(renamed)
    lines = problems(values)
    start = f"config.yaml: {path_words((*path[:-1], wrong))}: unknown key"
    named = [line for line in lines or [] if line.startswith(start)]
    assert len(named) == 1
    if len(right) > 5 and difflib.SequenceMatcher(None, wrong, right).ratio() > 0.85:
        assert f"did you mean '{right}'?" in named[0]


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 10**6)
    | st.floats()
    | st.dates()
    | st.text(max_size=5)
    | st.sampled_from(["all", "auto", "mean", "ffn.mean", "1e-3", "label", "csv", "hub", 10**400]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(max_size=4) | st.integers() | st.booleans() | st.none(), inner, max_size=3
        )
    ),
    max_leaves=6,
)


@given(path=st.sampled_from(PATHS), other=st.sampled_from(PATHS), value=VALUES, again=VALUES)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_anything_gives_a_configuration_or_lines(path, other, value, again):
    values = copy.deepcopy(FULL)
    at(values, path[:-1])[path[-1]] = value
    if path != other[: len(path)]:
        at(values, other[:-1])[other[-1]] = again
    lines = problems(values)
    for line in lines or []:
        assert line.startswith("config.yaml: ")
        assert line == " ".join(line.split())
        assert len(line) < 700


@given(value=VALUES)
@settings(max_examples=100, deadline=None)
def test_any_named_entries_give_lines(value):
    for section in ("models", "datasets", "combinations", "runs", "extract"):
        values = {**copy.deepcopy(FULL), section: value}
        for line in problems(values) or []:
            assert line.startswith("config.yaml: ")


@pytest.mark.parametrize("path", PATHS, ids=path_words)
def test_no_key_takes_a_mapping_of_nonsense(path):
    values = copy.deepcopy(FULL)
    at(values, path[:-1])[path[-1]] = {"nonsense": {"more": object}}
    lines = problems(values)
    assert lines
    assert all(path_words(path[:1]) in line for line in lines)


TEXT = (Path(__file__).parents[2] / "config.yaml").read_bytes()
PIECES = [
    b"\0",
    b"\xff",
    b"\t",
    b"{",
    b"[",
    b"- ",
    b": ",
    b"!!python/name:os.system ",
    b"&a ",
    b"*a",
]
PIECES += [
    b'"\\ud800"',
    b"\xe2\x80\xae",
    b"\xf0\x9f\x98\x80",
    b"9" * 5000,
    b"2024-13-45",
    b"\r",
    b"#",
]
PIECES += [
    b"[" * 3000,
    b"x" * 10**6,
    b"\xef\xbb\xbf",
    b"<<: ",
    b"? ",
    b"%YAML 9",
    b"---\n",
    b"\x1b[31m",
]


@given(
    data=st.data(),
    cuts=st.lists(st.tuples(st.integers(0, len(TEXT)), st.integers(0, 40)), max_size=3),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_file_gives_a_configuration_or_lines(tmp_path_factory, data, cuts):
    text = TEXT
    for start, length in cuts:
        piece = data.draw(st.sampled_from(PIECES) | st.binary(max_size=8))
        text = text[:start] + piece + text[start + length :]
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    path.write_bytes(text)
    try:
        load(path)
    except ConfigError as error:
        for line in error.problems:
            assert line.startswith(str(path)) and line == " ".join(line.split())
            assert len(line) < 2100 and line.encode()
