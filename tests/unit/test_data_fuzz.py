"""Dataset files with bytes changed at random: read, or refused in one line."""

from __future__ import annotations

import io
import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from probeline.data.loaders import load_source
from probeline.errors import ProbelineError

CASES = 60  # of each format
MADE = {"validation": 0.2, "test": 0.2}
ROWS = [("Größe zählt, „sehr“", "a"), ('said "no"', "b"), ("", "a"), ("two\nlines\t", "c")] * 3
# What a reader may stumble over; the empty one stands for bytes of any value.
TOKENS = (
    b"",
    b"\0",
    b'"',
    b"\n",
    b"\r",
    b",",
    b"\t",
    b"{",
    b"]",
    b"\\ud800",
    b"\xff\xfe",
    b"9" * 30,
)


def delimited(delimiter: str) -> bytes:
    rows = [("text", "label"), *ROWS]
    cells = ([f'"{text.replace(chr(34), chr(34) * 2)}"', label] for text, label in rows)
    return "".join(delimiter.join(row) + "\n" for row in cells).encode()


def parquet() -> bytes:
    texts, labels = map(list, zip(*ROWS, strict=True))
    made = io.BytesIO()
    pq.write_table(pa.table({"text": texts, "label": labels}), made)
    return made.getvalue()


WHOLE = {
    "csv": delimited(","),
    "tsv": delimited("\t"),
    "json": "".join(
        json.dumps({"text": text, "label": label}, ensure_ascii=False) + "\n"
        for text, label in ROWS
    ).encode(),
    "parquet": parquet(),
}


def mutated(content: bytes, rng: random.Random) -> bytes:
    """One to three changes: a bit flipped, bytes put in, bytes left out, the end cut off."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(changed) + 1)
        length = rng.choice((1, 1, 2, 8, 64))
        match rng.choice(("flip", "insert", "delete", "truncate")):
            case "flip" if place < len(changed):
                changed[place] ^= 1 << rng.randrange(8)
            case "insert":
                changed[place:place] = rng.choice(TOKENS) or rng.randbytes(length)
            case "delete":
                del changed[place : place + length]
            case "truncate":
                del changed[place:]
    return bytes(changed)


@pytest.mark.parametrize("case", range(CASES))
@pytest.mark.parametrize("loader", WHOLE)
def test_changed_files_are_read_or_refused_in_one_line(tmp_path, loader, case):
    path = tmp_path / f"a.{loader}"
    path.write_bytes(mutated(WHOLE[loader], random.Random(f"{loader} {case}")))
    spec = {"loader": loader, "path": path.name, "splits": MADE}
    try:
        (source,) = load_source(spec, str(tmp_path)).values()
    except ProbelineError as error:
        line = str(error)
        assert line.startswith(str(path)) and "\n" not in line and line.isprintable()
    else:
        texts, labels = source.texts["text"].to_pylist(), source.labels["label"].to_pylist()
        assert len(texts) == len(labels) > 0
        assert "".join(texts).encode() is not None


@pytest.mark.parametrize("loader", WHOLE)
def test_the_file_that_is_changed_is_right(tmp_path, loader):
    (tmp_path / f"a.{loader}").write_bytes(WHOLE[loader])
    spec = {"loader": loader, "path": f"a.{loader}", "splits": MADE}
    source = load_source(spec, str(tmp_path))["train"]
    columns = source.texts["text"].to_pylist(), source.labels["label"].to_pylist()
    assert list(zip(*columns, strict=True)) == ROWS
