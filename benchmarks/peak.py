"""The peak memory of this process, without anything that would add to it."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path


def own_peak() -> int:
    """The largest number of bytes of memory this process ever held.

    Not ru_maxrss where Linux says better: a child starts with the peak of its parent there.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024
