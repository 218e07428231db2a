"""The configuration: its keys, its check, and what each stage gets of it.

Importing this package imports pydantic and yaml, nothing of the numeric kind: the Snakefile needs
it every time it is parsed, which on a cluster is once per job.
"""

from __future__ import annotations

from probeline.config.kinds import NO_MODEL, PATH_TASK, POOLINGS, REPRESENTATIONS, SLUG
from probeline.config.label_tokens import (
    INITIALIZATIONS,
    ISOLATED,
    JOINT,
    LABEL_TOKENS,
    READS_TEXTS,
    REGULAR,
    SERIES,
    UNORDERED,
    series_of,
)
from probeline.config.load import load, validate
from probeline.config.lrsl import CROSSFITTED, GIVEN, SOURCES, TRAINED_SOURCES
from probeline.config.reading import read
from probeline.config.schema import DEFAULT_TASK, Config, Origin

__all__ = [
    "CROSSFITTED",
    "DEFAULT_TASK",
    "GIVEN",
    "INITIALIZATIONS",
    "ISOLATED",
    "JOINT",
    "LABEL_TOKENS",
    "NO_MODEL",
    "PATH_TASK",
    "POOLINGS",
    "READS_TEXTS",
    "REGULAR",
    "REPRESENTATIONS",
    "SERIES",
    "SLUG",
    "SOURCES",
    "TRAINED_SOURCES",
    "UNORDERED",
    "Config",
    "Origin",
    "load",
    "read",
    "series_of",
    "validate",
]
