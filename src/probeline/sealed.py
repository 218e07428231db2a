"""HDF5 files with a seal: a checksum of the file that is compared before HDF5 opens it.

HDF5 trusts its own metadata, and a flipped bit there can end the process without a word. So a file
begins with a user block, 512 bytes that HDF5 skips, which holds one line:

    probeline crc32=1a2b3c4d but=8192+3072000

the CRC-32 of this range (offset+size) as it is written here, then of all that follows the user
block, but for these bytes, which have checksums of their own. A file that is still being written
has the line ``probeline unfinished``. CRC-32 finds every error of up to 32 bits in a row and misses
one in 2^32 of others; zlib's runs at more than 1 GB/s.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from probeline.errors import ProbelineError
from probeline.files import explained, refused, replacing

if TYPE_CHECKING:
    import h5py

BLOCK = 512  # of a user block, the least that HDF5 allows
UNFINISHED = b"probeline unfinished\n"
_SEAL = re.compile(rb"probeline crc32=([0-9a-f]{8}) but=(\d{1,19})\+(\d{1,19})\n\0*")
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_CHUNK = 1 << 20


def use_locks() -> bool:
    """Whether HDF5 locks the files it opens: off, for shared disks without locks, unless the
    environment variable PROBELINE_HDF5_LOCKING is 1."""
    return os.environ.get("PROBELINE_HDF5_LOCKING", "0") == "1"


def opened(path: Path) -> h5py.File:
    """Open an HDF5 file for reading.

    Raises
    ------
    ProbelineError
        If another process has locked it, or the machine refuses.
    OSError
        If it cannot be read as HDF5.
    """
    # Here and below, since every job asks for seals and few for HDF5.
    import h5py

    with refused(path):
        try:
            return h5py.File(path, "r", locking=use_locks())
        except OSError as error:
            if "unable to lock" in str(error):
                raise ProbelineError(f"{path}: locked by another process that writes it") from None
            raise


@contextmanager
def sealing(path: str | os.PathLike) -> Iterator[h5py.File]:
    """Write a sealed HDF5 file, whole or not at all; yields it, open for writing."""
    import h5py

    with replacing(path) as temporary:
        with h5py.File(temporary, "w", userblock_size=BLOCK, locking=use_locks()) as file:
            yield file
        seal(temporary)


def seal(path: Path, offset: int = BLOCK, size: int = 0) -> None:
    """Write the checksum of a file with a user block, but for `size` bytes at `offset`."""
    with explained(path), path.open("r+b", buffering=0) as handle:
        line = b"probeline crc32=%08x but=%d+%d\n" % (_crc(handle, offset, size), offset, size)
        handle.seek(0)
        handle.write(line.ljust(BLOCK, b"\0"))


def unfinished(path: Path) -> None:
    """Mark a file with a user block as being written."""
    with explained(path), path.open("r+b", buffering=0) as handle:
        handle.write(UNFINISHED.ljust(BLOCK, b"\0"))


def is_unfinished(path: Path) -> bool:
    """Whether a file is marked as being written."""
    with explained(path), path.open("rb", buffering=0) as handle:
        return handle.read(BLOCK).startswith(UNFINISHED)


def check_seal(path: Path, what: str, remedy: str) -> tuple[int, int] | None:
    """Compare a file with its seal.

    Parameters
    ----------
    what, remedy : str
        What it should be ("a readable probe"), and what to do if it is not.

    Returns
    -------
    (int, int) or None
        The range of bytes that is not checked, (offset, size); None for an HDF5 file without a
        seal, as earlier versions wrote them.

    Raises
    ------
    ProbelineError
        If it is damaged, unfinished, cannot be read or is no HDF5 file.
    FileNotFoundError
    """
    with refused(path):
        if path.is_dir():
            raise ProbelineError(f"{path}: not {what} but a folder; {remedy}")
    with refused(path), path.open("rb", buffering=0) as handle:
        start = handle.read(BLOCK)
        if start.startswith(_SIGNATURE):
            return None
        if start.startswith(UNFINISHED):
            raise ProbelineError(
                f"{path}: incomplete, the job that writes it was interrupted; run that job again"
            )
        found = _SEAL.fullmatch(start)
        if len(start) < BLOCK or (found is None and handle.read(8) != _SIGNATURE):
            raise ProbelineError(
                f"{path}: not {what}: not an HDF5 file, or cut off at its start; {remedy}"
            )
        offset, size = (int(found[2]), int(found[3])) if found else (BLOCK, 0)
        whole = offset + size <= path.stat().st_size
        if not (found and whole and int(found[1], 16) == _crc(handle, offset, size)):
            raise ProbelineError(f"{path}: not {what}: damaged or truncated (checksum); {remedy}")
        return offset, size


def seal_of(path: Path) -> str | None:
    """The seal of a file as it stands there, unchecked; None of a file without one."""
    with path.open("rb", buffering=0) as handle:
        found = _SEAL.fullmatch(handle.read(BLOCK))
    return found[0].rstrip(b"\n\0").decode() if found else None


@contextmanager
def reading(path: str | os.PathLike, what: str) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading after `check_seal`; what HDF5 cannot read is one line."""
    path, remedy = Path(path), "delete it and run again"
    check_seal(path, what, remedy)
    with understood(path, what, remedy), opened(path) as file:
        yield file


@contextmanager
def understood(path: str | os.PathLike, what: str, remedy: str) -> Iterator[None]:
    """One line about whatever fails while the content of a file is read, which others may have
    made: there are as many kinds of errors as there are ways to be broken."""
    try:
        with refused(path):
            yield
    except (ProbelineError, MemoryError):
        raise
    except Exception as error:
        raise ProbelineError(f"{path}: not {what} ({error}); {remedy}") from None


def _crc(handle, offset: int, size: int) -> int:
    crc = _crc_of(handle, BLOCK, offset, zlib.crc32(b"%d+%d" % (offset, size)))
    return _crc_of(handle, offset + size, None, crc)


def _crc_of(handle, start: int, stop: int | None, crc: int) -> int:
    handle.seek(start)
    while stop is None or start < stop:
        chunk = handle.read(_CHUNK if stop is None else min(_CHUNK, stop - start))
        if not chunk:
            break
        crc, start = zlib.crc32(chunk, crc), start + len(chunk)
    return crc
