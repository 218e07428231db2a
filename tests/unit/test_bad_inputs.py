"""Every bad input of the list gets its one line; the list in the documentation is this one."""

from __future__ import annotations

import signal
from pathlib import Path

import bad_inputs
import pytest

from probeline.errors import ConfigError, ProbelineError

SECONDS = 60


@pytest.fixture
def clock():
    """Ends what hangs."""

    def over(*_):
        raise TimeoutError(f"still reading after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("bad", bad_inputs.ALL, ids=lambda bad: f"{bad.reader}: {bad.what}"[:60])
def test_one_line(tmp_path, clock, bad):
    with pytest.raises(ProbelineError) as caught:
        bad.use(tmp_path)
    lines = caught.value.problems if isinstance(caught.value, ConfigError) else [str(caught.value)]
    assert any(bad.words in line for line in lines), lines
    for line in lines:
        assert "\n" not in line and line.isprintable() and len(line) < 2100
        assert line.encode()


def test_they_are_many_and_distinct():
    assert len({(bad.reader, bad.what) for bad in bad_inputs.ALL}) == len(bad_inputs.ALL) >= 120


def test_the_list_in_the_documentation():
    path = Path(__file__).parents[2] / "docs" / "bad_input.md"
    assert path.read_text(encoding="utf-8") == bad_inputs.markdown(), (
        "run: python tests/unit/bad_inputs.py > docs/bad_input.md"
    )
