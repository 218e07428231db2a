"""The data card: counts that a reader can check by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from probeline.activations.tokens import token_summary
from probeline.data.card import data_card, markdown, write_card
from probeline.data.store import build_dataset

SPLITS = {
    "train": [
        ("one", ["a"]),
        ("two", ["a", "b"]),
        ("one", ["b"]),
        ("three", []),
        ("one", ["a"]),
        ("", ["a"]),
    ],
    "validation": [("two", ["a", "b"]), ("four", ["b"])],
    "test": [("two", ["a"]), ("one", ["a"]), ("fives|", ["a"])],
}


@pytest.fixture
def folder(tmp_path):
    for split, rows in SPLITS.items():
        lines = [json.dumps({"text": text, "label": labels}) + "\n" for text, labels in rows]
        (tmp_path / f"{split}.json").write_text("".join(lines))
    spec = {
        "loader": "json",
        "path": ".",
        "splits": {split: f"{split}.json" for split in SPLITS},
        "empty": "drop",
        "label_names": ["a", "b", "c|d"],
    }
    build_dataset("tiny", spec, tmp_path / "out", str(tmp_path), 0)
    return tmp_path / "out"


def test_what_the_card_counts(folder):
    card = data_card(folder)
    assert card["texts"] == {"train": 5, "validation": 2, "test": 3}
    assert card["empty"] == {
        "policy": "drop",
        "dropped": {"train": 1, "validation": 0, "test": 0},
        "half_empty_pairs": 0,
    }
    assert card["copies"]["repeats"] == {"train": 2, "validation": 0, "test": 0}
    assert card["copies"]["in_two_splits"] == {
        "train/validation": 1,
        "train/test": 2,
        "validation/test": 1,
    }
    # "one" is a, b and a in train; "two" is a, b and then only a.
    assert card["copies"]["contradictory"] == 2
    task = card["tasks"]["label"]
    assert task["labels"]["b"] == {"train": 2, "validation": 2, "test": 0}
    assert task["majority"] == 0.6 and task["unused"] == ["c|d"]
    assert task["labels_per_text"] == 1.1 and task["texts_without_label"] == 1
    assert card["characters"]["test"]["max"] == 6
    assert card["characters"]["train"]["mean"] == 3.4


def test_the_written_card(folder, tmp_path):
    lengths = np.array([3, 4, 5, 6, 7, 8, 9, 10, 11, 12])
    offsets = {"train": (0, 5), "validation": (5, 7), "test": (7, 10)}
    tokens = {"model": token_summary(lengths, offsets, 10)}
    card = write_card(folder, tmp_path / "card.json", tmp_path / "card.md", tokens)
    assert json.loads((tmp_path / "card.json").read_text()) == card
    assert card["tokens"] == tokens
    text = (tmp_path / "card.md").read_text()
    assert "| train | 5 | 3 | 5 | 2 |" in text
    assert "| model | test | 11.0 | 11.0 | 11.9 | 12 | 10 | 66.7% |" in text
    assert "train/validation 1, train/test 2, validation/test 1" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in rows)


def test_pairs_and_hierarchies(tmp_path):
    lines = ["p,h,top,leaf"]
    for row in range(24):
        second = ["", "h1", "h2", "h3"][row % 4]
        lines.append(f"p{row % 6},{second},{'AB'[row % 2]},{'x-y-'[row % 4]}")
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    for split in ("b", "c"):
        (tmp_path / f"{split}.csv").write_text("p,h,top,leaf\nq,,A,x\nr,s,B,-\nr,s,A,y\n")
    spec = {
        "loader": "csv",
        "path": str(tmp_path),
        "text": ["p", "h"],
        "label": ["top", "leaf"],
        "undefined": "-",
        "splits": {"train": "a.csv", "validation": "b.csv", "test": "c.csv"},
    }
    build_dataset("pairs", spec, tmp_path / "out")
    card = data_card(tmp_path / "out")
    assert card["hierarchy"] == ["top", "leaf"]
    assert card["empty"]["half_empty_pairs"] == 6 + 2
    assert card["tasks"]["leaf"]["defined"] == {"train": 12, "validation": 2, "test": 2}
    # 24 rows go through the 12 combinations of six and four twice.
    assert card["copies"]["repeats"]["train"] == 12
    assert card["copies"]["in_two_splits"]["validation/test"] == 2
    # (r, s) stands under A and under B, in validation and in test.
    assert card["copies"]["contradictory"] == 1
    assert card["characters"]["validation"]["max"] == 2


def test_labels_are_no_html(tmp_path):
    """Readers of Markdown would show them, or run what stands in them."""
    lines = [
        json.dumps({"text": str(row), "label": ["<script>x</script>", "a | b\n# c"][row % 2]})
        for row in range(20)
    ]
    (tmp_path / "a.json").write_text("\n".join(lines))
    spec = {"loader": "json", "path": "a.json", "splits": {"validation": 0.2, "test": 0.2}}
    build_dataset("tiny", spec, tmp_path / "out", str(tmp_path), 0)
    card = markdown(data_card(tmp_path / "out"))
    assert "| &lt;script&gt;x&lt;/script&gt; |" in card and "<" not in card
    assert "| a \\| b # c |" in card
