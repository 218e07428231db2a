"""Running something in a child process that the machine treats badly."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable


def in_child(work: Callable[[], object], prepare: Callable[[], object]) -> str:
    """Run `prepare`, then `work`, in a forked process; return what `work` says.

    That is "nothing", or the class and text of its exception.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        said = "nothing"
        try:
            prepare()
            work()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as handle:
        said = handle.read().decode()
    os.waitpid(child, 0)
    return said


def as_nobody() -> None:
    """Give up root's rights, which no permission stops."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)


def small_files(size: int) -> Callable[[], None]:
    """No file may grow beyond `size` bytes."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


def few_files() -> None:
    """All file handles are taken."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    try:
        while True:
            os.open(os.devnull, os.O_RDONLY)
    except OSError:
        pass


def little_memory(more: int) -> Callable[[], None]:
    """Only `more` bytes of address space beside those that are in use."""

    def limit() -> None:
        with open("/proc/self/statm", encoding="ascii") as handle:  # noqa: PTH123
            used = int(handle.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + more, used + more))

    return limit
