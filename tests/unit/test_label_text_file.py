"""Texts of labels from a file: each format the same, each mistake one line."""

from __future__ import annotations

import pytest

from probeline.data.label_text_file import read_label_texts
from probeline.errors import ProbelineError

TEXTS = {"card_arrival": ["the card, at last", "waiting for a card"], "exchange": ["money"]}
FILES = {
    "labels.csv": 'text,label\nmoney,exchange\n"the card, at last",card_arrival\n'
    "waiting for a card,card_arrival\n",
    "labels.tsv": "label\ttext\ncard_arrival\tthe card, at last\nexchange\tmoney\n"
    "card_arrival\twaiting for a card\n",
    "labels.json": '{\t"exchange": "money", '
    '"card_arrival": ["the card, at last", "waiting for a card"]}',
    "labels.yaml": "exchange: money\ncard_arrival: ['the card, at last', waiting for a card]\n",
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_every_format_says_the_same(tmp_path, name, mark):
    path = tmp_path / name
    path.write_text(mark + FILES[name], encoding="utf-8")
    assert read_label_texts(path) == TEXTS
    assert list(read_label_texts(path)) == sorted(TEXTS)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("labels.txt", "a: b", "expected a file of label texts that ends in one of .csv"),
        ("labels.csv", "label,words\na,b\n", "has no column 'text'; its columns are: label, words"),
        ("labels.csv", "label,text\na,\n", "line 2: expected a label and a text"),
        ("labels.csv", "", "has no column 'label'; its columns are: none"),
        ("labels.yaml", "a: [", "not a readable mapping of labels"),
        ("labels.yaml", "[a, b]", "expected a mapping of labels to texts"),
        ("labels.yaml", "no: thing", "the label False is not text; put it in quotes"),
        ("labels.yaml", "a: 1", "'a': expected a text or a list of texts"),
        ("labels.json", '{"a": []}', "'a': expected a text or a list of texts"),
    ],
)
def test_each_mistake_is_one_line_that_names_the_file(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ProbelineError) as caught:
        read_label_texts(path)
    assert str(caught.value).startswith(f"{path}: ") and words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(ProbelineError, match=r"none\.csv: no such file of label texts"):
        read_label_texts(tmp_path / "none.csv")
