"""The schema file, the page of keys and the default configuration agree with the typed schema."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from probeline.config import __main__ as command
from probeline.config import load, read, reference

ROOT = Path(__file__).parents[2]
SCHEMA = reference.json_schema()

# Where config.yaml says something else than the default, and why.
OTHER_VALUES = {
    "models.minilm.path": "null is for models that are fine-tuned in the run",
    "models.minilm.max_length": "128 keeps the default run within minutes on two cores",
    "datasets.bbc.encoding": "one article of BBC News is not UTF-8",
    "datasets.bbc.metric": "says in words what the default, null, would decide",
    "runs": "spelt out as an example; it says what the default does",
    "combinations": "named entries have no default",
    "lrsl.sources": "the default run shows every stage",
    "lrsl.embedder": "the one that its package brings",
    "lrsl.max_length": "64 keeps the default run within minutes on two cores",
    "lrsl.triplets.per_text": "the same",
    "lrsl.triplets.per_class": "the same",
}


def test_nothing_drifted():
    advice = "run: python -m probeline.config --write"
    assert (ROOT / reference.SCHEMA_FILE).read_text("utf-8") == reference.json_schema_text(), advice
    assert (ROOT / reference.PAGE_FILE).read_text("utf-8") == reference.page_text(), advice


def objects(node: dict):
    """Every sub-schema that describes a mapping with fixed keys."""
    if isinstance(node, dict):
        if "properties" in node:
            yield node
        for value in node.values():
            yield from objects(value)
    if isinstance(node, list):
        for value in node:
            yield from objects(value)


def test_every_level_is_closed_and_every_key_described():
    found = list(objects(SCHEMA))
    assert len(found) == 25
    for node in found:
        assert node["additionalProperties"] is False
        assert len(node["description"]) > 10
        for key, value in node["properties"].items():
            assert len(value.get("description", "")) > 9, key
            assert value["description"].endswith("."), key


def test_every_key_is_on_the_page():
    page = reference.page_text()
    for node in objects(SCHEMA):
        for key in node["properties"]:
            assert f"| `{key}` |" in page
    assert all(len(row.split(" | ")) == 4 for row in page.splitlines() if row.startswith("| `"))


def defaults(path: str, node: dict, value):
    """Yield (path, default, value) of each key that has a default and stands in `value`."""
    if "$ref" in node:
        node = SCHEMA["$defs"][node["$ref"].rsplit("/", 1)[-1]]
    for key, part in node.get("properties", {}).items():
        where = f"{path}.{key}".strip(".")
        if isinstance(value, dict) and key in value:
            if "default" in part:
                yield where, part["default"], value[key]
            else:
                yield from defaults(where, part, value[key])
    if isinstance(node.get("additionalProperties"), dict):
        for name, entry in value.items():
            yield from defaults(f"{path}.{name}", node["additionalProperties"], entry)


def test_the_default_configuration_states_the_defaults():
    found = list(defaults("", SCHEMA, read(ROOT / "config.yaml")))
    assert {path for path, default, value in found if value != default} == set(OTHER_VALUES)
    assert len(found) > 35


def test_the_default_configuration_states_every_setting():
    given = read(ROOT / "config.yaml")
    for section, node in SCHEMA["properties"].items():
        assert section in given
        if "$ref" in node:
            body = SCHEMA["$defs"][node["$ref"].rsplit("/", 1)[-1]]
            assert set(given[section]) == set(body["properties"])
    text = (ROOT / "config.yaml").read_text("utf-8")
    for entry in ("ModelEntry", "DatasetEntry"):
        for key in SCHEMA["$defs"][entry]["properties"]:
            assert f"{key}:" in text or f"# {key}," in text or f", {key} " in text, key


def test_the_schema_file_is_a_schema_and_takes_the_default_configuration():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(read(ROOT / "config.yaml"), SCHEMA)


@pytest.mark.parametrize(
    ("section", "value"),
    [
        ("seed", True),
        ("modles", {}),
        ("extract", {"poolings": ["avg"]}),
        ("extract", {"poolings": ["mean", "mean"]}),
        ("extract", {"pooling": ["mean"]}),
        ("models", {}),
        ("models", {"a b": {"path": "x"}}),
        ("models", {"a": {"path": "x", "max_lenght": 3}}),
        ("probe", {"penalties": "atuo"}),
        ("probe", {"penalties": [0]}),
        ("probe", {"penalty": "group"}),
        ("probe", {"l1_ratio": 0}),
        ("sparsify", {"etas": []}),
        ("aggregate", {"within": 2}),
        ("combinations", {"a": ["ffn.mean", "ffn.avg"]}),
        ("runs", [{"model": "m"}]),
    ],
)
def test_the_schema_file_refuses_what_the_check_refuses(section, value):
    given = {**read(ROOT / "config.yaml"), section: value}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(given, SCHEMA)


def test_the_command_writes_both_files(tmp_path, capsys):
    assert command.main(["--write", "--root", str(tmp_path)]) == 0
    for path in (reference.SCHEMA_FILE, reference.PAGE_FILE):
        assert (tmp_path / path).read_bytes() == (ROOT / path).read_bytes()
    assert "config.schema.json" in capsys.readouterr().out
    assert json.loads((tmp_path / reference.SCHEMA_FILE).read_text("utf-8")) == SCHEMA


def test_the_command_checks_files(tmp_path, capsys):
    right, wrong = str(ROOT / "config.yaml"), tmp_path / "wrong.yaml"
    wrong.write_text("models: {}\n")
    assert command.main([right]) == 0
    assert command.main([right, str(wrong)]) == 1
    assert f"{wrong}: models: is empty" in capsys.readouterr().err
    load(right)
