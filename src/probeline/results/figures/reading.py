"""What the figures read beside the grids: layers, baselines, marked classifiers, reports of
reranking; checked."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from probeline.errors import ProbelineError, one_of
from probeline.files import read_json

_LAYER_COLUMNS = ("representation", "pooling", "layer", "test_score", "validation_score")
_LAYER_COLUMNS += ("best", "last")
_SPLITS = ("validation", "test")


def read_layers(path: str | os.PathLike) -> list[dict]:
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise ProbelineError(f"{path}: no such table of layers") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise ProbelineError(f"{path}: not a readable Parquet file: {error}") from None
    missing = [name for name in _LAYER_COLUMNS if name not in table.column_names]
    if missing:
        raise ProbelineError(f"{path}: not a table of layers: no column {', '.join(missing)}")
    rows = table.select(_LAYER_COLUMNS).to_pylist()
    for row in rows:
        for key in ("test_score", "validation_score"):
            _number(path, row, key)
    if not (any(row["best"] for row in rows) and any(row["last"] for row in rows)):
        raise ProbelineError(f"{path}: not a table of layers: no row is marked best, or none last")
    return rows


def reference_lines(
    table: list[dict], embedding: str | os.PathLike | None, key: str
) -> dict[str, float]:
    """Heights of the horizontal lines by name."""
    lines = {"last layer": next(row for row in table if row["last"])[key]}
    if embedding is not None:
        lines["sentence embedding"] = _number(embedding, read_json(embedding), key)
    return {f"{name} {value:.3f}": value for name, value in lines.items()}


def marked_classifiers(path: str | os.PathLike, slugs: Iterable[str]) -> list[dict]:
    """The selected and the smallest classifier; once where they are the same."""
    scores, found = read_json(path), []
    for variant, shape in (("selected", "circle"), ("smallest", "square")):
        entry = _value(path, scores, variant, dict, "an object")
        slug = _value(path, entry, "slug", str, "a text")
        if slug not in slugs:
            raise ProbelineError(f"{path}: {variant}: slug {one_of(slug, slugs)}")
        found.append(
            {
                "name": variant.capitalize(),
                "shape": shape,
                "slug": slug,
                "neurons": int(_number(path, entry, "neurons")),
                "depth": int(_number(path, entry, "depth")),
                "score": _number(path, entry, "validation_score"),
                "test": _number(path, entry, "test_score"),
            }
        )
    selected, smallest = found
    if selected == smallest | {"name": "Selected", "shape": "circle"}:
        return [selected | {"name": "Selected and smallest"}]
    return found


def read_rerank_report(path: str | os.PathLike) -> dict:
    """The metric, the curve, what it is of, and the chosen and hard shares of a report."""
    report = read_json(path)
    curve = _curve(path, report)
    shown = _value(path, report, "shown", dict, "an object")
    splits = sorted({row["split"] for row in curve})
    shares = {
        key: _value(path, report, key, dict, "an object") for key in ("chosen_share", "hard_share")
    }
    return {
        "metric": _value(path, report, "metric", str, "a text"),
        "curve": curve,
        "shown": {
            "variant": _value(path, shown, "variant", str, "a text"),
            "chosen": _value(path, shown, "chosen", bool, "true or false"),
        },
        **{
            key: {split: _number(path, own, split) for split in splits}
            for key, own in shares.items()
        },
    }


def read_curve(path: str | os.PathLike) -> list[dict]:
    """The curve of all texts, which the ablations write."""
    return _curve(path, read_json(path))


def _curve(path: str | os.PathLike, entry: object) -> list[dict]:
    rows = _value(path, entry, "curve", list, "a list of rows")
    if not rows:
        raise ProbelineError(f"{path}: key 'curve': expected rows, found none")
    for row in rows:
        if _value(path, row, "split", str, "a text") not in _SPLITS:
            raise ProbelineError(f"{path}: split {one_of(row['split'], _SPLITS)}")
        for key in ("share", "score"):
            _number(path, row, key)
    return rows


def _number(path: str | os.PathLike, entry: Mapping, key: str) -> float:
    value = _value(path, entry, key, (int, float), "a finite number")
    if isinstance(value, bool) or not math.isfinite(value):
        raise ProbelineError(f"{path}: key '{key}': expected a finite number, found {value!r}")
    return value


def _value(path: str | os.PathLike, entry: object, key: str, kind, expected: str):
    value = entry.get(key) if isinstance(entry, Mapping) else None
    if not isinstance(value, kind):
        raise ProbelineError(f"{path}: key '{key}': expected {expected}, found {value!r}")
    return value
