"""Locks of files, also on disks that have none: NFS and Lustre can be set up so."""

from __future__ import annotations

import fcntl
from enum import Enum
from typing import IO


class Lock(Enum):
    """What came of asking for a lock."""

    HELD = "held"
    BUSY = "held by another"
    IMPOSSIBLE = "the disk has no locks"


def take(handle: IO, wait: bool = False, shared: bool = False) -> Lock:
    """Lock an open file; the lock ends with its last handle, and with its process.

    Parameters
    ----------
    handle : file object
        Over NFS it must be open for writing, or for reading if `shared`.
    wait : bool
        Until it is free; what comes back is then never `Lock.BUSY`.
    shared : bool
        With others that ask so.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(handle, kind if wait else kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return Lock.BUSY
    except OSError:
        return Lock.IMPOSSIBLE
    return Lock.HELD
