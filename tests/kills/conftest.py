"""Fixtures of the kills, and the table of those survived."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from filelock import FileLock

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))
sys.path.insert(0, str(Path(__file__).parent))

from fixtures import finished, project, server, shared, tiny_model
from world import World, Zygote

__all__ = ["finished", "project", "server", "shared", "tiny_model"]


@pytest.fixture(scope="session")
def world(shared) -> World:
    """Every stage, run undisturbed; not to be changed."""
    base = shared / "kills"
    with FileLock(shared / "kills.lock"):
        if not (shared / "kills.done").exists():
            base.mkdir()
            World.build(base)
            (shared / "kills.done").touch()
    return World(base)


@pytest.fixture(scope="session")
def zygote(tmp_path_factory):
    with Zygote(tmp_path_factory.mktemp("zygote") / "printed.txt") as found:
        yield found


def pytest_terminal_summary(terminalreporter) -> None:
    """Print what was killed how often, where tests of this folder ran."""
    rows = []
    for reports in terminalreporter.stats.values():
        for report in reports:
            found = dict(getattr(report, "user_properties", ()))
            if "kills" in found and report.when == "call":
                rows.append((found["stage"], found["kills"], found["survived"], found["how"]))
    if not rows:
        return
    terminalreporter.section("kills survived")
    rows.append(("all", sum(row[1] for row in rows), sum(row[2] for row in rows), ""))
    line = "{:24} {:>6} {:>9}  {}"
    terminalreporter.write_line(line.format("stage", "kills", "survived", "moments"))
    for row in rows:
        terminalreporter.write_line(line.format(*row))
