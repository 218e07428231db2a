"""Files and folders are replaced whole or not at all; what the system refuses is one line."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import signal
import subprocess
import sys

import h5py
import numpy as np
import pytest
from safetensors import SafetensorError

from probeline import logs
from probeline.errors import ConfigError, ProbelineError
from probeline.files import (
    explained,
    read_json,
    remove_leftovers,
    replacing,
    replacing_folder,
    write_json,
    write_text,
)


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class Stop(Exception):
    pass


def test_a_new_file_in_a_new_folder(tmp_path):
    path = tmp_path / "a/b/c.txt"
    with replacing(path) as temporary:
        assert temporary.parent == path.parent
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert names(path.parent) == ["c.txt"]


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "c.txt"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [Stop(), KeyboardInterrupt(), ProbelineError("no")])
def test_an_error_leaves_no_trace(tmp_path, error):
    path = tmp_path / "c.txt"
    path.write_text("old")
    with pytest.raises(type(error)), replacing(path) as temporary:
        temporary.write_text("half of the new")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["c.txt"]


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(OSError), replacing(tmp_path / "c.txt"):
        pass
    assert names(tmp_path) == []


def test_two_writers_do_not_mix(tmp_path):
    path = tmp_path / "c.txt"
    with replacing(path) as first, replacing(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"
    assert names(tmp_path) == ["c.txt"]


def test_folders(tmp_path):
    path = tmp_path / "results/model"
    for content in ("old", "new"):
        with replacing_folder(path) as temporary:
            (temporary / "sub").mkdir()
            (temporary / "sub/a.txt").write_text(content)
            if content == "old":
                (temporary / "left_over.txt").write_text("x")
    assert names(path) == ["sub"]
    assert (path / "sub/a.txt").read_text() == "new"
    assert names(path.parent) == ["model"]


def test_an_error_leaves_the_old_folder(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "a.txt").write_text("old")
    with pytest.raises(Stop), replacing_folder(path) as temporary:
        (temporary / "a.txt").write_text("new")
        raise Stop
    assert (path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["model"]


def test_a_folder_that_cannot_be_put_in_place_leaves_the_old_one(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "a.txt").write_text("old")
    with pytest.raises(OSError), replacing_folder(path) as temporary:
        temporary.rmdir()
    assert (path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["model"]


FULL = [OSError(errno.ENOSPC, "No space left"), OSError(errno.EDQUOT, "Quota exceeded")]
FULL += [
    kind(f"[Errno 28] Unable to synchronously write (errno = {errno.ENOSPC}, error message = 'x')")
    for kind in (OSError, RuntimeError)
]
FULL.append(SafetensorError("I/O error: No space left on device (os error 28)"))


@pytest.mark.parametrize("error", FULL)
@pytest.mark.parametrize("writer", [replacing, replacing_folder])
def test_a_full_disk(tmp_path, error, writer):
    path = tmp_path / "probe.h5"
    with pytest.raises(ProbelineError) as caught, writer(path) as temporary:
        if writer is replacing:
            temporary.write_bytes(b"half")
        raise error
    assert str(caught.value).startswith(f"{path}: no space left on the disk; free some")
    assert names(tmp_path) == []


def test_a_disk_that_is_really_full(tmp_path):
    """/dev/full takes nothing."""
    if not os.path.exists("/dev/full"):  # noqa: PTH110
        pytest.skip("needs /dev/full, which this system does not have")
    path = tmp_path / "probe.h5"
    with pytest.raises(ProbelineError, match="no space left"), replacing(path) as temporary:
        temporary.symlink_to("/dev/full")
        with temporary.open("wb") as handle:
            handle.write(b"x" * 100_000)
    assert names(tmp_path) == []


def test_a_folder_that_is_copied_to_a_full_disk(tmp_path):
    """shutil gathers what it was told of each file, without the numbers."""
    if not os.path.exists("/dev/full"):  # noqa: PTH110
        pytest.skip("needs /dev/full, which this system does not have")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a").write_bytes(b"x" * 100_000)

    def copy(source, _):
        shutil.copyfile(source, "/dev/full")

    path = tmp_path / "model"
    with (
        pytest.raises(ProbelineError, match="no space left on the disk"),
        replacing_folder(path) as temporary,
    ):
        shutil.copytree(tmp_path / "source", temporary / "copy", copy_function=copy)
    assert names(tmp_path) == ["source"]


def test_hdf5_beyond_the_limit_of_file_sizes(tmp_path):
    """A file that may not grow, in a process of its own, as the limit is the process's."""
    code = f"""
import resource, signal, h5py, numpy as np
from probeline.files import replacing
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
with replacing({str(tmp_path / "a.h5")!r}) as temporary, h5py.File(temporary, "w") as file:
    file["x"] = np.zeros(100_000)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode != 0
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "number, words", [(errno.EACCES, "Permission denied"), (errno.EROFS, "Read-only file system")]
)
def test_no_permission(tmp_path, number, words):
    with pytest.raises(ProbelineError, match=f"a: cannot be written: {words}"), explained("a"):
        raise OSError(number, "x")


def test_other_errors_pass_through(tmp_path):
    with pytest.raises(FileNotFoundError), explained("a"):
        raise FileNotFoundError(errno.ENOENT, "x")
    with pytest.raises(RuntimeError, match="y"), explained("a"):
        raise RuntimeError("y")


def test_json(tmp_path):
    path = tmp_path / "a.json"
    value = {"ä": [1, 2.5, None, True], "b": {}}
    write_json(path, value)
    assert read_json(path) == value
    assert "ä" in path.read_text(encoding="utf-8")
    with pytest.raises(ValueError):
        write_json(path, {"score": float("nan")})
    assert read_json(path) == value
    assert names(tmp_path) == ["a.json"]
    for content in (b"", b'{"a": 1', b"\xff\xfe"):
        path.write_bytes(content)
        with pytest.raises(ProbelineError, match=r"a\.json: not a complete JSON file"):
            read_json(path)
    with pytest.raises(ProbelineError, match=r"b\.json: no such file"):
        read_json(tmp_path / "b.json")


def test_text_is_utf8_whatever_the_locale(tmp_path):
    write_text(tmp_path / "a.txt", "é\n")
    assert (tmp_path / "a.txt").read_bytes() == b"\xc3\xa9\n"


def test_hdf5_that_fails_half_way(tmp_path):
    path = tmp_path / "a.h5"
    with (
        pytest.raises(Stop),
        replacing(path) as temporary,
        h5py.File(temporary, "w") as file,
    ):
        file["x"] = np.arange(5)
        raise Stop
    assert names(tmp_path) == []


def test_errors_are_one_line():
    assert str(ProbelineError("a\n  b\tc ")) == "a b\\tc"
    assert str(ConfigError(["one", "two"])) == "one\ntwo"


def test_what_a_killed_process_has_left_is_removed(tmp_path):
    """Killed in the middle: nothing is undone, as no exception is seen."""
    code = """
import os, signal, sys
from pathlib import Path
from probeline.files import replacing, replacing_folder
folder = Path(sys.argv[1])
with replacing_folder(folder / "model") as temporary, replacing(folder / "a.json") as file:
    (temporary / "weights").write_text("half")
    file.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    (tmp_path / ".a.json.0123abcd.old").mkdir()
    kept = {"b.json", ".b.json.0123abcd.tmp", ".a.json.tmp", ".a.json", "x.a.json.0123abcd.tmp"}
    for name in kept:
        (tmp_path / name).touch()
    done = subprocess.run([sys.executable, "-c", code, tmp_path], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(names(tmp_path)) == len(kept) + 3
    remove_leftovers([tmp_path / "a.json", tmp_path / "model", tmp_path / "none" / "c.json"])
    assert set(names(tmp_path)) == kept


@pytest.fixture
def log_of(tmp_path):
    """Log to a file as a job does; give the root logger back afterwards."""
    root = logging.getLogger()
    kept, level = root.handlers[:], root.level
    path = tmp_path / "logs/job.log"
    logs.set_up(str(path))
    yield path
    for handler in root.handlers[:]:
        root.removeHandler(handler)
        handler.close()
    root.handlers[:] = kept
    root.setLevel(level)


def test_a_users_mistake_in_a_job_is_one_line(log_of):
    with pytest.raises(SystemExit) as caught, logs.reported():
        logging.info("working")
        raise ProbelineError("texts.csv, line 3: no label")
    assert caught.value.code == 1
    first, second = log_of.read_text().splitlines()
    assert first.endswith("INFO working")
    assert second.endswith("ERROR texts.csv, line 3: no label")


def test_several_mistakes_are_a_line_each(log_of):
    with pytest.raises(SystemExit), logs.reported():
        raise ConfigError(["one", "two"])
    assert [line.rsplit(" ", 1)[1] for line in log_of.read_text().splitlines()] == ["one", "two"]


def test_a_bug_is_logged_whole(log_of):
    with pytest.raises(SystemExit) as caught, logs.reported():
        raise KeyError("oops")
    assert caught.value.code == 1
    text = log_of.read_text()
    assert "please report it with this log" in text
    assert "Traceback" in text
    assert "KeyError: 'oops'" in text
