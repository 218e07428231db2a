"""The table of results in the terminal."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from probeline.config import DEFAULT_TASK, PATH_TASK
from probeline.errors import ProbelineError

_NAMES = {
    ("stc", "selected"): "STC, selected",
    ("stc", "smallest"): "STC, smallest",
    ("probe", ""): "best single layer",
    ("last-layer", ""): "last layer",
    ("sentence-embedding", ""): "sentence embedding",
}


def show(folder: str | Path = ".", console: Console | None = None) -> None:
    """Print the methods of every (dataset, task, model), their differences, and where things lie.

    Raises
    ------
    ProbelineError
        If there is no summary.
    """
    console = console or Console()
    path = Path(folder) / "results" / "summary.parquet"
    if not path.is_file():
        raise ProbelineError(
            f"{path}: no results here; run `probeline run` first, or give the folder that "
            "holds results/"
        )
    frame = pq.read_table(path).to_pandas()
    differences = _differences(path.with_name("comparisons.parquet"))
    cells = frame.groupby(["dataset", "task", "model"], sort=False)
    for number, ((dataset, task, model), cell) in enumerate(cells):
        if number:
            console.print()
        console.print(_table(dataset, task, model, cell))
        for line in differences.get((dataset, task, model), []):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(_places(Path(folder), frame), highlight=False, soft_wrap=True)


def _table(dataset: str, task: str, model: str, cell: pd.DataFrame) -> Table:
    metric = cell["metric"].iloc[0]
    name = dataset if task == DEFAULT_TASK else f"{dataset} / {task}"
    if task == PATH_TASK:
        name += " (all levels, all rows)"
    title = f"{name}, {model}: {metric}"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for column in ("method", "features", "neurons", "depth", "valid.", "test", "95 % int."):
        left = column in ("method", "features")
        table.add_column(column, justify="left" if left else "right", no_wrap=True)
    wide = {}
    for row in cell.to_dict("records"):
        key = (row["method"], row["variant"] if row["method"] == "stc" else "")
        plain = row["method"] in ("probe", "last-layer") and not row["variant"].startswith("layer")
        if row["method"] in ("probe", "last-layer") and not plain:
            continue
        if key in _NAMES:
            wide.setdefault(key, {})[row["split"]] = row
    for key in sorted(wide, key=lambda k: -wide[k]["test"]["score"]):
        test, validation = wide[key]["test"], wide[key]["validation"]
        table.add_row(
            _NAMES[key],
            _features(test),
            "" if pd.isna(test["neurons"]) else str(test["neurons"]),
            "" if pd.isna(test["depth"]) else str(test["depth"]),
            f"{validation['score']:.4f}",
            f"{test['score']:.4f}",
            f"{test['ci_low']:.3f}-{test['ci_high']:.3f}",
        )
    return table


def _differences(path: Path) -> dict[tuple[str, str, str], list[str]]:
    """A line per comparison, by (dataset, task, model); none where the file is not there yet."""
    lines: dict[tuple[str, str, str], list[str]] = {}
    for row in pq.read_table(path).to_pylist() if path.is_file() else []:
        first = _name(row["method"], row["variant"])
        second = _name(row["against"], row["against_variant"])
        lines.setdefault((row["dataset"], row["task"], row["model"]), []).append(
            f"{first} - {second}: {row['difference']:+.4f} "
            f"[{row['ci_low']:+.4f}, {row['ci_high']:+.4f}], "
            f"p {row['p_holm']:.2g} (Holm): {row['verdict']}"
        )
    return lines


def _name(method: str, variant: str) -> str:
    return _NAMES.get((method, variant if method == "stc" else ""), method)


def _features(row: dict) -> str:
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
