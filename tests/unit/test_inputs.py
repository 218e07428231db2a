"""Texts to classify from arguments, files and standard input."""

from __future__ import annotations

import io
import json
import sys

import pytest

from probeline.classifier import inputs
from probeline.classifier.inputs import read_inputs
from probeline.errors import ProbelineError


def read(source, columns=("text",)) -> list[tuple]:
    rows = []
    for texts, pairs in read_inputs(None, str(source), list(columns)):
        rows += zip(texts, pairs, strict=True) if pairs else [(text,) for text in texts]
    return rows


def write(path, content: str | bytes):
    data = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(data)
    return path


def test_arguments():
    assert list(read_inputs(["one", "two"], None, ["text"])) == [(["one", "two"], None)]


def test_csv(tmp_path):
    content = 'id,text\n1,"with, comma"\n2,"two\nlines"\n3,plain\n4,\n'
    path = write(tmp_path / "a.csv", content)
    assert read(path) == [("with, comma",), ("two\nlines",), ("plain",), ("",)]
    assert read(path, ["id"]) == [("1",), ("2",), ("3",), ("4",)]
    assert read(path, ["text", "id"])[2] == ("plain", "3")
    windows = write(tmp_path / "b.CSV", b"\xef\xbb\xbf" + content.replace("\n", "\r\n").encode())
    assert [row[0].replace("\r", "") for row in read(windows)] == [r[0] for r in read(path)]


def test_tsv(tmp_path):
    path = write(tmp_path / "a.tsv", "text\tlabel\none, two\tx\nthree\ty\n")
    assert read(path) == [("one, two",), ("three",)]


def test_json_lines(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "é", "b": 1}\n\n{"b": "x", "text": "z"}\n')
    assert read(path) == [("é",), ("z",)]


def test_text_lines(tmp_path):
    path = write(tmp_path / "a.txt", "one\r\n\n two\nlast")
    assert read(path) == [("one",), ("",), (" two",), ("last",)]


def test_standard_input(monkeypatch):
    """UTF-8 whatever the locale."""
    raw = io.TextIOWrapper(io.BytesIO("één\nzwei\r\n".encode()), encoding="ascii")
    monkeypatch.setattr(sys, "stdin", raw)
    assert read("-") == [("één",), ("zwei",)]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\n\xff\n"), "latin-1"))
    with pytest.raises(ProbelineError, match="standard input: not UTF-8"):
        read("-")


def test_batches_are_bounded_and_lazy(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "_BATCH", 10)
    path = write(tmp_path / "a.txt", "".join(f"{i}\n" for i in range(25)))
    batches = [texts for texts, _ in read_inputs(None, str(path), ["text"])]
    assert [len(batch) for batch in batches] == [10, 10, 5]
    assert [text for batch in batches for text in batch] == [str(i) for i in range(25)]
    # A broken line further down does not keep the ones before it from being answered.
    path = write(tmp_path / "b.jsonl", '{"text": "a"}\n' * 10 + "broken\n")
    stream = read_inputs(None, str(path), ["text"])
    assert next(stream) == (["a"] * 10, None)
    with pytest.raises(ProbelineError, match=r"b\.jsonl, line 11"):
        next(stream)


def test_empty_files(tmp_path):
    assert read(write(tmp_path / "a.txt", "")) == []
    assert read(write(tmp_path / "a.jsonl", "")) == []
    assert read(write(tmp_path / "a.csv", "text\n")) == []
    with pytest.raises(ProbelineError, match=r"a\.csv: no column 'text'; it has none"):
        read(write(tmp_path / "a.csv", ""))


def test_a_very_long_text(tmp_path):
    """Python's csv module stops at 131,072 characters unless told otherwise."""
    text = "word " * 50_000
    assert read(write(tmp_path / "a.csv", f"text\n{text}\n")) == [(text,)]


MISTAKES = {
    "a.csv": ("txt,label\na,b\n", r"a\.csv: no column 'text'; it has txt, label.*mean 'txt'"),
    "b.csv": ("id,text\n1,a\n2\n", r"b\.csv, line 3: too few columns"),
    "c.csv": (b"text\nfine\n\xe9t\xe9\n", r"c\.csv: not UTF-8.*convert it first"),
    "a.jsonl": ('{"text": "a"}\n{"text": \n', r"a\.jsonl, line 2: expected a JSON object"),
    "b.jsonl": ('{"txt": "a"}\n', r"b\.jsonl, line 1: expected a JSON object with key 'text'"),
    "c.jsonl": ('{"text": 3}\n', r"c\.jsonl, line 1: the text is not a string"),
    "d.jsonl": ('["text"]\n', r"d\.jsonl, line 1: expected a JSON object"),
    "e.jsonl": ("null\n", r"e\.jsonl, line 1: expected a JSON object"),
    "a.txt": (b"\xff\xfea\x00", r"a\.txt: not UTF-8"),
    "a.xlsx": ("x", r"a\.xlsx: cannot tell its format; expected a name ending in \.csv, \.tsv"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_name_file_and_line(tmp_path, name):
    content, words = MISTAKES[name]
    with pytest.raises(ProbelineError, match=words) as caught:
        read(write(tmp_path / name, content))
    assert "\n" not in str(caught.value)


def test_no_file_or_a_folder(tmp_path):
    with pytest.raises(ProbelineError, match=r"none\.csv: no such file"):
        read(tmp_path / "none.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ProbelineError, match=r"folder\.csv: cannot be read: Is a directory"):
        read(tmp_path / "folder.csv")


@pytest.mark.parametrize(
    "texts, source, columns, words",
    [
        (None, None, ["text"], "give texts as arguments, or a file with --input"),
        ([], None, ["text"], "give texts as arguments, or a file with --input"),
        (["a"], "b.csv", ["text"], "and not both"),
        (None, "b.csv", ["a", "b", "c"], "--text-column: at most two columns"),
    ],
)
def test_what_is_asked_for(texts, source, columns, words):
    with pytest.raises(ProbelineError, match=words):
        list(read_inputs(texts, source, columns))


def test_pairs(tmp_path):
    rows = [{"premise": "a", "hypothesis": "b"}, {"premise": "c", "hypothesis": "d"}]
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    assert read(path, ["premise", "hypothesis"]) == [("a", "b"), ("c", "d")]
