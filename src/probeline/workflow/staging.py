"""Where a job keeps what it has not finished: beside the results, or on its node's own disk."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from probeline.errors import ProbelineError, one_of
from probeline.files import private_folder
from probeline.workflow.states import STATES

TMPDIR = "tmpdir"
STAGING = ("results", TMPDIR)


def state_folder(staging: str | None, *place: str) -> Path:
    """A job's folder for unfinished work.

    Parameters
    ----------
    staging : {"results", "tmpdir"} or None
        None and results: `.probeline/` in the working directory, where any node goes on with it.
        tmpdir: in $TMPDIR, under names of this user and this working directory, where a job goes
        on if it is started again on the same node.
    *place : str
        The job's own path inside.

    Raises
    ------
    ProbelineError
        If `staging` is neither, or the folder in $TMPDIR is somebody else's.
    """
    if staging not in (None, *STAGING):
        raise ProbelineError(f"the resource `staging` {one_of(staging, STAGING)}")
    if staging != TMPDIR:
        return STATES.joinpath(*place)
    own = Path(tempfile.gettempdir()) / f"probeline-{os.getuid()}"
    here = hashlib.sha256(os.fsencode(Path.cwd().resolve())).hexdigest()[:16]
    return private_folder(own, "leave out the resource `staging`") / here / Path(*place)
