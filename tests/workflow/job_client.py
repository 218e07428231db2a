"""What is started in the place of Python, so that a job server does it: ADDRESS FILE, or -m MODULE.

Beside the server, since this has to begin in milliseconds: it imports as little as it can.
"""

from __future__ import annotations

import json
import os
import socket
import sys


def python(address: str, arguments: list[str]) -> None:
    """Let the server do it with what this process has: folder, environment, files."""
    # pathlib takes longer to import than all else that is done here.
    folder = os.getcwd()  # noqa: PTH109
    order = {"arguments": arguments, "folder": folder, "environment": dict(os.environ)}
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(address)
        message = json.dumps(order).encode()
        socket.send_fds(server, [len(message).to_bytes(8, "little")], [0, 1, 2])
        server.sendall(message)
        answer = server.recv(1)
    if not answer:
        sys.exit("the job server has gone")
    sys.exit(answer[0])


def client(address: str) -> list[str]:
    """What to start in the place of Python so that the server at the address does it."""
    return [sys.executable, "-S", "-E", __file__, address]


if __name__ == "__main__":
    python(sys.argv[1], sys.argv[2:])
