"""Where the shared cache lies."""

from __future__ import annotations

import os
from pathlib import Path

from probeline.errors import ProbelineError

VARIABLE = "SNAKEMAKE_OUTPUT_CACHE"


def cache_folder(given: str | os.PathLike | None = None) -> Path:
    """Return the cache's folder: `given`, else what the environment says.

    Raises
    ------
    ProbelineError
        If neither names one, or it is no folder with a full path that can be read.
    """
    text = os.fspath(given) if given is not None else os.environ.get(VARIABLE, "")
    what = "--folder" if given is not None else VARIABLE
    if not text:
        raise ProbelineError(
            f"{VARIABLE} is not set, so there is no shared cache; set it to the full path of a "
            "folder (docs/caching.md)"
        )
    path = Path(text)
    if given is None and not path.is_absolute():
        # Links to its entries would lead from where they stand to nowhere.
        raise ProbelineError(f"{what}: '{text}' is no full path; begin it with /")
    if not path.is_dir():
        raise ProbelineError(f"{what}: {text}: no such folder; make it first (docs/caching.md)")
    if not os.access(path, os.R_OK | os.X_OK):
        raise ProbelineError(f"{what}: {text}: you may not read this folder")
    return path.resolve()
