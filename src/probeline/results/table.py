"""The table of results in the terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from probeline.config import DEFAULT_TASK, NO_MODEL, PATH_TASK
from probeline.errors import ProbelineError
from probeline.results.seeds import named_reranking, reranked_source

_NAMES = {
    ("stc", "selected"): "STC, selected",
    ("stc", "smallest"): "STC, smallest",
    ("probe", ""): "best single layer",
    ("last-layer", ""): "last layer",
    ("sentence-embedding", ""): "sentence embedding",
    ("finetune", ""): "fine-tuned",
    ("regular", ""): "regular",
    ("icl", ""): "in-context",
    ("label-tokens", ""): "labels as tokens",
    ("tfidf", ""): "TF-IDF",
    ("given", ""): "scores made elsewhere",
}
_LRSL, _LABEL_TOKENS = "lrsl", "label-tokens"
# Their variants name each layer and each grid, or what is said by the features or the name.
_OWN = ("stc", "probe", "last-layer", "sentence-embedding", "zero-shot", _LABEL_TOKENS)


def show(folder: str | Path = ".", console: Console | None = None) -> None:
    """Print the methods of every (dataset, task, model), their differences, and where things lie.

    Raises
    ------
    ProbelineError
        If there is no summary, or it is one of an earlier version.
    """
    console = console or Console()
    path = Path(folder) / "results" / "summary.parquet"
    if not path.is_file():
        raise ProbelineError(
            f"{path}: no results here; run `probeline run` first, or give the folder that "
            "holds results/"
        )
    frame = _read(path).to_pandas()
    differences = _differences(path.with_name("comparisons.parquet"))
    for number, ((dataset, task, model), cell) in enumerate(_cells(frame).items()):
        if number:
            console.print()
        console.print(_table(dataset, task, model, cell))
        for line in differences.get((dataset, task, model), []):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(_places(Path(folder), frame), highlight=False, soft_wrap=True)


def _read(path: Path) -> pa.Table:
    table = pq.read_table(path)
    if "seeds" not in table.column_names:
        raise ProbelineError(
            f"{path}: expected a column `seeds`, which an earlier version did not write; run "
            "`probeline run` again"
        )
    return table


def _cells(frame: pd.DataFrame) -> dict[tuple[str, str, str], pd.DataFrame]:
    """Rows by (dataset, task, model); those without a model stand with each model there is."""
    names = ["dataset", "task", "model"]
    cells = {key: cell for key, cell in frame.groupby(names, sort=False) if key[2] != NO_MODEL}
    for (dataset, task, model), cell in frame[frame["model"] == NO_MODEL].groupby(names):
        hosts = [key for key in cells if key[:2] == (dataset, task)]
        for key in hosts or [(dataset, task, model)]:
            cells[key] = pd.concat([cells[key], cell]) if key in cells else cell
    return cells


def _table(dataset: str, task: str, model: str, cell: pd.DataFrame) -> Table:
    metric = cell["metric"].iloc[0]
    name = dataset if task == DEFAULT_TASK else f"{dataset} / {task}"
    if task == PATH_TASK:
        name += " (all levels, all rows)"
    title = f"{name}, {model}: {metric}"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for column in ("method", "features", "neurons", "depth", "valid.", "test", "95 % int."):
        left = column in ("method", "features")
        # In a narrow terminal words break, numbers never do.
        table.add_column(column, justify="left" if left else "right", no_wrap=not left)
    wide: dict[tuple[str, str], dict[str, dict]] = {}
    for row in _methods(cell):
        key = (row["method"], _part(row))
        wide.setdefault(key, {})[row["split"]] = row
    for key in sorted(wide, key=lambda k: -wide[k]["test"]["score"]):
        test, validation = wide[key]["test"], wide[key]["validation"]
        table.add_row(
            _named(*key, test["seeds"]),
            _features(test),
            "" if pd.isna(test["neurons"]) else str(test["neurons"]),
            "" if pd.isna(test["depth"]) else str(test["depth"]),
            f"{validation['score']:.4f}",
            f"{test['score']:.4f}",
            "" if pd.isna(test["ci_low"]) else f"{test['ci_low']:.3f}-{test['ci_high']:.3f}",
        )
    return table


def _methods(cell: pd.DataFrame) -> Iterator[dict]:
    """Rows of whole methods, the mean of several seeds in the place of each.

    A mean's row keeps the variant of its seeds.
    """
    reranked = cell["source"].where(cell["method"] == _LRSL, "")
    series = cell["variant"].where(cell["method"] == _LABEL_TOKENS, "").map(_series)
    keys = ["method", reranked.map(_method_of), series]
    for (method, *_), rows in cell.groupby(keys, sort=False):
        if method == "stc":
            rows = rows[rows["variant"].isin(["selected", "smallest"])]
        elif method == "probe":
            rows = rows[~rows["variant"].str.startswith("layer: ")]
        means = rows["seeds"] > 1
        variant = rows["variant"].iloc[0]
        for row in (rows[means] if means.any() else rows).to_dict("records"):
            yield row | ({"variant": variant} if means.any() else {})


def _differences(path: Path) -> dict[tuple[str, str, str], list[str]]:
    """A line per comparison, by (dataset, task, model); none where the file is not there yet."""
    rows = _read(path).to_pylist() if path.is_file() else []
    cells: dict[tuple[str, str, str], list[dict]] = {}
    for row in rows:
        cells.setdefault((row["dataset"], row["task"], row["model"]), []).append(row)
    return {key: [_line(row, found) for row in found] for key, found in cells.items()}


def _line(row: dict, cell: list[dict]) -> str:
    """One comparison; with its texts where others of the cell have more."""
    first = _named(row["method"], row["variant"], row["seeds"])
    second = _named(row["against"], row["against_variant"], row["against_seeds"])
    fewer = row["texts"] < max(other["texts"] for other in cell)
    return (
        f"{first} - {second}: {row['difference']:+.4f} "
        f"[{row['ci_low']:+.4f}, {row['ci_high']:+.4f}], "
        f"p {row['p_holm']:.2g} (Holm): {row['verdict']}"
        + (f", on {row['texts']} texts" if fewer else "")
    )


def _part(row: dict) -> str:
    """What of a method a row is about, where it has several."""
    if row["method"] == _LRSL:
        return named_reranking(_method_of(row["source"]), "")
    if row["method"] == _LABEL_TOKENS:
        return _series(row["variant"])
    return row["variant"] if row["method"] == "stc" else ""


def _series(variant: str) -> str:
    """Which of a method's series of runs a row is of, by `named_mean`."""
    return variant.partition(":")[0]


def _method_of(source: str) -> str:
    """The method that made predictions, by their file's name."""
    return re.sub(r"-\d+$", "", source)


def _named(method: str, variant: str, seeds: int) -> str:
    name = _NAMES.get((method, variant if method == "stc" else ""), method)
    if method == _LRSL:
        source = reranked_source(variant)
        part = "selected" if source == "stc" else ""
        name = f"{_NAMES.get((source, part), source)}, reranked"
    if method == _LABEL_TOKENS:
        name += f" ({_series(variant)})"
    return f"{name}, {seeds} seeds" if seeds > 1 else name


def _features(row: dict) -> str:
    """What is read: a layer or a combination; of other methods their variant."""
    if row["method"] not in _OWN:
        return row["variant"]
    parts = [row["representation"], row["pooling"]]
    if row["layer"] is not None and not pd.isna(row["layer"]):
        parts.append(str(int(row["layer"])))
    return ".".join(part for part in parts if part and not pd.isna(part))


def _places(folder: Path, frame: pd.DataFrame) -> str:
    first = frame.iloc[0]
    classifier = folder / "results/classifiers" / first["dataset"] / first["task"] / first["model"]
    lines = [
        "",
        f"every score        {folder / 'results/summary.csv'}",
        f"figures            {folder / 'results/figures'}",
        f"data cards         {folder / 'results/cards'}",
        f"predictions        {folder / 'results/predictions'}",
        f"classifiers        {folder / 'results/classifiers'}",
        f'try one            probeline predict --classifier {classifier} "some text"',
    ]
    return "\n".join(lines)
