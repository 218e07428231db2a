"""The data card: what a reader should know of a dataset before trusting scores on it."""

from __future__ import annotations

import html
from collections import defaultdict
from itertools import combinations
from pathlib import Path

import numpy as np

from probeline.data.paths import SPLITS
from probeline.data.store import Dataset, read_dataset
from probeline.files import write_json, write_text

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def data_card(dataset_folder: str | Path, token_lengths: dict[str, dict] | None = None) -> dict:
    """Describe a stored dataset.

    Parameters
    ----------
    dataset_folder : path
    token_lengths : dict, optional
        {model: summary of `activations.tokens.token_summary`}.

    Returns
    -------
    dict
        - ``texts``: {split: rows}; ``characters``: {split: mean, max, quantiles} (of pairs the
          sum of both);
        - ``empty``: policy, rows dropped by split, and ``half_empty_pairs`` that were kept;
        - ``copies``: policy and rows dropped; by split the rows that repeat an earlier one;
          ``in_two_splits``: distinct texts that two splits share; ``contradictory``: distinct
          texts whose copies differ in their labels;
        - ``tasks``: {task: kind, rows defined by split, majority share in train, and by label
          the rows of each split}; for multi-label also the mean labels per text and the texts
          without any;
        - ``tokens``: `token_lengths`.
    """
    dataset = read_dataset(dataset_folder)
    manifest = dataset.manifest
    texts = dataset.texts
    pairs = dataset.pairs or [""] * dataset.rows
    half = sum(not (a.strip() and b.strip()) for a, b in zip(texts, pairs, strict=True))
    return {
        "name": dataset.name,
        "fingerprint": dataset.fingerprint,
        "source": manifest["source"],
        "texts": {split: stop - start for split, (start, stop) in dataset.offsets.items()},
        "characters": _characters(dataset),
        "empty": {**manifest["empty"], "half_empty_pairs": half if dataset.pairs else 0},
        "copies": {
            "policy": manifest["duplicates"]["policy"],
            "dropped": manifest["duplicates"]["dropped"],
            **_copies(dataset),
        },
        "hierarchy": manifest["hierarchy"],
        "tasks": {task: _task(dataset, task) for task in dataset.tasks},
        "tokens": token_lengths or {},
    }


def _characters(dataset: Dataset) -> dict[str, dict]:
    lengths = np.array([len(text) for text in dataset.texts])
    if dataset.pairs is not None:
        lengths += np.array([len(text) for text in dataset.pairs])
    summary = {}
    for split in SPLITS:
        part = lengths[dataset.split(split)]
        values = np.quantile(part, _QUANTILES).tolist()
        summary[split] = {
            "mean": round(float(part.mean()), 1),
            "max": int(part.max()),
            "quantiles": {str(q): round(v, 1) for q, v in zip(_QUANTILES, values, strict=True)},
        }
    return summary


def _copies(dataset: Dataset) -> dict:
    rows_of = defaultdict(list)
    for row, text in enumerate(zip(dataset.texts, dataset.pairs or dataset.texts, strict=True)):
        rows_of[text].append(row)
    several = [rows for rows in rows_of.values() if len(rows) > 1]
    part = np.repeat(np.arange(len(SPLITS)), [stop - start for start, stop in _ends(dataset)])
    repeats = {
        split: sum(max(0, int((part[rows] == code).sum()) - 1) for rows in several)
        for code, split in enumerate(SPLITS)
    }
    shared = {
        f"{SPLITS[one]}/{SPLITS[two]}": sum({one, two} <= set(part[rows]) for rows in several)
        for one, two in combinations(range(len(SPLITS)), 2)
    }
    labels = [dataset.labels(task) for task in dataset.tasks]
    contradictory = sum(
        any((codes[rows] != codes[rows[0]]).any() for codes in labels) for rows in several
    )
    return {"repeats": repeats, "in_two_splits": shared, "contradictory": contradictory}


def _ends(dataset: Dataset) -> list[tuple[int, int]]:
    return [dataset.offsets[split] for split in SPLITS]


def _task(dataset: Dataset, task: str) -> dict:
    described = dataset.tasks[task]
    counts = described["counts"]
    card = {
        "kind": described["kind"],
        "defined": described["defined"],
        "majority": round(max(counts["train"]) / described["defined"]["train"], 4),
        "labels": {
            label: {split: counts[split][code] for split in SPLITS}
            for code, label in enumerate(described["labels"])
        },
        "unused": described["unused"],
    }
    if described["kind"] == "multi":
        per_text = dataset.labels(task).sum(axis=1)
        card["labels_per_text"] = round(float(per_text.mean()), 3)
        card["texts_without_label"] = int((per_text == 0).sum())
    return card


def write_card(
    dataset_folder: str | Path,
    json_path: str | Path,
    markdown_path: str | Path,
    token_lengths: dict[str, dict] | None = None,
) -> dict:
    """Write `data_card` as JSON and as Markdown; return it."""
    card = data_card(dataset_folder, token_lengths)
    write_json(json_path, card)
    write_text(markdown_path, markdown(card))
    return card


def markdown(card: dict) -> str:
    """Return a card as Markdown."""
    copies, empty = card["copies"], card["empty"]
    lines = [f"# {card['name']}", ""]
    lines += _table(
        ["split", "texts", "characters (median)", "characters (longest)", "repeats in the split"],
        [
            [
                split,
                card["texts"][split],
                f"{card['characters'][split]['quantiles']['0.5']:.0f}",
                card["characters"][split]["max"],
                copies["repeats"][split],
            ]
            for split in SPLITS
        ],
    )
    shared = ", ".join(f"{pair} {count}" for pair, count in copies["in_two_splits"].items())
    half = empty["half_empty_pairs"]
    lines += [
        f"- Empty texts: {empty['policy']}, {sum(empty['dropped'].values())} dropped"
        + (f"; pairs with one empty side: {half}" if half else ""),
        f"- Exact copies: {copies['policy']}, {sum(copies['dropped'].values())} dropped",
        f"- Distinct texts that stand in two splits: {shared}",
        f"- Distinct texts whose copies have different labels: {copies['contradictory']}",
        "",
    ]
    for name, task in card["tasks"].items():
        lines += _task_lines(name, task)
    if card["tokens"]:
        lines += ["## Tokens", "", *_token_lines(card["tokens"])]
    return "\n".join(lines).rstrip() + "\n"


def _task_lines(name: str, task: dict) -> list[str]:
    kind = "several labels per text" if task["kind"] == "multi" else "one label per text"
    facts = f"{len(task['labels'])} labels, {kind}; largest share in train {task['majority']:.1%}."
    if task["kind"] == "multi":
        facts += (
            f" {task['labels_per_text']} labels per text, {task['texts_without_label']} texts "
            "without any."
        )
    if task["unused"]:
        facts += f" Declared but in no text of train: {', '.join(map(_plain, task['unused']))}."
    rows = [
        [label, *(counts[split] for split in SPLITS)] for label, counts in task["labels"].items()
    ]
    total = [["*texts where defined*", *(task["defined"][split] for split in SPLITS)]]
    return [f"## {name}", "", facts, "", *_table(["label", *SPLITS], rows + total)]


def _token_lines(tokens: dict[str, dict]) -> list[str]:
    rows = []
    for model, summary in tokens.items():
        for split, part in summary.get("splits", {}).items():
            rows.append(
                [
                    model,
                    split,
                    part.get("mean", ""),
                    part.get("quantiles", {}).get("0.5", ""),
                    part.get("quantiles", {}).get("0.95", ""),
                    part.get("max", ""),
                    summary.get("max_length", ""),
                    f"{part['truncated']:.1%}" if "truncated" in part else "",
                ]
            )
    return _table(
        ["model", "split", "mean", "median", "95 %", "longest", "kept", "texts truncated"], rows
    )


def _plain(text: str) -> str:
    """Text on one line, in which Markdown's readers find no HTML."""
    return html.escape(" ".join(text.split()), quote=False)


def _table(header: list[str], rows: list[list]) -> list[str]:
    cells = [[_plain(str(cell)).replace("|", "\\|") for cell in row] for row in rows]
    lines = [" | ".join(row) for row in [header, ["---"] * len(header), *cells]]
    return [*(f"| {line} |" for line in lines), ""]
