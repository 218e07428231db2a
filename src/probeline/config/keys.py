"""Keys and names, before values are looked at: text only, good as file names, no null sections."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from probeline.config.kinds import SLUG, SLUG_WORDS
from probeline.config.schema import Config
from probeline.config.words import path_words, shown

NAMED = ("models", "datasets", "combinations", "scores")
SECTIONS = tuple(
    key for key in Config.model_fields if key not in ("seed", "data_root", "baselines")
)
DEEPEST = 12

Problem = tuple[tuple, str]


def normalised(raw: Mapping) -> tuple[dict, list[Problem]]:
    """Return `raw` as plain dicts and lists with text keys, and what is wrong with keys and names.

    A section or named entry that is left empty (null) counts as one without keys. Keys that are no
    text are dropped after being reported, so that the rest can be checked.
    """
    problems: list[Problem] = []
    tidy = _plain(raw, (), problems)
    for section in NAMED:
        entries = tidy.get(section)
        if isinstance(entries, dict):
            problems += _bad_names(section, entries)
            if section != "combinations":
                tidy[section] = {k: {} if v is None else v for k, v in entries.items()}
    empty = [key for key in SECTIONS if tidy.get(key, ...) is None]
    return {key: value for key, value in tidy.items() if key not in empty}, problems


def _plain(value: Any, path: tuple, problems: list[Problem]) -> Any:
    if len(path) > DEEPEST:
        problems.append((path[:3], "is nested too deeply, or refers to itself"))
        return None
    if isinstance(value, Mapping):
        found = {}
        for key, item in value.items():
            name = _key(key, path, problems)
            if name is not None:
                found[name] = _plain(item, (*path, name), problems)
        return found
    if isinstance(value, list | tuple):
        return [_plain(item, (*path, index), problems) for index, item in enumerate(value)]
    return value


def _key(key: Any, path: tuple, problems: list[Problem]) -> str | None:
    if isinstance(key, str):
        return key
    if path[:1] == ("datasets",) and path[2:3] == ("label_names",) and isinstance(key, int):
        # The values of labels: 0, 1 or true, false.
        return shown(key)
    if path[:1] == ("models",) and len(path) == 2 and key is True:
        return "on"  # a bare `on:` is a boolean to YAML 1.1
    what = "name" if path in [(section,) for section in NAMED] else "key"
    if isinstance(key, bool):
        problems.append((path, f"the {what} {shown(key)} is a boolean{BOOLEANS}"))
    elif isinstance(key, int | float):
        problems.append((path, f"the {what} {key} is a number; put it in quotes: '{key}'"))
    else:
        problems.append((path, f"the {what} {shown(key)} is no text; put it in quotes"))
    return None


BOOLEANS = " (YAML reads no, yes, on, off, true, false so); put the word you mean in quotes"


def _bad_names(section: str, entries: dict) -> list[Problem]:
    problems = []
    lowered: dict[str, str] = {}
    for name in entries:
        if not re.fullmatch(SLUG, name):
            problems.append(((section, name), _bad_name(name)))
        elif name.lower() in lowered:
            other = path_words((section, lowered[name.lower()]))
            problems.append(
                ((section, name), f"differs from {other} in case only; some disks keep one of them")
            )
        lowered.setdefault(name.lower(), name)
    return problems


def _bad_name(name: str) -> str:
    better = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-_")[:64]
    advice = f"; write {better!r}" if better else ""
    return f"{shown(name)} is no name, as names become folders: {SLUG_WORDS}{advice}"
