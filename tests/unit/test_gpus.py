"""Jobs of one machine with several GPUs: each takes one that no other holds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from probeline.errors import ProbelineError
from probeline.workflow import gpus
from probeline.workflow.gpus import own_gpu, visible_gpus

HOLD = """
import os, sys
from probeline.workflow.gpus import own_gpu
with own_gpu(1) as name:
    print(name, os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path):
    """Starts a process that holds a GPU of "4,7"; returns it and what it saw."""
    started = []

    def start() -> tuple[subprocess.Popen, list[str]]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"CUDA_VISIBLE_DEVICES": "4,7", "TMPDIR": str(tmp_path)},
        )
        started.append(process)
        return process, process.stdout.readline().split()

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_no_two_jobs_have_one_gpu_while_there_is_another(holder):
    first, seen = holder()
    assert seen == ["4", "4"]
    second, seen = holder()
    assert seen == ["7", "7"]
    # One too many shares what there is, as before.
    _, seen = holder()
    assert seen == ["None", "4,7"]
    # A killed job holds nothing.
    first.send_signal(signal.SIGKILL)
    first.wait()
    _, seen = holder()
    assert seen == ["4", "4"]
    second.communicate("\n")
    _, seen = holder()
    assert seen == ["7", "7"]


@pytest.mark.parametrize("visible", [None, "", "3", "GPU-8a1b"])
@pytest.mark.parametrize("wanted", [0, 1])
def test_where_there_is_no_choice_nothing_changes(monkeypatch, tmp_path, visible, wanted):
    monkeypatch.setattr(gpus, "_DEVICES", tmp_path)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with own_gpu(wanted) as name:
        assert name is None
        assert os.environ.get("CUDA_VISIBLE_DEVICES") == visible


@pytest.mark.parametrize("kind", ["link", "file"])
def test_locks_in_a_folder_that_may_be_somebody_elses(monkeypatch, tmp_path, kind):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder, theirs = tmp_path / f"probeline-gpus-{os.getuid()}", tmp_path / "theirs"
    theirs.mkdir()
    if kind == "link":
        folder.symlink_to(theirs)
    else:
        folder.touch()
    with pytest.raises(ProbelineError, match="set TMPDIR to a folder of your own"), own_gpu(1):
        pass
    assert list(theirs.iterdir()) == []


def test_a_rule_without_a_gpu_takes_none(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with own_gpu(0) as name:
        assert name is None
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_gpus_are_counted_without_a_driver(monkeypatch, tmp_path):
    for name in ("nvidia10", "nvidia2", "nvidia0", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    monkeypatch.setattr(gpus, "_DEVICES", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    # As CUDA counts them, whatever their files are called.
    assert visible_gpus() == ["0", "1", "2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1, MIG-3f")
    assert visible_gpus() == ["1", "MIG-3f"]
