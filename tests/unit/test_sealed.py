"""Sealed HDF5 files: damage is found before HDF5 sees it."""

from __future__ import annotations

import subprocess
import sys
import zlib
from contextlib import ExitStack

import h5py
import numpy as np
import pytest

from probeline.activations.shards import open_shard, write_shard
from probeline.errors import ProbelineError
from probeline.sealed import BLOCK, check_seal, reading, sealing, unfinished

WHAT = "a readable file"

# Holds the lock that HDF5 takes for writing, until it is told to end.
HOLDER = """
import fcntl, sys
handle = open(sys.argv[1], "rb")
fcntl.flock(handle, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path):
    with sealing(tmp_path / "a.h5") as file:
        file["x"] = np.arange(300, dtype="f4")
        file.attrs["names"] = ["a", "b"]
    return tmp_path / "a.h5"


def test_the_seal_is_the_crc32_of_what_follows(path):
    whole = path.read_bytes()
    line = b"probeline crc32=%08x but=512+0\n" % zlib.crc32(b"512+0" + whole[BLOCK:])
    assert whole[:BLOCK] == line.ljust(BLOCK, b"\0")
    assert check_seal(path, WHAT, "") == (512, 0)


def test_plain_h5py_reads_it(path):
    with h5py.File(path, locking=False) as file, reading(path, WHAT) as same:
        np.testing.assert_array_equal(file["x"][:], np.arange(300))
        np.testing.assert_array_equal(same["x"][:], np.arange(300))


def test_any_change_is_one_line(path):
    whole = path.read_bytes()
    for place in [*range(40), *range(40, len(whole), 97)]:
        for changed in (
            whole[:place],
            whole[:place] + bytes([whole[place] ^ 8]) + whole[place + 1 :],
            whole[:place] + whole[place + 1 :],
        ):
            path.write_bytes(changed)
            with pytest.raises(ProbelineError, match=r"^\S+a\.h5: not a readable file: .*delete"):
                check_seal(path, WHAT, "delete it")


def test_files_of_earlier_versions_have_none_and_are_read(tmp_path):
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file["x"] = 3
    assert check_seal(tmp_path / "old.h5", WHAT, "") is None
    with reading(tmp_path / "old.h5", WHAT) as file:
        assert file["x"][()] == 3


def test_what_is_missing_in_the_file_is_one_line(path):
    missing = pytest.raises(ProbelineError, match=r"not a readable file \(.*'y'.*delete it")
    with missing, reading(path, WHAT) as file:
        file["y"][:]


def test_unfinished(path):
    unfinished(path)
    with pytest.raises(ProbelineError, match=r"a\.h5: incomplete, the job .* was interrupted"):
        check_seal(path, WHAT, "")


@pytest.fixture
def held(path, monkeypatch):
    """The file, a shard beside it, and another process that has locked both."""
    monkeypatch.delenv("HDF5_USE_FILE_LOCKING", raising=False)
    shard = path.with_name("shard.h5")
    write_shard(shard, np.ones((3, 2), "f4"), {"model": "tiny"})
    with ExitStack() as stack:
        for file in (path, shard):
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", HOLDER, str(file)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            assert process.stdout.readline() == "held\n"
        yield path, shard


def test_locks_of_others_are_not_asked_for(held, monkeypatch):
    monkeypatch.delenv("PROBELINE_HDF5_LOCKING", raising=False)
    path, shard = held
    with reading(path, WHAT) as file:
        assert len(file["x"]) == 300
    with open_shard(shard) as opened:
        assert opened.read().shape == (3, 2)


def test_locks_of_others_count_where_they_are_turned_on(held, monkeypatch):
    monkeypatch.setenv("PROBELINE_HDF5_LOCKING", "1")
    path, shard = held
    with (
        pytest.raises(ProbelineError, match=r"a\.h5: locked by another process that writes it$"),
        reading(path, WHAT),
    ):
        pass
    with pytest.raises(ProbelineError, match=r"shard\.h5: locked by another process"):
        open_shard(shard)


def test_with_locks_files_are_written_and_read_as_without(tmp_path, monkeypatch):
    monkeypatch.setenv("PROBELINE_HDF5_LOCKING", "1")
    for _ in range(2):
        with sealing(tmp_path / "a.h5") as file:
            file["x"] = np.arange(3)
    with reading(tmp_path / "a.h5", WHAT) as first, reading(tmp_path / "a.h5", WHAT) as second:
        assert len(first["x"]) == len(second["x"]) == 3


def test_missing_and_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        check_seal(tmp_path / "no.h5", WHAT, "")
    with pytest.raises(ProbelineError, match="not a readable file but a folder"):
        check_seal(tmp_path, WHAT, "")


def test_an_error_leaves_the_old_file(path):
    whole = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), sealing(path):
        raise KeyboardInterrupt
    assert path.read_bytes() == whole
    assert [item.name for item in path.parent.iterdir()] == ["a.h5"]
