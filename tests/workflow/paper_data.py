"""Tiny stand-ins for the datasets that the papers' configurations read, laid out as each says."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from local_hub import Repo

BANKING77 = "0fd18e25b25c072e09e0d92ab615fda904d66300"
# Labels as AAPD writes them; reasons to call, in words.
SUBJECTS = ("cs.it", "math.it", "cs.lg")
REASONS = ("业务资费", "网络故障", "投诉")
EMOTIONS = ("admiration", "amusement", "neutral")


def write_files(root: Path) -> Path:
    """EDOS as Parquet, AAPD and CMCC as JSON lines, in folders below `root`."""
    for split, rows in (("train", 12), ("validation", 6), ("test", 6)):
        texts = [f"{split} text {row}" for row in range(rows)]
        _parquet(
            root / "edos" / f"{split}.parquet",
            rewire_id=[f"{split}-{row}" for row in range(rows)],
            text=texts,
            label_sexist=[("not sexist", "sexist")[row % 2] for row in range(rows)],
            label_category=["none"] * rows,
        )
        several = [
            [SUBJECTS[row % 3], SUBJECTS[(row + 1) % 3]][: 1 + row % 2] for row in range(rows)
        ]
        _lines(root / "aapd" / f"{split}.jsonl", texts, labels=several)
        one = [REASONS[row % 3] for row in range(rows)]
        _lines(root / "cmcc" / f"{split}.jsonl", texts, label=one)
    return root


def _parquet(path: Path, **columns: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def _lines(path: Path, texts: list[str], **columns: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    (name, values) = next(iter(columns.items()))
    rows = [{"text": text, name: value} for text, value in zip(texts, values, strict=True)]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def hub_repos() -> dict[str, Repo]:
    """The datasets on the hub: configurations, splits, columns and classes as published."""
    sst2 = {"sentence": str, "label": ["negative", "positive"], "idx": int}
    iflytek = {"sentence": str, "label": [str(code) for code in range(119)], "idx": int}
    emotion = {"text": str, "label": ["anger", "joy", "optimism", "sadness"]}
    several = {"text": str, "labels": [EMOTIONS], "id": str}
    repos = {
        "stanfordnlp/imdb": _repo(
            {"plain_text": {"text": str, "label": ["neg", "pos"]}},
            {"train": 20, "test": 10, "unsupervised": 5},
        ),
        "nyu-mll/glue": _repo({"sst2": sst2}, {"train": 70, "validation": 10, "test": 10}),
        "cardiffnlp/tweet_eval": _repo(
            {"emotion": emotion}, {"train": 20, "validation": 8, "test": 8}
        ),
        "clue/clue": _repo({"iflytek": iflytek}, {"train": 1190, "validation": 119, "test": 10}),
        "google-research-datasets/go_emotions": _repo(
            {"simplified": several, "raw": several}, {"train": 20, "validation": 8, "test": 8}
        ),
    }
    rows = [
        {"text": f"question {row}", "label": row % 77, "label_text": f"intent_number_{row % 77}"}
        for row in range(770)
    ]
    lines = ["".join(json.dumps(row) + "\n" for row in part).encode() for part in (rows, rows[:77])]
    # Files alone, as they lie there at that commit: no card says what they are.
    files = {"README.md": b"# banking77", "prepare_data.py": b"raise", "train.jsonl": lines[0]}
    repos["mteb/banking77"] = Repo(files | {"test.jsonl": lines[1]}, BANKING77, "dataset")
    return repos


def _repo(configs: dict[str, dict], splits: dict[str, int]) -> Repo:
    """A card, and a Parquet file for each configuration and split.

    Of the columns a list gives the names of the classes, and one that holds them several per text;
    the labels of `test` are withheld (-1) where there is a validation split of one label per text.
    """
    card, files = ["---", "configs:"], {}
    for config, columns in configs.items():
        card += [f"- config_name: {config}", "  data_files:"]
        for split, rows in splits.items():
            card += [f"  - split: {split}", f"    path: {config}/{split}-*"]
            withheld = split == "unsupervised" or (split == "test" and "idx" in columns)
            values = {
                name: _values(name, kind, config, split, rows, withheld)
                for name, kind in columns.items()
            }
            written = io.BytesIO()
            pq.write_table(pa.table(values), written)
            files[f"{config}/{split}-00000-of-00001.parquet"] = written.getvalue()
    card.append("dataset_info:")
    for config, columns in configs.items():
        card += [f"- config_name: {config}", "  features:"]
        for name, kind in columns.items():
            card += [f"  - name: {name}", *_feature(kind)]
    files["README.md"] = "\n".join([*card, "---", ""]).encode()
    return Repo(files, kind="dataset")


def _values(name: str, kind, config: str, split: str, rows: int, withheld: bool):
    if kind is str:
        return [f"{config} {split} {name} {row}" for row in range(rows)]
    if kind is int:
        return pa.array(range(rows), pa.int32())
    if isinstance(kind[0], str):
        codes = [-1 if withheld else row % len(kind) for row in range(rows)]
        return pa.array(codes, pa.int64())
    return pa.array([[0, 1, 2][row % 3 :][:2] for row in range(rows)], pa.list_(pa.int64()))


def _feature(kind) -> list[str]:
    if kind is str or kind is int:
        return [f"    dtype: {'string' if kind is str else 'int32'}"]
    head, inside, names = "    dtype:", "      ", kind
    if not isinstance(kind[0], str):
        head, names = "    sequence:", kind[0]
    return [
        head,
        f"{inside}class_label:",
        f"{inside}  names:",
        *(f"{inside}    '{code}': '{word}'" for code, word in enumerate(names)),
    ]
