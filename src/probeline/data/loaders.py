"""From a dataset entry of the config to checked Arrow tables, one per split that is given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from probeline.data import readers
from probeline.data.hub import load_split
from probeline.data.paths import local_folder, split_paths, split_sources
from probeline.data.source import Place, Source, concatenate
from probeline.errors import ProbelineError, one_of

LOADERS = ("hub", "csv", "tsv", "json", "parquet", "folder")
_DELIMITERS = {"csv": ",", "tsv": "\t"}


def text_columns(spec: dict) -> list[str]:
    """Return the one or two text columns of an entry."""
    text = spec.get("text") or "text"
    columns = [text] if isinstance(text, str) else list(text)
    if len(columns) not in (1, 2):
        raise ProbelineError(f"text: {len(columns)} columns; expected one, or two for text pairs")
    return columns


def task_columns(spec: dict) -> dict[str, str]:
    """Return {task: column}: ``label`` for one column, each column's own name for several."""
    label = spec.get("label") or "label"
    return {"label": label} if isinstance(label, str) else {name: name for name in label}


def load_source(spec: dict, data_root: str | None = None) -> dict[str, Source]:
    """Read the splits that an entry gives: always train, validation and test where named.

    Parameters
    ----------
    spec : dict
        An entry under ``datasets:`` with its defaults filled in.
    data_root : str, optional
        Base of relative paths; see `paths.data_folder`.

    Returns
    -------
    dict of str to Source

    Raises
    ------
    ProbelineError
        A file, split, column or text that is missing or cannot be read, by name and row.
    """
    loader = spec["loader"]
    if loader not in LOADERS:
        raise ProbelineError(f"loader: {one_of(loader, LOADERS)}")
    if loader == "hub":
        return {
            split: _hub_source(spec, name or "train", data_root)
            for split, name in split_sources(spec).items()
        }
    sources = {}
    for split, paths in split_paths(spec, data_root).items():
        try:
            sources[split] = concatenate([_file_source(spec, path) for path in paths])
        except OSError as error:
            raise ProbelineError(
                f"{error.filename or paths[0]}: cannot be read: {error.strerror or error}"
            ) from None
    return sources


def fetch_dataset(spec: dict, data_root: str | None = None) -> str | None:
    """Bring the splits that an entry names into the hub's cache; return their commit.

    Nothing happens for files, folders and packages: None.

    Raises
    ------
    ProbelineError
        As `load_source`.
    """
    if spec["loader"] != "hub" or local_folder(spec, data_root) is not None:
        return None
    return load_source(spec, data_root)["train"].revision


def fetch_splits(path: str, config: str | None, revision: str | None, splits: list[str]) -> str:
    """Bring splits of a hub dataset into the hub's cache, as they are; return their commit.

    Parameters
    ----------
    path, config, revision
        As in `hub.load_split`.
    splits : list of str

    Raises
    ------
    ProbelineError
        If one cannot be loaded, or they are of different commits.
    """
    commits = {load_split(path, config, revision, split)[1] or revision for split in splits}
    if len(commits) > 1:
        raise ProbelineError(f"{path}: a new commit came while it was fetched; run again")
    return commits.pop()


def _file_source(spec: dict, path: Path) -> Source:
    loader, texts, tasks = spec["loader"], text_columns(spec), task_columns(spec)
    encoding = spec.get("encoding") or "utf-8"
    encodings = [encoding] if isinstance(encoding, str) else list(encoding)
    columns, features = [*texts, *tasks.values()], {}
    if loader in _DELIMITERS:
        table = readers.read_delimited(path, columns, _DELIMITERS[loader], encodings)
        readers.refuse_lists(path, table, list(tasks.values()))
    elif loader == "json":
        table = readers.read_json_lines(path, texts, list(tasks.values()), encodings)
    elif loader == "parquet":
        table, features = readers.read_parquet(path, columns)
    else:
        table, files = readers.read_folder(path, "text", "label", encodings)
        places = tuple(Place(file, 1, single=True) for file in files)
        return _source(table, ["text"], {"label": "label"}, features, places)
    return _source(table, texts, tasks, features, (Place(str(path), table.num_rows),))


def _hub_source(spec: dict, split: str, data_root: str | None) -> Source:
    """Read one split of a dataset on the hub, from the cache, or of a folder laid out like one."""
    folder = local_folder(spec, data_root)
    if folder is not None and not folder.is_dir():
        raise ProbelineError(f"{folder}: no such folder")
    path = str(folder or spec["path"])
    data, commit = load_split(path, spec.get("config"), spec.get("revision"), split)
    texts, tasks = text_columns(spec), task_columns(spec)
    columns = [*texts, *tasks.values()]
    name = f"{spec['path']}[{split}]"
    readers.require_columns(name, columns, data.column_names)
    # with_format("arrow") honours a slice such as train[:10%], the bare table would not.
    table = data.select_columns(list(dict.fromkeys(columns))).with_format("arrow")[:]
    source = _source(table, texts, tasks, data.features.to_dict(), (Place(name, table.num_rows),))
    return replace(source, revision=commit or spec.get("revision"))


def _source(
    table: pa.Table,
    texts: list[str],
    tasks: dict[str, str],
    features: dict,
    places: tuple[Place, ...],
) -> Source:
    """Check and unify the types of the columns; `features` is the hub format's description."""
    name = places[0].name
    if not table.num_rows:
        raise ProbelineError(f"{name}: has no rows")
    declared = {
        task: _class_names(features.get(column), column, name) for task, column in tasks.items()
    }
    source = Source(
        pa.table(
            {
                key: _as_text(table[column], column, name)
                for key, column in zip(("text", "text_pair"), texts, strict=False)
            }
        ),
        pa.table({task: _as_label(table[column], column, name) for task, column in tasks.items()}),
        {task: names for task, names in declared.items() if names},
        places,
        np.arange(table.num_rows),
    )
    for key, column in zip(source.texts.column_names, texts, strict=True):
        if source.texts[key].null_count:
            row = pc.index(source.texts[key].is_null(), True).as_py()
            raise ProbelineError(
                f"{source.where(row)}: no text (null) in '{column}'; fill it or remove the row"
            )
    return source


def _as_text(column: pa.ChunkedArray, name: str, path: str) -> pa.ChunkedArray:
    kind = _value_type(column.type)
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise ProbelineError(f"{path}: column '{name}' holds {kind}; expected texts")
    try:
        column.validate(full=True)
    except pa.ArrowInvalid as error:
        raise ProbelineError(f"{path}: column '{name}': {error}") from None
    return column.cast(pa.large_string())


def _as_label(column: pa.ChunkedArray, name: str, path: str) -> pa.ChunkedArray:
    kind = column.type
    several = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if any(test(kind) for test in several):
        plain = _plain_label(_value_type(kind.value_type))
        plain = plain and pa.list_(plain)
    else:
        plain = _plain_label(_value_type(kind))
    if plain is None:
        raise ProbelineError(
            f"{path}: column '{name}' holds {kind}; expected labels as text, whole numbers, "
            "booleans, or lists of one of these"
        )
    try:
        column.validate(full=True)
        return column.cast(plain)
    except pa.ArrowInvalid as error:
        raise ProbelineError(f"{path}: column '{name}': {error}") from None


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _plain_label(kind: pa.DataType) -> pa.DataType | None:
    types = pa.types
    if types.is_string(kind) or types.is_large_string(kind) or types.is_null(kind):
        return pa.large_string()
    if types.is_integer(kind):
        return pa.int64()
    return pa.bool_() if types.is_boolean(kind) else None


def _class_names(feature: object, column: str, path: str) -> list[str] | None:
    """Return the names of a ClassLabel, or of a list of them, as the hub's format writes it."""
    while isinstance(feature, dict) and feature.get("_type") != "ClassLabel":
        feature = feature.get("feature")
    names = feature.get("names") if isinstance(feature, dict) else None
    if names is None or (isinstance(names, list) and all(isinstance(n, str) for n in names)):
        return names
    raise ProbelineError(f"{path}: column '{column}': its class names are not a list of texts")
