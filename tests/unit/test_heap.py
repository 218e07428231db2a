"""Freed memory stays with the process: large tensors come and go without new pages."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# Sizes between glibc's 128 kB and its 32 MB; something small is kept between, as pooling does.
PROGRAM = """
import resource, sys, threading
from probeline.models.heap import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
def faults(rounds):
    kept, before = [], resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        large = [b'1' * size for size in (30 << 20, 12 << 20, 12 << 20, 16 << 20, 24 << 20)]
        kept.append(b'1' * 800)
        del large
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
def work():
    faults(2)
    print(faults(5))
if sys.argv[2] == "main":
    work()
else:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
@pytest.mark.parametrize("thread", ["main", "another"])
def test_large_arrays_take_no_new_pages(thread):
    found = {}
    for how in ("kept", "default"):
        command = [sys.executable, "-c", PROGRAM, how, thread]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[how] = int(done.stdout)
    # 94 MB a round in pages of 4 kB are 24,064 faults; a thread's memory is let go by 64 MB.
    assert found["kept"] < 1000 < 24_064 <= found["default"]
