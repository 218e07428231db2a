"""A process with every library loaded, whose forks run the scripts of jobs, and commands.

Most of what a job of so small a project takes is the loading of its libraries. Runs that are not
about the start of jobs get them from here, through job_client.py. It prints its address once it is
ready.

A job is killed when what asked for it is. The server ends with the last process that has a
connection which asks for nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import tempfile
from pathlib import Path

from forks import end_with
from loaded import load_everything

# Seconds without anybody, after which the server ends.
_ALONE = 10


class Server:
    """Forks a child for each order, until nobody is there any more."""

    def __init__(self, address: str):
        self._selector = selectors.DefaultSelector()
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(address)
        self._listening.listen(64)
        self._selector.register(self._listening, selectors.EVENT_READ, self._accept)
        self._others: set[socket.socket] = set()

    def serve(self) -> None:
        while (ready := self._selector.select(_ALONE)) or self._others:
            for key, _ in ready:
                key.data()

    def _accept(self) -> None:
        other, _ = self._listening.accept()
        self._others.add(other)
        self._watch(other, lambda: self._order(other))

    def _order(self, other: socket.socket) -> None:
        length, files, _, _ = socket.recv_fds(other, 8, 3)
        if not length:
            self._gone(other)
            return
        with other.makefile("rb") as stream:
            order = json.loads(stream.read(int.from_bytes(length, "little")))
        child = os.fork()
        if child == 0:
            self._selector.close()
            self._listening.close()
            end_with(_run, order, files)
        for file in files:
            os.close(file)
        ended = os.pidfd_open(child)
        self._selector.unregister(other)
        self._watch(other, lambda: self._kill(other, child))
        self._watch(ended, lambda: self._ended(other, child, ended))

    def _kill(self, other: socket.socket, child: int) -> None:
        """Nobody waits for it any more; its end comes as that of others."""
        self._selector.unregister(other)
        try:
            os.killpg(child, signal.SIGKILL)
        except ProcessLookupError:
            # It has no group of its own yet.
            os.kill(child, signal.SIGKILL)

    def _ended(self, other: socket.socket, child: int, ended: int) -> None:
        self._selector.unregister(ended)
        os.close(ended)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with contextlib.suppress(OSError):
            other.sendall(bytes([status if status >= 0 else 128 - status]))
        self._gone(other)

    def _gone(self, other: socket.socket) -> None:
        with contextlib.suppress(KeyError):
            self._selector.unregister(other)
        self._others.remove(other)
        other.close()

    def _watch(self, what: socket.socket | int, call) -> None:
        self._selector.register(what, selectors.EVENT_READ, call)


def _run(order: dict, files: list[int]) -> None:
    """In a fork: what `python FILE` or `python -m MODULE` does."""
    os.setsid()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["folder"])
    sys.argv = order["arguments"]
    if sys.argv[0] == "-m":
        del sys.argv[0]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = str(Path(sys.argv[0]).parent)
        runpy.run_path(sys.argv[0], run_name="__main__")


def main() -> None:
    """Load the libraries, serve, and leave nothing."""
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    load_everything()
    with tempfile.TemporaryDirectory(prefix="jobs-") as folder:
        address = str(Path(folder, "socket"))
        server = Server(address)
        print(address, file=answer, flush=True)
        answer.close()
        server.serve()


if __name__ == "__main__":
    main()
