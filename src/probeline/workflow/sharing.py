"""Snakemake's cache between working directories: what it goes by, and who uses it."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from probeline.cache.location import VARIABLE, cache_folder
from probeline.cache.uses import broken, record
from probeline.errors import ProbelineError

logger = logging.getLogger(__name__)


def shared_folder(asked: Sequence[str] | None) -> Path | None:
    """Return the cache's folder of a run; None of one without `--cache`, or with remote storage.

    Parameters
    ----------
    asked : sequence of str or None
        What stands after `--cache`; None without it.

    Raises
    ------
    ProbelineError
        If there is no such folder; Snakemake would say so in the middle of the run.
    """
    if asked is None or "://" in os.environ.get(VARIABLE, ""):
        return None
    return cache_folder()


def refuse_broken(folder: Path) -> None:
    """Refuse a working directory with links to entries that are gone.

    Snakemake would say that a concurrent process has deleted them.

    Raises
    ------
    ProbelineError
        With the first of them.
    """
    links = broken(folder)
    if links:
        raise ProbelineError(
            f"{links[0]}: what it leads to in {links[0].readlink().parent} is gone ({len(links)} "
            "such links); mount that folder again, or run `probeline cache --unlink .` to have "
            "all of them made anew"
        )


def refuse_nameless(asked: Sequence[str] | None, local: bool) -> None:
    """Refuse a bare `--cache` where other machines run the jobs.

    Snakemake hands the option on to them only with a name after it; without, all would be computed
    again and nothing be stored.

    Raises
    ------
    ProbelineError
        With what to write.
    """
    if asked is not None and not asked and not local:
        raise ProbelineError(
            "--cache: Snakemake hands it on to a cluster's jobs only with the name of a rule; "
            "write --cache texts: all rules that can be shared are, whichever is named"
        )


def note_use(cache: Path | None, running: bool = False) -> None:
    """Let the cache know that this working directory uses it, so that nothing of it is pruned.

    Parameters
    ----------
    running : bool
        Whether a run begins, which will use more.
    """
    if cache is None:
        return
    try:
        record(cache, Path.cwd(), running)
    except (OSError, ProbelineError) as error:
        logger.warning("%s: not noted that this folder uses it: %s", cache, error)


def content(*files: str | Iterable[str]) -> str:
    """Return what tells the contents of a rule's inputs, for its `params`.

    Of a file that another rule makes, the cache's key holds how it was made and not what came out:
    of a hub model without a revision, not which commit. A function of `input` among the params adds
    that to the key and, unlike other params, is no reason to run again.

    Parameters
    ----------
    files : str or iterable of str
        Inputs, named as the rule names them; the order counts.

    Returns
    -------
    str
        64 hexadecimal digits of SHA-256.

    Raises
    ------
    FileNotFoundError
        While one of them is still to be made; Snakemake then asks again before the job starts.
    """
    digest = hashlib.sha256()
    for file in files:
        for path in [file] if isinstance(file, str) else file:
            # By its name as given: Snakemake knows a missing input by the name in the error.
            with open(path, "rb") as handle:  # noqa: PTH123
                digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()
