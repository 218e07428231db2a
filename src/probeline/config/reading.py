"""Reading a configuration file: YAML 1.1 (or JSON) as Snakemake reads it, and its own mistakes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from probeline.config.words import path_words, shown
from probeline.errors import ConfigError


class Parsed(NamedTuple):
    """What a file holds, and one line for each entry that stands there twice."""

    value: dict
    problems: list[str]


def read(path: str | os.PathLike) -> dict:
    """Read the mapping that the YAML or JSON file at `path` holds. Nothing is checked but the form.

    Values are typed as Snakemake's own reader types them (``no`` is False, ``1e-3`` is text), so
    that a file means the same to both; `validate` knows what was meant.

    Raises
    ------
    ConfigError
        If the file is missing, is no YAML, holds no mapping, or an entry stands there twice.
    """
    parsed = parse(path)
    if parsed.problems:
        raise ConfigError(parsed.problems)
    return parsed.value


def parse(path: str | os.PathLike) -> Parsed:
    """Like `read`, but return the entries that stand there twice in place of raising."""
    text = _text(path)
    try:
        # JSON is YAML but for tabs, which stand between its tokens only.
        value = json.loads(text)
        text = text.replace("\t", " ")
    except (ValueError, RecursionError):
        value = None
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        value = yaml.safe_load(text) if value is None else value
    except yaml.YAMLError as error:
        raise ConfigError([f"{path}: {_yaml_words(error)}"]) from None
    except (ValueError, RecursionError) as error:
        # Such as the date 2024-13-45, or a number of 5,000 digits.
        raise ConfigError([f"{path}: a value cannot be read: {_one_line(error)}"]) from None
    if not isinstance(value, dict):
        held = "nothing" if value is None else shown(value)
        raise ConfigError([f"{path}: holds {held}, where keys such as models: are expected"])
    return Parsed(value, [f"{path}: {line}" for line in _duplicates(tree, (), set())])


def _text(path: str | os.PathLike) -> str:
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError([f"{path}: no such file"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: not UTF-8 text at byte {error.start}"]) from None
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from None


def _yaml_words(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    what = getattr(error, "problem", None) or str(error)
    if "\\t" in what:
        what += "; indent with spaces, not tabs"
    return f"{where}not valid YAML: {_one_line(what)}"


def _one_line(text: Any) -> str:
    return " ".join(str(text).split())


def _duplicates(node: yaml.Node | None, path: tuple, seen: set[int]) -> Iterator[str]:
    """Yield a line per key that stands twice in one mapping; YAML itself keeps the last one."""
    if id(node) in seen:  # an alias
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _duplicates(item, (*path, index), seen)
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[tuple, list[int]] = {}
    for key, item in node.value:
        name = key.value if isinstance(key, yaml.ScalarNode) else "?"
        if name != "?":
            lines.setdefault((key.tag, name), []).append(key.start_mark.line + 1)
        yield from _duplicates(item, (*path, name), seen)
    for (_, name), numbers in lines.items():
        if len(numbers) > 1:
            *others, last = (str(number) for number in numbers)
            yield (
                f"{path_words((*path, name))}: two entries with the same name, "
                f"on lines {', '.join(others)} and {last}; rename or remove one"
            )
