"""Where the data of a dataset entry lie. Standard library only: read at parse time."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

from probeline.errors import ProbelineError, nearest
from probeline.files import reachable, refuse_special

SPLITS = ("train", "validation", "test")
ROOT_VARIABLE = "PROBELINE_DATA_ROOT"
PACKAGE = "package:"

# What lies beside texts in a folder without being one.
_NOT_DATA = (".py", ".pyc", ".pyo", "~")
_NOT_DATA_NAMES = ("thumbs.db", "desktop.ini")


def data_folder(data_root: str | os.PathLike | None) -> Path:
    """Return the base of relative paths: `data_root`, else $PROBELINE_DATA_ROOT, else here."""
    return Path(data_root or os.environ.get(ROOT_VARIABLE) or ".").expanduser()


def resolve_path(path: str | os.PathLike, data_root: str | os.PathLike | None = None) -> Path:
    """Return the local path that a config's `path` means. Existence is not checked.

    Parameters
    ----------
    path : str
        ``package:<import name>/<path inside the package>``, an absolute path, one that begins
        with ``~``, or one relative to the data root. A package is located without importing it.
    data_root : str, optional
        See `data_folder`.

    Raises
    ------
    ProbelineError
        If the package is not installed, the path is empty or none that can be.
    """
    text = os.fspath(path)
    if not text.strip():
        raise ProbelineError("path: empty; expected a file, a folder or package:<name>/<path>")
    if text.startswith(PACKAGE):
        return _inside_package(text)
    base = data_folder(data_root)
    return reachable(base, text)


def _inside_package(text: str) -> Path:
    name, _, rest = text.removeprefix(PACKAGE).partition("/")
    top, *inner = name.split(".")
    try:
        # Only the top level: find_spec("a.b") would import a.
        spec = importlib.util.find_spec(top) if top else None
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise ProbelineError(
            f"{text}: no installed package is imported as '{top}'; "
            "install it into this environment (pip), or give a folder"
        )
    candidates = [Path(base, *inner, rest) for base in spec.submodule_search_locations]
    return next((path for path in candidates if path.exists()), candidates[0])


def local_folder(spec: dict, data_root: str | os.PathLike | None = None) -> Path | None:
    """Return the folder of a hub entry that names one (package:, /, ./, ../, ~), else None."""
    path = str(spec["path"])
    if path.startswith((PACKAGE, "/", "./", "../", "~")):
        return resolve_path(path, data_root)
    return None


def split_sources(spec: dict) -> dict[str, str | None]:
    """Return {split: what the config names for it}, for the splits that are given, not made.

    None stands for "the path itself" and only train can have it. Fractions are left out.
    """
    splits = spec.get("splits") or {}
    unknown = sorted(set(splits) - set(SPLITS))
    if unknown:
        raise ProbelineError(
            f"splits.{unknown[0]}: unknown split; expected {', '.join(SPLITS)}"
            f"{nearest(unknown[0], SPLITS)}"
        )
    named: dict[str, str | None] = {"train": splits.get("train")}
    for split in SPLITS[1:]:
        if isinstance(splits.get(split), str):
            named[split] = splits[split]
    for split, source in named.items():
        for other in list(named)[: list(named).index(split)]:
            if source is not None and source == named[other]:
                raise ProbelineError(
                    f"splits.{other} and splits.{split} both name '{source}': the scores would be "
                    "taken on texts already used; name different ones or give a fraction"
                )
    return named


def split_paths(spec: dict, data_root: str | os.PathLike | None = None) -> dict[str, list[Path]]:
    """Return {split: files}, or {split: [folder]} for the folder loader. Checks existence.

    A name of a split may be a pattern (``train-*.parquet``); its files are read in name order.

    Raises
    ------
    ProbelineError
        Naming the file, folder or split that is missing, or is a pipe or a device.
    """
    base = resolve_path(spec["path"], data_root)
    refuse_special(base)
    if not base.exists():
        raise ProbelineError(f"{base}: no such file or folder{_near(base)} (path: {spec['path']})")
    named = split_sources(spec)
    if spec["loader"] == "folder":
        return {split: [_subfolder(base, split, name)] for split, name in named.items()}
    return {split: _files(base, split, name) for split, name in named.items()}


def _subfolder(base: Path, split: str, name: str | None) -> Path:
    folder = base if name is None else reachable(base, name)
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else f"no such folder{_near(folder)}"
        raise ProbelineError(
            f"{folder}: {problem}; splits.{split} of a folder dataset is a folder that holds "
            "one folder per class"
        )
    return folder


def _files(base: Path, split: str, name: str | None) -> list[Path]:
    if base.is_file():
        if name is not None:
            raise ProbelineError(
                f"splits.{split}: '{name}' is looked for in the folder given as path, but {base} "
                "is a file; give its folder as path, or a fraction for this split"
            )
        return [base]
    if name is None:
        raise ProbelineError(
            f"{base}: is a folder; name the file of train in splits.train "
            f"(it holds: {_listing(base)})"
        )
    exact = reachable(base, name)
    refuse_special(exact)
    if exact.is_file():
        return [exact]
    pattern = "*" in name and not Path(name).is_absolute()
    matched = sorted(base.glob(name)) if pattern else []
    for path in matched:
        refuse_special(path)
    found = [path for path in matched if path.is_file()]
    if not found:
        raise ProbelineError(
            f"{exact}: no such file (splits.{split}){_near(exact)}; the folder holds: "
            f"{_listing(base)}"
        )
    return found


def _near(path: Path) -> str:
    return nearest(path.name, _names(path.parent))


def _names(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in os.scandir(folder) if not entry.name.startswith("."))


def _listing(folder: Path, most: int = 8) -> str:
    names = _names(folder)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) + more) or "nothing"


def class_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield (class, file) of a folder that holds one folder per class, in name order.

    Files beside the class folders, hidden entries, ``__pycache__`` and Python files are no data.

    Raises
    ------
    ProbelineError
        If there is no class folder, or one is empty, or holds a folder, a pipe or a device.
    """
    classes = [entry for entry in _entries(folder) if entry.is_dir()]
    if not classes:
        raise ProbelineError(f"{folder}: holds no folders; expected one folder of texts per class")
    for label in classes:
        files = _entries(label.path)
        for entry in files:
            if entry.is_dir():
                raise ProbelineError(
                    f"{entry.path}: a folder inside the class folder '{label.name}'; expected "
                    "texts only (name the splits' folders in splits, if these are splits)"
                )
            if not entry.is_file():
                refuse_special(entry.path)
            yield label.name, Path(entry.path)
        if not files:
            raise ProbelineError(f"{label.path}: holds no texts; remove the folder or fill it")


def _entries(folder: str | os.PathLike) -> list[os.DirEntry]:
    """Entries that may be data, in name order: the file system's own order is arbitrary."""
    return sorted(
        (entry for entry in os.scandir(folder) if _may_be_data(entry.name)),
        key=lambda entry: entry.name,
    )


def _may_be_data(name: str) -> bool:
    hidden = name.startswith(".") or name == "__pycache__"
    return not (hidden or name.endswith(_NOT_DATA) or name.lower() in _NOT_DATA_NAMES)


def source_files(spec: dict, data_root: str | os.PathLike | None = None) -> list[Path]:
    """Return the local files that the loader will read, as inputs for the workflow.

    Empty for `hub` and `folder` sources: `source_fingerprint` stands for those.
    """
    if spec["loader"] in ("hub", "folder"):
        return []
    files = [path for paths in split_paths(spec, data_root).values() for path in paths]
    return list(dict.fromkeys(files))


def source_fingerprint(spec: dict, data_root: str | os.PathLike | None = None) -> str:
    """Return a cheap hash of what the source holds: relative names and sizes, no contents.

    It does not change when the same files lie elsewhere. Outside packages, whose files nobody
    edits, the times of change count too. For a dataset on the hub it is a hash of its id,
    configuration and revision.

    Returns
    -------
    str
        16 hexadecimal digits.

    Raises
    ------
    ProbelineError
        As `split_paths`, and if a file cannot be looked at: a link to nowhere.
    """
    digest = hashlib.sha256()
    try:
        lines = sorted(_fingerprint_lines(spec, data_root))
    except OSError as error:
        raise ProbelineError(f"{error.filename}: cannot be read: {error.strerror}") from None
    for line in lines:
        digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()[:16]


def _state(file: Path, spec: dict) -> str:
    stat = file.stat()
    if str(spec["path"]).startswith(PACKAGE):
        return str(stat.st_size)
    return f"{stat.st_size} {stat.st_mtime_ns}"


def source_bytes(spec: dict, data_root: str | os.PathLike | None = None) -> int:
    """Return the size of the local files that the loader will read; 0 for a dataset on the hub."""
    if _is_on_hub(spec, data_root):
        return 0
    files = {file for _, file in _local_files(spec, data_root)}
    return sum(file.stat().st_size for file in files)


def _fingerprint_lines(spec: dict, data_root: str | os.PathLike | None) -> Iterator[str]:
    if spec["loader"] == "hub":
        yield f"{spec.get('config')} {spec.get('revision')}"
    if _is_on_hub(spec, data_root):
        yield str(spec["path"])
        return
    for name, file in _local_files(spec, data_root):
        yield f"{name} {_state(file, spec)}"


def _is_on_hub(spec: dict, data_root: str | os.PathLike | None) -> bool:
    return spec["loader"] == "hub" and local_folder(spec, data_root) is None


def _local_files(spec: dict, data_root: str | os.PathLike | None) -> Iterator[tuple[str, Path]]:
    """Yield what the loader will read and a name for each file, by split and place."""
    if spec["loader"] == "hub":
        folder = resolve_path(spec["path"], data_root)
        if not folder.is_dir():
            raise ProbelineError(f"{folder}: no such folder{_near(folder)}")
        for path in folder.rglob("*"):
            relative = path.relative_to(folder)
            if path.is_file() and not any(part.startswith(".") for part in relative.parts):
                yield relative.as_posix(), path
        return
    base = resolve_path(spec["path"], data_root)
    for split, paths in split_paths(spec, data_root).items():
        for path in paths:
            inside = spec["loader"] == "folder"
            for file in [file for _, file in class_files(path)] if inside else [path]:
                relative = file.relative_to(base if base.is_dir() else base.parent).as_posix()
                yield f"{split} {relative}", file
