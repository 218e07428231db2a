"""A GPU of its own for each job, on a machine with several and no scheduler."""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from probeline.files import private_folder
from probeline.locks import Lock, take

logger = logging.getLogger(__name__)

_DEVICES = Path("/dev")
_VARIABLE = "CUDA_VISIBLE_DEVICES"


def visible_gpus() -> list[str]:
    """Names of the NVIDIA GPUs that this process may use, as CUDA_VISIBLE_DEVICES writes them."""
    given = os.environ.get(_VARIABLE)
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip()]
    # CUDA counts those that are there from 0, also in a container whose only one is nvidia3.
    found = [path for path in _DEVICES.glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name)]
    return [str(number) for number in range(len(found))]


@contextmanager
def own_gpu(wanted: int) -> Iterator[str | None]:
    """Hold one of several visible GPUs, and show no other to what is loaded from now on.

    Snakemake counts GPUs and gives none: without this all jobs of a machine would use the first. A
    scheduler that shows each job its own is left alone. Locks end with their process, so a killed
    job keeps nothing.

    Parameters
    ----------
    wanted : int
        GPUs that the rule asks for; with 0 nothing is done.

    Yields
    ------
    str or None
        The GPU that is held; None where there is no choice, or where all are held by others.

    Raises
    ------
    ProbelineError
        If the folder of the locks in $TMPDIR is somebody else's.
    """
    visible = visible_gpus()
    if not wanted or len(visible) < 2:
        yield None
        return
    folder = private_folder(Path(tempfile.gettempdir()) / f"probeline-gpus-{os.getuid()}")
    for name in visible:
        with (folder / re.sub(r"\W", "_", name)).open("a") as handle:
            lock = take(handle)
            if lock is Lock.IMPOSSIBLE:
                logger.warning(
                    "%s: cannot be locked: %s; the first GPU is shared, unless TMPDIR is a folder "
                    "on a disk that has them",
                    *(handle.name, lock.value),
                )
                break
            if lock is Lock.BUSY:
                continue
            os.environ[_VARIABLE] = name
            logger.info("uses GPU %s of %s", name, ", ".join(visible))
            try:
                yield name
            finally:
                os.environ[_VARIABLE] = ",".join(visible)
            return
    else:
        logger.warning("all %d GPUs are held by other jobs: the first is shared", len(visible))
    yield None
