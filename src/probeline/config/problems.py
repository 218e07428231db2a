"""From pydantic's errors to one line each: where, what stands there, what may stand there."""

from __future__ import annotations

import datetime
from functools import cache
from typing import Any

from pydantic import ValidationError

from probeline.config.json_schema import json_schema
from probeline.config.keys import BOOLEANS, Problem
from probeline.config.kinds import TAGS
from probeline.config.words import (
    alternatives,
    hint,
    kind_words,
    path_words,
    resolved,
    shown,
    words_allowed,
)


@cache
def the_schema() -> Schema:
    """Return the one schema; made at the first mistake, as it takes some time."""
    return Schema()


class Schema:
    """The configuration's JSON schema, with a way to the part that a key's path leads to."""

    def __init__(self) -> None:
        self.root = json_schema()
        self.definitions = self.root.get("$defs", {})

    def at(self, path: tuple) -> dict:
        """Return the schema of the value at `path`; empty if nothing is allowed there."""
        node = self.root
        for part in path:
            node = self._step(node, part)
        return resolved(node, self.definitions)

    def _step(self, node: dict, part: str | int) -> dict:
        node = resolved(node, self.definitions)
        for member in alternatives(node):
            found = self._step(member, part)
            if found:
                return found
        if isinstance(part, int):
            return node.get("items", {})
        if part in node.get("properties", {}):
            return node["properties"][part]
        other = node.get("additionalProperties")
        return other if isinstance(other, dict) else {}

    def keys(self, path: tuple) -> list[str]:
        """Return the keys allowed at `path`."""
        return self._keys_of(self.at(path))

    def _keys_of(self, node: dict) -> list[str]:
        node = resolved(node, self.definitions)
        members = [key for member in alternatives(node) for key in self._keys_of(member)]
        return [*node.get("properties", {}), *members]

    def places(self, key: str) -> list[str]:
        """Return where `key` would be right: ``extract``, ``models.<name>``..."""
        found = []
        for section, node in self.root["properties"].items():
            part = resolved(node, self.definitions)
            if key in part.get("properties", {}):
                found.append(section)
            entry = part.get("additionalProperties") or {}
            if key in resolved(entry, self.definitions).get("properties", {}):
                found.append(f"{section}.<name>")
        return found

    def describe(self, value: Any, path: tuple) -> str:
        """Return ``<value> is not <what is allowed>``, with advice on the slips we know."""
        node = self.at(path)
        kind = kind_words(node, self.definitions)
        allowed = words_allowed(node, self.definitions)
        if isinstance(value, str) and allowed:
            as_list = value in allowed  # right word, but a list is wanted
            advice = f"; did you mean [{value}]?" if as_list else hint(value, allowed)
        else:
            advice = _advice(value, kind)
        if value in ([], {}):
            return f"is empty; give {kind}"
        return f"{shown(value)} is not {kind}{advice}"


def _advice(value: Any, kind: str) -> str:
    if isinstance(value, bool):
        return BOOLEANS if "text" in kind else ""
    if isinstance(value, int | float) and "list" in kind and "number" in kind:
        return f"; did you mean [{value}]?"
    if isinstance(value, int | float | datetime.date) and "text" in kind and "number" not in kind:
        return f" but {_type_words(value)}; put it in quotes"
    if isinstance(value, str) and "number" in kind and _is_number(value):
        return " but text; remove the quotes"
    if isinstance(value, str) and kind.startswith("true or false"):
        return " but text; remove the quotes" if value.lower() in ("true", "false") else ""
    return ""


def _type_words(value: Any) -> str:
    return "a date" if isinstance(value, datetime.date) else "a number"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def explained(
    error: ValidationError, values: dict, schema: Schema
) -> tuple[list[Problem], set[tuple]]:
    """Return one problem per mistake in `values`, and the paths whose value is not to be trusted.

    A required key that is missing because it is misspelt beside is one mistake, not two.
    """
    details = [(_clean(item["loc"]), item) for item in error.errors(include_url=False)]
    problems: dict[tuple, str] = {}
    doubtful = {path for path, _ in details}
    meant = set()  # keys that are not given, but misspelt beside
    for path, item in details:
        if item["type"] == "extra_forbidden":
            problems[path], key = _unknown(path, schema)
            if key is not None and key not in _keys_given(values, path[:-1]):
                meant.add((*path[:-1], key))
    for path, item in details:
        if item["type"] == "missing" and path not in meant:
            problems[path] = _missing(path, schema)
        elif item["type"] == "mistake":
            problems[path] = item["msg"]
        elif item["type"] not in ("missing", "extra_forbidden"):
            problems.setdefault(path, schema.describe(item["input"], path))
    return list(problems.items()), doubtful | meant


def _keys_given(values: Any, path: tuple) -> Any:
    for part in path:
        values = values[part]
    return values


def _clean(location: tuple) -> tuple:
    return tuple(part for part in location if part not in TAGS.values())


def _unknown(path: tuple, schema: Schema) -> tuple[str, str | None]:
    keys = schema.keys(path[:-1])
    advice = hint(path[-1], keys)
    if advice:
        return f"unknown key{advice}", advice.split("'")[1]
    places = schema.places(path[-1])
    if places:
        return f"unknown key; '{path[-1]}' belongs under {' or '.join(places)}", None
    return f"unknown key; allowed are {', '.join(keys)}", None


def _missing(path: tuple, schema: Schema) -> str:
    node = schema.at(path)
    text = f"missing; give {kind_words(node, schema.definitions)}"
    if len(path) == 1:
        return f"missing; give at least one entry under {path_words(path)}:"
    examples = node.get("examples")
    return f"{text}, such as {shown(examples[0])}" if examples else text
