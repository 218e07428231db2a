"""What an entry is, by its own files: artifacts say of themselves what they are of."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from probeline.activations.names import LENGTHS, is_name
from probeline.cache.entries import Entry
from probeline.sealed import reading


@dataclass(frozen=True)
class Origin:
    """Where an entry comes from.

    Attributes
    ----------
    rule : str
        texts, dataset, extract or embed; empty for what is none of ours.
    dataset, model : str
        Names in the configuration that it was made with; empty where it has none.
    detail : str
        What tells it from others of the kind.
    """

    rule: str
    dataset: str = ""
    model: str = ""
    detail: str = ""


def origin(entry: Entry) -> Origin:
    """Return where an entry comes from; of one that cannot be read, the rule and why."""
    kind = _kind(entry.parts)
    if kind is None:
        return Origin("")
    rule, read, path = kind
    try:
        return read(rule, path)
    except Exception as error:  # damaged files fail in as many ways as there are readers
        told = str(error).removeprefix(f"{path}: ")  # the entry names its files
        reason = " ".join(f"{type(error).__name__}: {told}".split())
        return Origin(rule, detail=f"cannot be read ({reason[:80]})")


def _kind(parts: Mapping[str, Path]) -> tuple[str, Callable[[str, Path], Origin], Path] | None:
    """The rule that makes these files, what reads its entries, and the file that is read.

    All of the names decide: other workflows may use one of them, and theirs must not be removed.
    """
    if named := _NAMED.get(frozenset(parts)):
        rule, read, name = named
        # Of a folder the names tell little.
        ours = rule != "embed" or (parts[name] / "embedding.json").is_file()
        return (rule, read, parts[name]) if ours else None
    shards = [path for name, path in parts.items() if is_name(name)]
    if shards and all(is_name(name) or name in _BESIDE_SHARDS for name in parts):
        return "extract", _of_shards, shards[0]
    return None


def _of_texts(rule: str, path: Path) -> Origin:
    told = _manifest(path.with_name(path.name.replace("_texts.parquet", "_manifest.json")))
    return Origin(rule, told["name"], detail=f"{told['rows']} texts")


def _of_labels(rule: str, path: Path) -> Origin:
    told = _manifest(path.with_name(path.name.replace("_labels.parquet", "_manifest.json")))
    return Origin(rule, told["name"], detail=f"{told['rows']} texts, {', '.join(told['tasks'])}")


def _of_shards(rule: str, path: Path) -> Origin:
    # Here, since most entries that are asked about are no HDF5.
    from probeline import hdf5

    # Attributes alone, of any version of the format.
    with reading(path, "a whole shard") as file:
        told = hdf5.attributes(file)
    detail = f"{told['model']}, {told['rows']} texts, {told['max_length']} tokens, {told['dtype']}"
    revision = str(told.get("revision") or "")
    at = f" at {revision[:7]}" if len(revision) == 40 else ""
    detail = detail.replace(",", f"{at},", 1)
    if "part" in told:
        detail += f", part {told['part']} of {told['parts']}"
    return Origin(rule, told["dataset"], told["model_name"], detail)


def _of_embedding(rule: str, path: Path) -> Origin:
    told = _manifest(path / "embedding.json")["settings"]
    detail = f"{told['task']}, seed {told['seed']}, from {Path(told['embedder']).name}"
    return Origin(rule, told["dataset"], detail=detail)


def _manifest(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


# What a rule makes, as Snakemake names it: with an underscore where outputs have names.
_NAMED: dict[frozenset[str], tuple[str, Callable[[str, Path], Origin], str]] = {
    frozenset({"_texts.parquet", "_manifest.json"}): ("texts", _of_texts, "_texts.parquet"),
    frozenset({"_labels.parquet", "_manifest.json"}): ("dataset", _of_labels, "_labels.parquet"),
    frozenset({"_folder", "_identity.json"}): ("embed", _of_embedding, "_folder"),
}
_BESIDE_SHARDS = {"tokens.json", "timing.json", LENGTHS}
