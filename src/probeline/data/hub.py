"""One split of a dataset on the hub, at the commit that is asked for, with a network or without."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from probeline.errors import ProbelineError
from probeline.models.reference import hub_cache

_COMMIT = re.compile(r"[0-9a-f]{40}")
_ADVICE = "run `probeline fetch` where there is a network"


def load_split(path: str, config: str | None, revision: str | None, split: str):
    """Load one split of a hub dataset, or of a folder laid out like one.

    Out of the hub's reach, `datasets` gives the newest copy that it has prepared, whatever revision
    is asked for. Here it is the copy of that revision, or of what was last seen of the branch.

    Parameters
    ----------
    path : str
        Hub id or folder.
    config : str or None
        Name of the configuration.
    revision : str or None
        Commit, tag or branch; None for main.
    split : str
        Name of a split, or a slice of one such as ``train[:10%]``.

    Returns
    -------
    data : datasets.Dataset
    commit : str or None
        The hub's commit that the rows are of; None for a folder.

    Raises
    ------
    ProbelineError
        If it cannot be loaded, or only another commit of it is at hand.
    """
    import datasets

    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    where = f"{path}: split '{split}'"
    data = _loaded(where, path, config, split=split, revision=revision)
    if Path(path).is_dir():
        return data, None
    found, wanted = _commit_of(data), _cached_commit(path, revision)
    if found == wanted or None in (found, wanted):
        return data, found or wanted
    snapshot = cached_snapshot(path, wanted)
    if snapshot is None:
        raise ProbelineError(
            f"{where}: the cache holds commit {found[:7]}, not {wanted[:7]}, and the hub is out of "
            f"reach; {_ADVICE}"
        )
    return _loaded(where, str(snapshot), config, split=split), wanted


def _loaded(where: str, path: str, config: str | None, **more):
    import datasets

    try:
        return datasets.load_dataset(path, config, **more)
    except Exception as error:  # the library raises a dozen unrelated types
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        advice = f"; {_ADVICE}" if isinstance(error, ConnectionError) else ""
        raise ProbelineError(
            f"{where} could not be loaded from the hub: {reason}{advice}"
        ) from error


def _commit_of(data) -> str | None:
    """The commit in the name of the folder that the prepared rows lie in."""
    for file in data.cache_files:
        name = Path(file["filename"]).parent.name
        if _COMMIT.fullmatch(name):
            return name
    return None


def cached_snapshot(repo: str, revision: str | None) -> Path | None:
    """The folder of what was fetched of a dataset at `revision`; None where nothing was."""
    commit = _cached_commit(repo, revision)
    folder = _cache(repo) / "snapshots" / commit if commit else None
    return folder if folder is not None and folder.is_dir() else None


def _cached_commit(repo: str, revision: str | None) -> str | None:
    """What `revision` stood for when the hub was last asked."""
    if revision and _COMMIT.fullmatch(revision):
        return revision
    try:
        return (_cache(repo) / "refs" / (revision or "main")).read_text(encoding="ascii").strip()
    except OSError:
        return None


def _cache(repo: str) -> Path:
    return hub_cache() / f"datasets--{repo.replace('/', '--')}"
