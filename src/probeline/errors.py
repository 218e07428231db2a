"""The one exception a user of probeline is meant to read."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

# A message may quote a file that holds anything: text of a megabyte, half characters that no
# terminal can be sent, codes that would recolour it or erase what stands there, marks that show a
# text in another order than it has.
_LONGEST = 2000
_DIRECTION = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_UNPRINTABLE = re.compile(f"[\x00-\x1f\x7f-\x9f\ud800-\udfff{_DIRECTION}]")


class ProbelineError(Exception):
    """Something the user can mend: one line that names it, what was expected and what to do.

    Command-line programs and workflow jobs print it without a traceback.
    """

    def __init__(self, message: str):
        super().__init__(_line(message))


class ConfigError(ProbelineError):
    """All mistakes of one configuration, one line each.

    Attributes
    ----------
    problems : list of str
        One complete sentence per mistake.
    """

    def __init__(self, problems: list[str]):
        self.problems = [_line(problem) for problem in problems]
        Exception.__init__(self, "\n".join(self.problems))


def _line(message: object) -> str:
    """One printable line of bounded length; of a longer one the beginning and the end."""
    # Spaces inside a line may be those of a path or a command, to be copied.
    lines = [line.strip() for line in str(message).splitlines()]
    text = " ".join(line for line in lines if line)
    text = _UNPRINTABLE.sub(lambda found: repr(found[0])[1:-1], text)
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]} [...] {text[-_LONGEST // 4 :]}"
    return text


def nearest(word: str, choices: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest of `choices`, or an empty string."""
    close = difflib.get_close_matches(str(word), [str(c) for c in choices], n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""


def one_of(word: str, choices: Iterable[str]) -> str:
    """Return ``"'word' is not one of a, b, c; did you mean 'a'?"``."""
    choices = [str(c) for c in choices]
    return f"'{word}' is not one of {', '.join(choices)}{nearest(word, choices)}"
