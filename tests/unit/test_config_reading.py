"""Files: YAML as Snakemake reads it, its own mistakes with their lines, merged files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from snakemake.common.configfile import load_configfile

from probeline.config import load, read, validate
from probeline.errors import ConfigError

ROOT = Path(__file__).parents[2]

RIGHT = """\
models:
  m: {path: some/model}
datasets:
  d:
    loader: csv
    path: d.csv
    splits: {validation: 0.1, test: 0.1}
"""


def written(folder: Path, text: str | bytes, name: str = "c.yaml") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def problems(path: Path, function=load) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        function(path)
    return [line.removeprefix(f"{path}: ") for line in caught.value.problems]


def test_the_repository_configuration_is_right():
    checked = load(ROOT / "config.yaml")
    assert checked.pairs() == [("bbc", "minilm")]
    assert checked.model_spec("minilm")["max_length"] == 128
    assert checked.combined()["mean-all"] == [("ffn", "mean"), ("hidden", "mean")]


@pytest.mark.parametrize(
    "text",
    [
        RIGHT,
        RIGHT + "seed: 0o17\nextract: {}\n",
        RIGHT + "probe: {tolerance: 1e-3, penalties: [1.0e+2, 1e2], standardize: yes}\n",
        RIGHT + "runs:\n- &a {model: m, dataset: d}\n- *a\n",
        "# only a comment\n{}",
        "a: no\nb: 12:30\nc: 0123\nd: 2024-01-02\ne: 1_000\nf: ~\n20: x\n",
    ],
)
def test_files_mean_what_snakemake_reads(tmp_path, text):
    path = written(tmp_path, text)
    assert read(path) == load_configfile(path)


def test_json_files_are_read_tabs_and_all(tmp_path):
    value = {"models": {"m": {"path": "a\tb"}}, "probe": {"tolerance": 1e-3}}
    path = written(tmp_path, json.dumps(value, indent="\t"), "c.json")
    assert read(path) == value == load_configfile(path)


def test_entries_that_stand_there_twice(tmp_path):
    text = RIGHT + "seed: 1\nprobe:\n  layers: all\n  'layers': [1]\nmodels:\n  n: {path: x}\n"
    assert problems(written(tmp_path, text + "seed: 2\nseed: 3\n"), read) == [
        "probe.layers: two entries with the same name, on lines 10 and 11; rename or remove one",
        "models: two entries with the same name, on lines 1 and 12; rename or remove one",
        "seed: two entries with the same name, on lines 8, 14 and 15; rename or remove one",
    ]
    # Names inside a section, and inside a list.
    text = (
        RIGHT.replace("datasets:", "  m: {path: y}\ndatasets:") + "runs:\n- model: m\n  model: m\n"
    )
    assert problems(written(tmp_path, text), read) == [
        "models.m: two entries with the same name, on lines 2 and 3; rename or remove one",
        "runs[0].model: two entries with the same name, on lines 10 and 11; rename or remove one",
    ]


def test_twice_in_json(tmp_path):
    path = written(tmp_path, '{"seed": 1,\n\t"seed": 2}', "c.json")
    assert problems(path, read) == [
        "seed: two entries with the same name, on lines 1 and 2; rename or remove one"
    ]


def test_twice_and_other_mistakes_come_together(tmp_path):
    path = written(tmp_path, RIGHT + "seed: 1\nseed: x\nextrct: {}\n")
    assert [line.split(":")[0] for line in problems(path)] == ["seed", "seed", "extrct"]


def test_merge_keys_and_aliases_are_no_repeats(tmp_path):
    text = RIGHT.replace(
        "m: {path: some/model}",
        "m: &m {path: some/model, max_length: 64}\n  n: {<<: *m, max_length: 128}",
    )
    checked = load(written(tmp_path, text))
    assert checked.model_spec("n")["max_length"] == 128
    assert checked.model_spec("n")["path"] == "some/model"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "holds nothing, where keys such as models: are expected"),
        ("- a\n- b\n", "holds ['a', 'b'], where keys such as models: are expected"),
        ("a: b: c\n", "line 1, column 5: not valid YAML: mapping values are not allowed here"),
        (
            "a:\n\tb: 1\n",
            "line 2, column 1: not valid YAML: found character '\\t' that cannot start any token; "
            "indent with spaces, not tabs",
        ),
        ("a: [1, 2\nb: 3\n", "line 2, column 2: not valid YAML: expected ',' or ']', but got ':'"),
        (
            "a: 1\n---\nb: 2\n",
            "line 2, column 1: not valid YAML: but found another document",
        ),
        (
            "a: !!python/object:os.system x\n",
            "line 1, column 4: not valid YAML: could not determine a constructor for the tag "
            "'tag:yaml.org,2002:python/object:os.system'",
        ),
        ("a: 2024-13-45\n", "a value cannot be read: month must be in 1..12"),
        (b"models:\n  m: \xff\n", "not UTF-8 text at byte 13"),
    ],
)
def test_files_that_are_no_configuration(tmp_path, text, line):
    assert problems(written(tmp_path, text)) == [line]


def test_missing_file_and_folder(tmp_path):
    assert problems(tmp_path / "none.yaml") == ["no such file"]
    assert problems(tmp_path) == ["cannot be read: Is a directory"]


def test_deep_nesting_is_a_line_not_a_crash(tmp_path):
    (line,) = problems(written(tmp_path, "a: " + "[" * 5000 + "]" * 5000))
    assert line.startswith("a value cannot be read: ")
    lines = problems(written(tmp_path, RIGHT + "runs: &r [*r]\n"))
    assert "runs[0][0]: is nested too deeply, or refers to itself" in lines


def test_a_byte_order_mark_is_no_mistake(tmp_path):
    load(written(tmp_path, b"\xef\xbb\xbf" + RIGHT.encode()))


def test_files_behind_a_parsed_configuration_are_read_again(tmp_path):
    one = written(tmp_path, RIGHT + "seed: 1\nseed: 2\n", "one.yaml")
    two = written(tmp_path, "models:\n  n: {path: x}\nprobe: {l1_ratio: 0.5}\n", "two.yaml")
    merged = read(written(tmp_path, RIGHT))
    merged["models"]["n"] = {"path": "x"}
    validate(merged)  # nothing to be seen in the values themselves
    with pytest.raises(ConfigError) as caught:
        validate(merged, files=[one, two])
    assert caught.value.problems == [
        f"{one}: seed: two entries with the same name, on lines 8 and 9; rename or remove one",
        f"{two}: models: stands in {one} too, and named entries are never merged; keep them in "
        "one file",
    ]


def test_single_settings_may_come_from_several_files(tmp_path):
    one = written(tmp_path, RIGHT, "one.yaml")
    two = written(tmp_path, "probe: {l1_ratio: 0.5}\n", "two.yaml")
    assert validate({**read(one), **read(two)}, files=[one, two]).probe.l1_ratio == 0.5
