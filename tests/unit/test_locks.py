"""Locks that are held, busy or impossible, and what is done on a disk that has none."""

from __future__ import annotations

import errno
import fcntl
import sys

import pytest

from probeline.cache import pruning, uses
from probeline.errors import ProbelineError
from probeline.locks import Lock, take
from probeline.workflow import run
from probeline.workflow.gpus import own_gpu


@pytest.fixture
def without_locks(monkeypatch):
    """A disk as NFS or Lustre may be: what the system says of any lock there."""

    def refuse(handle, kind):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)


def test_one_holds_it_or_all_that_share(tmp_path):
    path = tmp_path / "lock"
    with path.open("w") as first, path.open("w") as second:
        assert take(first) is Lock.HELD
        assert take(second) is take(second, shared=True) is Lock.BUSY
        assert take(first, shared=True) is take(second, shared=True) is Lock.HELD
        assert take(second) is Lock.BUSY
    with path.open("w") as third:
        assert take(third, wait=True) is Lock.HELD


@pytest.mark.parametrize("wait", [False, True])
def test_no_locks(tmp_path, without_locks, wait):
    with (tmp_path / "lock").open("w") as handle:
        assert take(handle, wait=wait) is take(handle, wait, shared=True) is Lock.IMPOSSIBLE


def test_a_run_goes_on_and_removes_no_lock(tmp_path, without_locks, monkeypatch, capsys):
    """What says that the last one died may be said by one that works."""
    program = "import sys; from pathlib import Path; Path('seen').open('a').write(str(sys.argv))"
    monkeypatch.setattr(run, "snakemake_command", lambda folder: [sys.executable, "-c", program])
    monkeypatch.chdir(tmp_path)
    for name in (".probeline/run.lock", ".snakemake/locks/0.input.lock"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("running\n")
    assert run.run_workflow(tmp_path, []) == 0
    assert (tmp_path / "seen").read_text() == "['-c', '--rerun-incomplete']"
    assert "run.lock: cannot be locked: the disk has no locks" in capsys.readouterr().err
    assert not run.is_running(tmp_path)


def test_nothing_is_removed_from_a_cache(tmp_path, without_locks):
    with pytest.raises(ProbelineError, match="cannot be locked: the disk has no locks"):
        pruning.remove(tmp_path, [], [], lambda: uses.in_use([]))


def test_the_first_gpu_is_shared(tmp_path, without_locks, monkeypatch, caplog):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with own_gpu(1) as name:
        assert name is None
    (record,) = caplog.records
    assert "cannot be locked: the disk has no locks; the first GPU is shared" in record.message
