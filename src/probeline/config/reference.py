"""The JSON schema file and the page of keys, both made from the typed schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from probeline.config.dataset_checks import LOADERS_OF
from probeline.config.json_schema import json_schema
from probeline.config.words import alternatives, kind_words
from probeline.files import write_text

SCHEMA_FILE = Path("workflow/schemas/config.schema.json")
PAGE_FILE = Path("docs/config.md")

INTRODUCTION = """\
# Configuration

*Generated from the schema by `python -m probeline.config --write`; edit `src/probeline/config`.*

One YAML file says everything: which models, which datasets, what is stored, how it is probed. It is
checked whole before any job starts: each mistake is one line with the key's path, what stands
there, what may stand there and the nearest valid word, and all mistakes come at once. No key but
the ones below is accepted. Only `models` and `datasets` are required.

- **A configuration stands alone.** Settings that are left out have the defaults below; named
  entries (`models`, `datasets`, `runs`, `combinations`, `scores`) are never merged with those of
  another file.
- **Names** of models, datasets, combinations and scores become folders: letters, digits, `-` and
  `_`, the first a letter or digit, 64 at most. Two names may not differ in case only. Columns that
  are levels of a hierarchy follow the same rule.
- **YAML 1.1**, as Snakemake reads it: `no`, `yes`, `on` and `off` are booleans, so a label or name
  of that kind needs quotes (`"no"`); so does a revision or column of digits only (`"1234567"`).
  Numbers may be written with an exponent (`1e-3`). Text in quotes is never taken for a number.
- **A key written twice** in one place is a mistake, named with the lines of both.
- **Lists whose order means nothing** (poolings, layers, penalties...) may be written in any order:
  reordering them runs nothing again.
- **A section with nothing below it** has its defaults, as if left out.

`<name>` stands for a name of your own. L is the number of a model's blocks.
"""

LOADER_NOTE = """\
Some keys belong to some loaders only: {notes}.
"""


def json_schema_text() -> str:
    """Return the text of workflow/schemas/config.schema.json."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def page_text() -> str:
    """Return the text of docs/config.md."""
    schema = json_schema()
    parts = [INTRODUCTION, "## At the top", _table(schema, schema["$defs"])]
    places: dict[str, str] = {}
    for section, node in schema["properties"].items():
        parts += _described(section, node, schema["$defs"], "##", places)
        if section == "datasets":
            parts.append(LOADER_NOTE.format(notes=_loader_notes()))
    return "\n\n".join(text.strip() for text in parts) + "\n"


def _described(
    place: str, node: dict, definitions: dict, heading: str, places: dict[str, str]
) -> list[str]:
    """Return heading, description and table of what has keys at `place`, and of what it holds.

    What stands in `places`, definition by definition, is described there already.
    """
    parts: list[str] = []
    for suffix, reference in _keyed(node):
        body = definitions[reference.rsplit("/", 1)[-1]]
        title = f"{heading} `{place}{suffix}`"
        if reference in places:
            parts += [title, f"The keys are those of `{places[reference]}`."]
            continue
        places[reference] = f"{place}{suffix}"
        parts += [title, body["description"], _table(body, definitions)]
        for key, inner in body["properties"].items():
            where = f"{place}{suffix}.{key}"
            parts += _described(where, inner, definitions, heading + "#", places)
    return parts


def _keyed(node: dict) -> Iterator[tuple[str, str]]:
    """Yield (how it hangs there, reference) of each definition that a schema leads to."""
    if "$ref" in node:
        yield "", node["$ref"]
    for key, suffix in (("additionalProperties", ".<name>"), ("items", "[...]")):
        if isinstance(node.get(key), dict):
            yield from ((suffix + more, found) for more, found in _keyed(node[key]))
    for member in alternatives(node):
        yield from _keyed(member)


def _table(schema: dict, definitions: dict) -> str:
    # Without their keys, the definitions are described as "a mapping with the keys below".
    stubs = {name: {"type": "object", "properties": {}} for name in definitions}
    rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for key, node in schema["properties"].items():
        kind = kind_words(node, stubs).replace("<", "&lt;").replace(">", "&gt;")
        required = key in schema.get("required", [])
        default = "required" if required else _default(node)
        rows.append(f"| `{key}` | {kind} | {default} | {node['description']} |")
    return "\n".join(rows)


def _default(node: dict) -> str:
    if "default" not in node:
        return "below"
    return f"`{json.dumps(node['default'])}`".replace('"', "")


def _loader_notes() -> str:
    loaders_keys: dict[tuple, list[str]] = {}
    for key, loaders in LOADERS_OF.items():
        loaders_keys.setdefault(loaders, []).append(f"`{key}`")
    return "; ".join(f"{', '.join(keys)} for {', '.join(ls)}" for ls, keys in loaders_keys.items())


def write(root: Path) -> list[Path]:
    """Write the schema file and the page below the repository at `root`; return their paths."""
    texts = {SCHEMA_FILE: json_schema_text(), PAGE_FILE: page_text()}
    for path, text in texts.items():
        write_text(root / path, text)
    return [root / path for path in texts]
