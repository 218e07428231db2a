"""What an entry is, by its own files: artifacts say of themselves what they are of."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from probeline.cache.entries import Entry


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
    for rule, (own, read) in _KINDS.items():
        parts = [path for name, path in entry.parts.items() if own(name)]
        if parts:
            try:
                return read(rule, parts[0])
            except Exception as error:  # damaged files fail in as many ways as there are readers
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                return Origin(rule, detail=f"cannot be read ({reason[:80]})")
    return Origin("")


def _of_texts(rule: str, path: Path) -> Origin:
    told = _manifest(path.with_name(path.name.replace("_texts.parquet", "_manifest.json")))
    return Origin(rule, told["name"], detail=f"{told['rows']} texts")


def _of_labels(rule: str, path: Path) -> Origin:
    told = _manifest(path.with_name(path.name.replace("_labels.parquet", "_manifest.json")))
    return Origin(rule, told["name"], detail=f"{told['rows']} texts, {', '.join(told['tasks'])}")


def _of_shards(rule: str, path: Path) -> Origin:
    import h5py

    # Attributes alone, of any version of the format; others may read it on a disk without locks.
    with h5py.File(path, "r", locking=False) as file:
        told = dict(file.attrs)
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


_KINDS: dict[str, tuple[Callable[[str], bool], Callable[[str, Path], Origin]]] = {
    "texts": (lambda name: name == "_texts.parquet", _of_texts),
    "dataset": (lambda name: name == "_labels.parquet", _of_labels),
    "embed": (lambda name: name == "_folder", _of_embedding),
    # Only the names that Snakemake gives to several outputs begin with an underscore.
    "extract": (lambda name: name.endswith(".h5") and not name.startswith("_"), _of_shards),
}
