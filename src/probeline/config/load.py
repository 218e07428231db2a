"""Checking a configuration whole: every mistake in one go, one line each."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from probeline.config.checks import cross_problems
from probeline.config.draft import drafted
from probeline.config.keys import NAMED, Problem, normalised
from probeline.config.reading import Parsed, parse
from probeline.config.schema import Config
from probeline.config.words import path_words, shown
from probeline.errors import ConfigError


def load(path: str | os.PathLike) -> Config:
    """Read and check the configuration file at `path`.

    Raises
    ------
    ConfigError
        With one line per mistake: of the file (missing, broken YAML, an entry that stands there
        twice) and of its keys and values.
    """
    parsed = parse(path)
    return _checked(parsed.value, str(path), parsed.problems)


def validate(
    raw: Mapping, source: str = "config.yaml", files: Iterable[str | os.PathLike] = ()
) -> Config:
    """Check a configuration that is parsed already, such as Snakemake's `config`.

    Parameters
    ----------
    raw : Mapping
        The parsed values; not changed.
    source : str
        What the lines about mistakes begin with.
    files : iterable of paths
        The files `raw` came from. They are read again for what parsed values no longer show:
        entries that stand there twice, and named entries that were merged from two files.

    Raises
    ------
    ConfigError
        With one line per mistake.
    """
    parsed = {os.fspath(path): parse(path) for path in files}
    lines = [line for found in parsed.values() for line in found.problems]
    return _checked(raw, source, lines + _merged(parsed))


def _merged(parsed: Mapping[str, Parsed]) -> list[str]:
    lines = []
    for section in (*NAMED, "runs"):
        holders = [path for path, found in parsed.items() if found.value.get(section)]
        for path in holders[1:]:
            lines.append(
                f"{path}: {section}: stands in {holders[0]} too, and named entries are never "
                "merged; keep them in one file"
            )
    return lines


def _checked(raw: Any, source: str, lines: list[str]) -> Config:
    if not isinstance(raw, Mapping):
        raise ConfigError([*lines, f"{source}: holds {shown(raw)}, not keys such as models:"])
    values, problems = normalised(raw)
    found, draft = drafted(values)
    problems += found
    if draft is not None:
        problems += cross_problems(draft)
    lines = [*lines, *_sorted_lines(problems, values, source)]
    if lines or draft is None:
        raise ConfigError(lines)
    return draft.config


def _sorted_lines(problems: list[Problem], values: dict, source: str) -> list[str]:
    """Return one line per problem, in the order in which the keys stand in the configuration."""
    ordered = sorted(problems, key=lambda problem: _position(problem[0], values))
    lines = (": ".join(filter(None, (source, path_words(p), text))) for p, text in ordered)
    return list(dict.fromkeys(" ".join(line.split()) for line in lines))


def _position(path: tuple, value: Any) -> tuple[int, ...]:
    found = []
    for part in path:
        if isinstance(value, dict):
            keys = list(value)
            found.append(keys.index(part) if part in value else len(keys))
            value = value.get(part)
        else:
            found.append(part if isinstance(part, int) else 0)
            value = value[part] if isinstance(value, list) and found[-1] < len(value) else None
    return tuple(found)
