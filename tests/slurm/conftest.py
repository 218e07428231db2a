"""A SLURM for the tests of this folder, and the projects that run on it.

Where none can be started they are skipped and say why. Those that take minutes run by
`make test-slurm` alone.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from filelock import FileLock

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from cluster import Cluster, missing
from fixtures import project, shared, tiny_model

__all__ = ["project", "shared", "tiny_model"]

FULL = "PROBELINE_TEST_SLURM"


def pytest_collection_modifyitems(items) -> None:
    """Tests here need SLURM; the long ones have to be asked for."""
    here, reason = Path(__file__).parent, missing()
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.slurm)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))
            elif "slurm_long" in item.keywords and os.environ.get(FULL) != "all":
                item.add_marker(pytest.mark.skip(reason="minutes each: `make test-slurm` runs it"))


def pytest_terminal_summary(terminalreporter) -> None:
    """Print the jobs of the whole run, by SLURM's own record."""
    reports = terminalreporter.stats.get("passed", [])
    jobs = [dict(report.user_properties).get("slurm jobs") for report in reports]
    for rows in filter(None, jobs):
        terminalreporter.section("jobs by SLURM's own record")
        for row in [["job", "rule", "state", "held", "start", "seconds"], *rows]:
            line = "{:>5}  {:44} {:10} {:10} {:9} {:>7}".format(*map(str, row))
            terminalreporter.write_line(line.rstrip())


@pytest.fixture(scope="session")
def cluster():
    """One node of two CPUs and one GPU."""
    # Not in pytest's folder: the path of a socket must be short.
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    # Munge refuses a socket that others cannot reach.
    folder.chmod(0o755)
    found = Cluster(folder, cpus=2)
    try:
        # Of all on this machine: a free port is taken a moment later.
        with FileLock(Path(tempfile.gettempdir()) / "slurm-tests.lock"):
            found.start()
        yield found
    finally:
        found.stop()
        shutil.rmtree(folder)
