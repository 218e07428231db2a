"""Artifacts are written under a temporary name in their own folder, then renamed."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import stat
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from probeline.errors import ProbelineError

# Names under which `replacing` and `replacing_folder` write, and put an old folder aside.
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.(tmp|old)")


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block succeeds.

    Readers therefore see the old file, or the whole new one. The folder is made if missing. On
    any error the temporary file is removed and `path` is left as it was.

    Raises
    ------
    ProbelineError
        If the disk is full or the folder cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            with temporary.open("rb") as handle:
                os.fsync(handle.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Like `replacing`, for a folder: the old one goes only when the new one is complete."""
    path = Path(path)
    token = uuid.uuid4().hex[:8]
    temporary = path.with_name(f".{path.name}.{token}.tmp")
    old = path.with_name(f".{path.name}.{token}.old")
    with explained(path):
        temporary.mkdir(parents=True)
        try:
            yield temporary
            if path.exists():
                path.replace(old)
            try:
                temporary.replace(path)
            except BaseException:
                if old.exists():
                    old.replace(path)
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)


def is_temporary(path: Path) -> bool:
    """Whether `replacing` or `replacing_folder` gives such a name to what is not yet whole."""
    return _TEMPORARY.fullmatch(path.name) is not None


def private_folder(folder: Path, otherwise: str = "") -> Path:
    """Make a folder in $TMPDIR that is this user's alone: others may write where it lies.

    Parameters
    ----------
    folder : Path
    otherwise : str
        What to do else than to set TMPDIR.

    Raises
    ------
    ProbelineError
        If it cannot be made, is no folder, or is somebody else's.
    """
    advice = f"set TMPDIR to a folder of your own{f', or {otherwise}' if otherwise else ''}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise ProbelineError(f"{folder}: cannot be made ({error.strerror}); {advice}") from None
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
        raise ProbelineError(f"{folder}: belongs to somebody else; {advice}")
    return folder


def remove_leftovers(paths: Iterable[str | os.PathLike]) -> None:
    """Delete what killed processes have left beside `paths`, which nobody else may be writing."""
    names: dict[Path, set[str]] = {}
    for path in map(Path, paths):
        names.setdefault(path.parent, set()).add(path.name)
    for folder, written in names.items():
        if not folder.is_dir():
            continue
        for left in folder.iterdir():
            match = _TEMPORARY.fullmatch(left.name)
            if match is None or match["name"] not in written:
                continue
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


@contextmanager
def explained(path: str | os.PathLike) -> Iterator[None]:
    """Turn the operating system's refusals about writing `path` into a `ProbelineError`."""
    with _told(path, "written"):
        yield


@contextmanager
def refused(path: str | os.PathLike) -> Iterator[None]:
    """Turn the operating system's refusals about reading `path` into a `ProbelineError`.

    That there is no such file is left to the caller, who knows what would make it.
    """
    with _told(path, "read"):
        yield


@contextmanager
def _told(path: str | os.PathLike, what: str) -> Iterator[None]:
    try:
        yield
    except ProbelineError:
        raise
    except Exception as error:
        reason = refusal(error, what)
        if reason is None:
            raise
        raise ProbelineError(f"{path}: {reason}") from error


def told(error: BaseException) -> str | None:
    """One line about an error that comes of the machine and not of this library; else None."""
    # Of torch on a CPU, and on a GPU.
    text = str(error)
    if isinstance(error, MemoryError) or "can't allocate memory" in text:
        return f"out of memory: {_short(text) or 'no more is given'}; free some, or {_LESS}"
    # The second is what cuBLAS says where nothing is left for it.
    if "out of memory" in text.lower() or "ALLOC_FAILED" in text:
        return f"out of memory: {_short(text)}; {_LESS}"
    reason = refusal(error, "used") if isinstance(error, OSError | RuntimeError) else None
    if reason is None:
        return None
    return f"{getattr(error, 'filename', None) or _short(text)}: {reason}"


_LESS = "run fewer jobs at once (--cores) or smaller batches (batch_tokens, batch_size)"


def _short(text: str) -> str:
    first = " ".join(text.split())
    return first if len(first) <= 160 else f"{first[:157]}..."


_FULL = (errno.ENOSPC, errno.EDQUOT)
_DENIED = (errno.EACCES, errno.EROFS, errno.EPERM)
_TOO_MANY = (errno.EMFILE, errno.ENFILE)
_BROKEN = (errno.EIO, errno.ESTALE)


def refusal(error: BaseException, what: str = "written") -> str | None:
    """What the operating system said, and what to do; None of other errors.

    Parameters
    ----------
    error : exception
        Of Python or of a library: h5py raises RuntimeError when a file cannot be closed, and
        OSError without errno; safetensors and tokenizers have errors of their own.
    what : str
        What could not be done to the file: "written" or "read".
    """
    number = getattr(error, "errno", None) or _errno_in_text(str(error))
    if number in _FULL:
        return (
            "no space left on the disk; free some or write results elsewhere, then run the same "
            "command again"
        )
    if number == errno.EFBIG:
        return (
            "larger than files may be here; raise the limit (`ulimit -f unlimited`) or write "
            "results to another disk, then run the same command again"
        )
    if number in _DENIED:
        return (
            f"cannot be {what}: {os.strerror(number)}; give yourself the right to it or use "
            "another folder"
        )
    if number in _TOO_MANY:
        return (
            f"cannot be {what}: {os.strerror(number)}; raise the limit (`ulimit -n 4096`), then "
            "run the same command again"
        )
    if number in _BROKEN:
        return f"cannot be {what}: {os.strerror(number)}; look after the disk, then run again"
    return None


_SAID = ("errno = {},", "(os error {})", "[Errno {}]")


def _errno_in_text(text: str) -> int | None:
    """What the operating system said, from a message of HDF5, of shutil or of a library in Rust."""
    for number in (*_FULL, errno.EFBIG, *_DENIED, *_TOO_MANY, *_BROKEN):
        if any(said.format(number) in text for said in _SAID):
            return number
    return None


def reachable(base: str | os.PathLike, path: str) -> Path:
    """Join `path`, which may begin with ``~``, to `base`; it may be missing.

    Raises
    ------
    ProbelineError
        If it cannot be a path: there is no such user, a name is too long or has a NUL in it; or if
        a folder on the way may not be read.
    """
    try:
        found = Path(base) / Path(path).expanduser()
        found.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (RuntimeError, ValueError) as error:
        raise ProbelineError(f"{path}: cannot be a path: {error}") from None
    except OSError as error:
        reason = refusal(error, "read") or f"cannot be read: {error.strerror}"
        raise ProbelineError(f"{path}: {reason}") from None
    return found


def walk(
    folder: Path,
    into: Callable[[Path], bool] = lambda folder: True,
    closed: Callable[[Path, OSError], object] = lambda folder, error: None,
) -> Iterator[Path]:
    """Yield all that lies below a folder, folders before what is in them, in no order.

    Folders that links lead to are entered too, but none within itself: results may be spread over
    disks.

    Parameters
    ----------
    into : callable
        Whether a folder is entered.
    closed : callable
        Gets a folder that cannot be listed, and why. One that is gone is none.
    """
    places = [(folder, frozenset[tuple[int, int]]())]
    while places:
        place, above = places.pop()
        try:
            state = place.stat()
            with os.scandir(place) as entries:
                inside = [(Path(entry.path), _leads_to_folder(entry)) for entry in entries]
        except FileNotFoundError:
            continue
        except OSError as error:
            closed(place, error)
            continue
        here = (state.st_dev, state.st_ino)
        if here in above:
            continue
        for path, is_folder in inside:
            yield path
            if is_folder and into(path):
                places.append((path, above | {here}))


def _leads_to_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into what is closed
        return False


_SPECIAL = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def refuse_special(path: str | os.PathLike) -> None:
    """Refuse what is neither a file nor a folder, nor leads to one: reading it may never end.

    What is not there, or cannot be looked at, is left to who reads it.

    Raises
    ------
    ProbelineError
    """
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return
    for is_such, what in _SPECIAL:
        if is_such(mode):
            raise ProbelineError(
                f"{path}: {what}, not a regular file; put what it yields into a file"
            )


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike, value: object) -> None:
    """Write `value` as indented JSON, whole or not at all. NaN is refused."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike) -> dict:
    """Read a JSON object; a missing or broken file is a `ProbelineError` that names it."""
    try:
        with refused(path):
            return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ProbelineError(f"{path}: no such file") from None
    except (ValueError, RecursionError) as error:
        raise ProbelineError(f"{path}: not a complete JSON file: {error}") from None


def folder_manifest(
    folder: str | os.PathLike, name: str, what: str, expected: int, example: str, again: str
) -> dict:
    """Read the JSON object that says what a folder of ours holds.

    Parameters
    ----------
    folder : path
    name : str
        File name of the manifest.
    what : str
        What such a folder is called.
    expected : int
        Its `format`.
    example, again : str
        A folder that would do, and what makes one of this version ('train it').

    Raises
    ------
    ProbelineError
        If there is none, or it is of a version this library does not read.
    """
    path = Path(folder) / name
    if not path.is_file():
        raise ProbelineError(
            f"{folder}: not a {what} folder: it has no {name}; give a folder like {example}"
        )
    manifest = read_json(path)
    if not isinstance(manifest, dict):
        raise ProbelineError(f"{path}: not the JSON object of a {what}; copy the folder again")
    if manifest.get("format") != expected:
        raise ProbelineError(
            f"{path}: format {manifest.get('format')}, this version of probeline reads "
            f"{expected}; {again} again or install probeline {manifest.get('probeline')}"
        )
    return manifest
