"""What a message may quote, and how it is shown: on one line, as it stands in the file."""

from __future__ import annotations

import unicodedata

import pytest

from probeline.errors import ConfigError, ProbelineError


@pytest.mark.parametrize(
    "text",
    [
        "my  notes.csv: no such file; run `rm 'my  notes.csv'`",
        "a\N{NO-BREAK SPACE}b.csv: no such file",
        "größe \N{HEBREW LETTER ALEF}\N{ARABIC LETTER BEH} 文字 👍🏽",
    ],
)
def test_what_is_quoted_stands_as_it_is(text):
    assert str(ProbelineError(text)) == text
    assert ConfigError([text]).problems == [text]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\v", "\f", "\x85", "\u2028", "\u2029"])
def test_lines_become_one(end):
    text = end.join(["a.yaml: wrong:", "", "   in line 3,  column 4", "    key: [", ""])
    assert str(ProbelineError(text)) == "a.yaml: wrong: in line 3,  column 4 key: ["


def test_what_a_terminal_would_obey_is_shown_escaped():
    """All controls of Unicode, and all characters that change the direction of a text."""
    turning = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    marks = {"\N{LEFT-TO-RIGHT MARK}", "\N{RIGHT-TO-LEFT MARK}", "\N{ARABIC LETTER MARK}"}
    every = [chr(code) for code in range(0x110000)]
    found = [c for c in every if unicodedata.bidirectional(c) in turning or c in marks]
    found += [c for c in every if unicodedata.category(c) in ("Cc", "Cs")]
    assert len(found) == 9 + 3 + 65 + 2048
    for character in found:
        shown = str(ProbelineError(f"x{character}y"))
        assert character not in shown
        assert shown in (f"x{character!r}y".replace("'", ""), "x y")


def test_a_long_message_keeps_its_beginning_and_its_end():
    shown = str(ProbelineError("a.csv: holds " + "x" * 10_000 + "; delete it"))
    assert len(shown) <= 2000
    assert shown.startswith("a.csv: holds xxx") and shown.endswith("xxx; delete it")
