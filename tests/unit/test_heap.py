"""Freed memory stays with the process: large tensors come and go without new pages."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# Sizes between glibc's 128 kB and its 32 MB; something small is kept between, as pooling does.
PROGRAM = """
import resource, sys
from probeline.models.heap import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
def faults(rounds):
    kept, before = [], resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        large = [b'1' * size for size in (24 << 20, 8 << 20, 16 << 20)]
        kept.append(b'1' * 800)
        del large
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults(2)
print(faults(5))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_large_arrays_take_no_new_pages():
    found = {}
    for how in ("kept", "default"):
        command = [sys.executable, "-c", PROGRAM, how]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[how] = int(done.stdout)
    # 48 MB a round in pages of 4 kB are 12,288 faults.
    assert found["kept"] < 1000 < 12_288 <= found["default"]
