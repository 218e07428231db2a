"""A process with every library loaded, whose forks run jobs and are killed.

Reads one JSON object a line from stdin and answers each with one on stdout. A job runs as in
Snakemake: its script, with what it is told, in the folder of the run; but without the seconds that
a new process takes to load torch. How it is killed, all of it by seeded numbers:

    after   SIGKILL so many seconds after it began, wherever it is
    event   SIGKILL right before the n-th change of a file's name, size or state: open for writing,
            rename, removal, link, truncation, fsync
    byte    a write is cut at the n-th byte of a file, whoever writes (HDF5, Arrow, torch and
            safetensors included), and the process ends there, by SIGXFSZ
    end     SIGKILL when all is done, but Snakemake does not know yet
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import resource
import runpy
import signal
import struct
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from loaded import load_everything

# Counters that a killed process leaves behind.
EVENTS, PASSES, STEPS = range(3)
_CHANGES = {
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.mkdir",
    "os.truncate",
    "os.link",
    "os.symlink",
    "os.chmod",
}


class Counters:
    """Numbers in memory that a child shares with its parent."""

    def __init__(self):
        self._memory = mmap.mmap(-1, 64)

    def clear(self) -> None:
        self._memory[:] = bytes(64)

    def add(self, place: int) -> int:
        count = self[place] + 1
        struct.pack_into("<q", self._memory, 8 * place, count)
        return count

    def __getitem__(self, place: int) -> int:
        return struct.unpack_from("<q", self._memory, 8 * place)[0]


def _watch_files(counters: Counters, folder: str, last: int | None) -> None:
    """Count what changes files; before the one after `last` is done, the process is killed."""

    def event() -> None:
        if counters.add(EVENTS) == last:
            os.kill(os.getpid(), signal.SIGKILL)

    def within(path) -> bool:
        if isinstance(path, int):
            return False
        path = os.fsdecode(path)
        return not path.startswith("/") or path.startswith(folder)

    def hook(name: str, args: tuple) -> None:
        writes = name == "open" and (args[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if (writes or name in _CHANGES) and within(args[0]):
            event()

    sync = os.fsync

    def fsync(descriptor) -> None:
        event()
        sync(descriptor)

    os.fsync = fsync
    sys.addaudithook(hook)


def _watch_work(counters: Counters) -> None:
    """Count forward passes of whole models and steps of optimizers."""
    from torch.nn.modules.module import register_module_forward_pre_hook
    from torch.optim.optimizer import register_optimizer_step_post_hook

    def passed(module, args) -> None:
        if type(module).__name__ in ("BertModel", "GPT2Model"):
            counters.add(PASSES)

    register_module_forward_pre_hook(passed)
    register_optimizer_step_post_hook(lambda *_: counters.add(STEPS))


def _named(items: list, names: dict):
    from snakemake.iocontainers import Namedlist

    found = Namedlist(items)
    for name, (start, end) in names.items():
        found._set_name(name, start, end=end)
    return found


def _told(job: dict) -> SimpleNamespace:
    parts = {name: _named(job[name], names) for name, names in job["names"].items()}
    same = {name: job[name] for name in ("threads", "log", "config", "rule")}
    return SimpleNamespace(**parts, **same, resources={})


def _child(order: dict, counters: Counters) -> None:
    os.setsid()
    with Path(order["printed"]).open("ab", buffering=0) as printed:
        os.dup2(printed.fileno(), 1)
        os.dup2(printed.fileno(), 2)
    os.chdir(order["folder"])
    _watch_work(counters)
    _watch_files(counters, order["folder"], order["kill"].get("event"))
    if "byte" in order["kill"]:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["kill"]["byte"],) * 2)
    runpy.run_path(order["job"]["script"], {"snakemake": _told(order["job"])})
    if "end" in order["kill"]:
        os.kill(os.getpid(), signal.SIGKILL)


def _run(order: dict, counters: Counters) -> dict:
    counters.clear()
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _child(order, counters)
            code = 0
        except SystemExit as end:
            code = end.code or 0
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
            os._exit(code)
    limit = began + min(order["kill"].get("after", 1e9), order["seconds"])
    status = 0
    while not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        if time.monotonic() >= limit:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
        time.sleep(0.0005)
    seconds = time.monotonic() - began
    # What it has started goes with it.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {
        "status": status,
        "seconds": seconds,
        "events": counters[EVENTS],
        "passes": counters[PASSES],
        "steps": counters[STEPS],
    }


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # nobody else may answer
    load_everything()
    counters = Counters()
    for line in sys.stdin:
        print(json.dumps(_run(json.loads(line), counters)), file=answers, flush=True)


if __name__ == "__main__":
    main()
