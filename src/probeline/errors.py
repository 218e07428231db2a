"""The one exception a user of probeline is meant to read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ProbelineError(Exception):
    """Something the user can mend: one line that names it, what was expected and what to do.

    Command-line programs and workflow jobs print it without a traceback.
    """

    def __init__(self, message: str):
        super().__init__(" ".join(str(message).split()))


class ConfigError(ProbelineError):
    """All mistakes of one configuration, one line each.

    Attributes
    ----------
    problems : list of str
        One complete sentence per mistake.
    """

    def __init__(self, problems: list[str]):
        Exception.__init__(self, "\n".join(problems))
        self.problems = problems


def nearest(word: str, choices: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest of `choices`, or an empty string."""
    close = difflib.get_close_matches(str(word), [str(c) for c in choices], n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""


def one_of(word: str, choices: Iterable[str]) -> str:
    """Return ``"'word' is not one of a, b, c; did you mean 'a'?"``."""
    choices = [str(c) for c in choices]
    return f"'{word}' is not one of {', '.join(choices)}{nearest(word, choices)}"
