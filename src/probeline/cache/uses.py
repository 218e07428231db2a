"""Who uses which entries: working directories are known to the cache, their links say the rest.

Snakemake keeps no record of who has an entry. A run with `--cache` therefore writes one file of its
own into ``.probeline/folders`` of the cache, when it starts and when it ends. The links in its
folder are what counts; the record says where to look, and stands in where nobody can look.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import socket
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from probeline.cache.entries import key_of, user_name
from probeline.errors import ProbelineError
from probeline.files import explained, write_json, write_text
from probeline.workflow.states import STATES

OWN = ".probeline"
_FOLDERS = "folders"
# In a working directory.
_ID = STATES / "id"


@dataclass(frozen=True)
class Use:
    """A working directory that has used the cache.

    Attributes
    ----------
    folder : Path
    user, host : str
        Who ran it, and where.
    seen : float
        When it last ran, in seconds since the epoch.
    entries : dict of str to str
        Keys of the entries that it had then: the file or folder that one was for.
    running : bool
        Whether a run had started there and not ended.
    id : str
        What the folder says it is: another machine can have another folder at the same path.
    """

    folder: Path
    user: str
    host: str
    seen: float
    entries: dict[str, str]
    running: bool = False
    id: str = ""


@dataclass(frozen=True)
class InUse:
    """What must stay: what is `in` it.

    Attributes
    ----------
    links : dict of str to list of Path
        Keys of entries: the working directories that have links to them.
    unseen : list of Use
        Working directories that cannot be looked at: what they last had is among `links`.
    """

    links: dict[str, list[Path]]
    unseen: list[Use]

    @property
    def running(self) -> list[Use]:
        """Those that cannot be looked at while they run: each may be about to link any entry."""
        return [use for use in self.unseen if use.running]

    def __contains__(self, key: str) -> bool:
        return bool(self.running) or key in self.links


def own_folder(cache: Path, *parts: str) -> Path:
    """Return a folder for what probeline itself keeps in a cache, open to whom the cache is."""
    path = cache
    for part in (OWN, *parts):
        path = path / part
        if not path.is_dir():
            path.mkdir(exist_ok=True)
            path.chmod(cache.stat().st_mode & 0o7777)
    return path


def record(cache: Path, folder: Path, running: bool = False) -> Use:
    """Write down that `folder` uses the cache, which entries it has, and whether a run goes on.

    Raises
    ------
    OSError, ProbelineError
        If the cache, or the folder, cannot be written.
    """
    folder = folder.resolve()
    if not _id(folder):
        path = folder / _ID
        path.parent.mkdir(exist_ok=True)
        write_text(path, uuid.uuid4().hex)
        path.chmod(0o644)
    by = user_name(os.getuid()), socket.gethostname()
    use = Use(folder, *by, time.time(), linked(folder), running, _id(folder))
    path = own_folder(cache, _FOLDERS) / _file_name(use)
    write_json(path, asdict(use) | {"folder": str(folder)})
    path.chmod(0o644)
    return use


def recorded(cache: Path) -> list[Use]:
    """Return all working directories that the cache knows, by their paths.

    Raises
    ------
    ProbelineError
        If a record cannot be read.
    """
    found = []
    for path in (cache / OWN / _FOLDERS).glob("*.json"):
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            found.append(Use(**told | {"folder": Path(told["folder"])}))
        except FileNotFoundError:
            continue
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ProbelineError(
                f"{path}: cannot be read, so it is not known what that run uses ({error}); delete "
                "it, and run that workflow again if it is still wanted"
            ) from None
    return sorted(found, key=lambda use: use.folder)


def forget(cache: Path, folder: Path) -> None:
    """Drop the record of a working directory.

    Where several folders were at its path, the one that lies there now stays known.

    Raises
    ------
    ProbelineError
        If the cache does not know it.
    """
    known = [use for use in recorded(cache) if use.folder == folder.resolve()]
    if not known:
        raise ProbelineError(f"--forget: {folder}: the cache knows no such folder")
    gone = [use for use in known if _seen(use) is None]
    try:
        for use in gone or known:
            (cache / OWN / _FOLDERS / _file_name(use)).unlink(missing_ok=True)
    except PermissionError:
        raise ProbelineError(
            f"--forget: {folder}: only who ran it, or the owner of the cache, may do this"
        ) from None


def in_use(uses: Iterable[Use], others: Iterable[Path] = ()) -> InUse:
    """Look into working directories for links to entries.

    Parameters
    ----------
    uses : iterable of Use
    others : iterable of Path
        Folders that the cache need not know.

    Raises
    ------
    ProbelineError
        If one of `others` cannot be read.
    """
    links: dict[str, list[Path]] = {}
    unseen = []
    for use in uses:
        found = _seen(use)
        if found is None:
            unseen.append(use)
            found = use.entries
        for key in found:
            links.setdefault(key, []).append(use.folder)
    for folder in others:
        try:
            found = linked(folder, below=".", strict=True)
        except OSError as error:
            raise ProbelineError(
                f"--used-by: {folder}: cannot be read: {error.strerror or error}"
            ) from None
        for key in found:
            links.setdefault(key, []).append(folder)
    return InUse(links, unseen)


def _seen(use: Use) -> dict[str, str] | None:
    """What a working directory has now; None where it is not, or cannot be looked at."""
    try:
        return linked(use.folder, strict=True) if _id(use.folder) == use.id else None
    except OSError:
        return None


def _id(folder: Path) -> str:
    """What a folder says it is; nothing where no run has been."""
    try:
        return (folder / _ID).read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return ""


def linked(folder: Path, below: str = "results", strict: bool = False) -> dict[str, str]:
    """Return {key: what it is for} of the links to cache entries in a working directory.

    A link counts by the key in its target, wherever that leads: the same cache can have a path of
    its own on each machine.

    Parameters
    ----------
    folder : Path
    below : str
        Part of the folder that is looked at.
    strict : bool
        Whether what cannot be read raises OSError, instead of being passed over; a link to what
        is not there too, but for one to an entry. That there is no `below` in a folder is no error.
    """
    place = folder / below
    if strict:
        os.scandir(folder).close()
        if place.is_symlink() and not place.is_dir():
            raise _nowhere(place)
    found = {}
    for link in _links(place, strict):
        if key := key_of(link):
            found[key] = str(link.parent.relative_to(folder))
        elif strict and not link.exists():
            raise _nowhere(link)
    return found


def _nowhere(link: Path) -> OSError:
    """Of a disk that is not here, maybe, with links that count."""
    return FileNotFoundError(errno.ENOENT, f"{link} leads to what is not there")


def _links(folder: Path, strict: bool = False) -> Iterator[Path]:
    """All links in a folder, in those that lie in it, and in those that links lead to: results may
    be spread over disks. Folders of a cache are not looked into."""
    places, visited = [folder] if folder.is_dir() else [], set()
    while places:
        place = places.pop()
        try:
            state = place.stat()
            with os.scandir(place) as inside:
                files = [Path(file.path) for file in inside]
        except OSError:
            if strict:
                raise
            continue
        # A link can lead back to a folder above it.
        if (state.st_dev, state.st_ino) in visited:
            continue
        visited.add((state.st_dev, state.st_ino))
        for file in files:
            link = file.is_symlink()
            if link:
                yield file
            if _is_folder(file, strict) and not (link and key_of(file)):
                places.append(file)


def _is_folder(path: Path, strict: bool) -> bool:
    try:
        return path.is_dir()
    except OSError:
        if strict:
            raise
        return False


def from_cache(output: Path) -> bool:
    """Whether an output came from a cache, or went there: a link to an entry, a folder of them."""
    try:
        inside = [*output.iterdir()] if output.is_dir() else []
    except OSError:  # closed to us
        inside = []
    return any(path.is_symlink() and key_of(path) for path in (output, *inside))


def broken(folder: Path) -> list[Path]:
    """Return the links of a working directory to entries that are gone."""
    places = [folder / "results" / part for part in ("activations", "datasets", "lrsl")]
    links = (link for place in places for link in _links(place))
    return sorted(link for link in links if key_of(link) and not link.exists())


def unlink_broken(folder: Path) -> int:
    """Remove the links of a working directory to entries that are gone; return how many.

    Raises
    ------
    ProbelineError
        If there is no such folder, or it cannot be written.
    """
    if not folder.is_dir():
        raise ProbelineError(f"--unlink: {folder}: no such folder")
    links = broken(folder)
    for link in links:
        with explained(link):
            link.unlink()
    return len(links)


def _file_name(use: Use) -> str:
    """By both: a copy of a folder has the same id at another path."""
    return f"{hashlib.sha256(use.id.encode() + os.fsencode(use.folder)).hexdigest()[:32]}.json"
