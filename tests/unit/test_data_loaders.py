"""Reading files: what is read, and the one line each bad file gets."""

from __future__ import annotations

import csv
import json
import random
import string

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probeline.data.loaders import load_source
from probeline.errors import ProbelineError

MADE = {"validation": 0.2, "test": 0.2}


def load(folder, name, loader=None, **keys):
    spec = {"loader": loader or name.rpartition(".")[2], "path": name, "splits": MADE, **keys}
    return load_source(spec, str(folder))["train"]


def rows(source, task="label"):
    return list(zip(source.texts["text"].to_pylist(), source.labels[task].to_pylist(), strict=True))


def refused(folder, name, **keys) -> str:
    with pytest.raises(ProbelineError) as caught:
        load(folder, name, **keys)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- delimited text


def test_csv_cells_are_read_as_they_stand(tmp_path):
    (tmp_path / "a.csv").write_bytes(
        b'\xef\xbb\xbftext,other,label\r\n"one, ""two""\nthree",x,1\r\n'
        b"NA,y,null\r\n\r\n caf\xc3\xa9 ,,7\r\n"
    )
    assert rows(load(tmp_path, "a.csv")) == [
        ('one, "two"\nthree', "1"),
        ("NA", "null"),
        (" café ", "7"),
    ]


def test_columns_by_name_and_pairs(tmp_path):
    (tmp_path / "a.csv").write_text("gold,premise,hypothesis\nyes,p1,h1\nno,p2,\n")
    source = load(tmp_path, "a.csv", text=["premise", "hypothesis"], label="gold")
    assert rows(source) == [("p1", "yes"), ("p2", "no")]
    assert source.texts["text_pair"].to_pylist() == ["h1", ""]


def test_tsv_with_and_without_quoting(tmp_path):
    (tmp_path / "spreadsheet.tsv").write_text('text\tlabel\n"say ""a\tb"""\tx\nplain\ty\n')
    assert rows(load(tmp_path, "spreadsheet.tsv")) == [('say "a\tb"', "x"), ("plain", "y")]
    (tmp_path / "glue.tsv").write_text('text\tlabel\n"wow" he said\tx\n"open quote\ty\n')
    assert rows(load(tmp_path, "glue.tsv")) == [('"wow" he said', "x"), ('"open quote', "y")]


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1),
            st.text("ab", min_size=1),
        ),
        min_size=1,
    )
)
def test_what_the_csv_module_writes_is_read_back(tmp_path_factory, table):
    folder = tmp_path_factory.mktemp("csv")
    for name, delimiter in (("a.csv", ","), ("a.tsv", "\t")):
        with (folder / name).open("w", newline="", encoding="utf-8") as handle:
            writer = csv.writer(handle, delimiter=delimiter, quoting=csv.QUOTE_ALL)
            writer.writerows([("text", "label"), *table])
        assert rows(load(folder, name)) == table


def test_a_field_longer_than_the_csv_modules_limit(tmp_path):
    text, before = "word " * 50_000, csv.field_size_limit()
    csv.field_size_limit(131072)
    (tmp_path / "a.csv").write_text(f"text,label\n{text},x\n")
    assert rows(load(tmp_path, "a.csv")) == [(text, "x")]
    assert csv.field_size_limit() == 131072
    csv.field_size_limit(before)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "a.csv: is empty; expected a header line"),
        ("text,label\n", "a.csv: has no rows"),
        ("txt,label\na,b\n", "has no column 'text'; did you mean 'txt'?; it has: txt, label"),
        ("text,text,label\na,b,c\n", "has 2 columns 'text'"),
        ("text,label\na,b\na,b,c\n", "row 2 (line 3) has 3 fields, the header has 2"),
        ("text,label\na,b\na\n", "row 2 (line 3) has 1 fields"),
        ('text,label\n"a"b,c\n', "line 2: "),
        ('text,label\n"a,b\n', "line 2: unexpected end of data"),
    ],
)
def test_broken_csv_files(tmp_path, content, message):
    (tmp_path / "a.csv").write_text(content)
    assert message in refused(tmp_path, "a.csv")


def test_a_ragged_tsv_is_refused_in_either_mode(tmp_path):
    (tmp_path / "a.tsv").write_text("text\tlabel\na\tb\tc\n")
    assert "row 1 (line 2) has 3 fields" in refused(tmp_path, "a.tsv")


# --- encodings


def test_the_byte_that_cannot_be_decoded_is_named(tmp_path):
    head = "text,label\n" + "é" * 700_000
    content = head.encode() + b"\xa3,x\n"
    (tmp_path / "a.csv").write_bytes(content)
    message = refused(tmp_path, "a.csv")
    offset = len(content) - len(b"\xa3,x\n")
    assert f"a.csv: not utf-8: byte 0xa3 at offset {offset};" in message
    assert "encoding: [utf-8, cp1252]" in message


@pytest.mark.parametrize("cut", range(4))
def test_characters_across_read_blocks(tmp_path, cut):
    # The block ends inside a character of four bytes.
    text = "x" * ((1 << 20) - len("text,label\n") - cut) + "😀"
    (tmp_path / "a.csv").write_text(f"text,label\n{text},y\n", encoding="utf-8")
    assert rows(load(tmp_path, "a.csv")) == [(text, "y")]
    (tmp_path / "b.csv").write_bytes(f"text,label\n{text}".encode()[:-1] + b",y\n")
    offset = len(f"text,label\n{text}".encode()) - 4
    assert f"byte 0xf0 at offset {offset}" in refused(tmp_path, "b.csv")


def test_several_encodings_are_tried_in_turn(tmp_path):
    (tmp_path / "a.csv").write_bytes("text,label\n£5,x\n".encode("cp1252"))
    assert rows(load(tmp_path, "a.csv", encoding=["utf-8", "cp1252"])) == [("£5", "x")]
    message = refused(tmp_path, "a.csv", encoding=["utf-8", "ascii"])
    assert "not utf-8 nor ascii" in message
    (tmp_path / "b.csv").write_text("text,label\n£5,x\n", encoding="utf-16")
    assert rows(load(tmp_path, "b.csv", encoding="utf-16")) == [("£5", "x")]


@pytest.mark.parametrize("name", ["utf8x", "rot13"])
def test_an_unknown_encoding(tmp_path, name):
    (tmp_path / "a.csv").write_text("text,label\na,b\n")
    assert f"encoding: '{name}' is not an encoding" in refused(tmp_path, "a.csv", encoding=name)


# --- JSON lines


def test_json_lines_of_every_kind_of_label(tmp_path):
    lines = [
        {"text": "a\n", "s": "x", "i": 3, "b": True, "many": ["u", "v"]},
        {"text": "é", "s": "y", "i": 1, "b": False, "many": []},
    ]
    (tmp_path / "a.json").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    for key in ("s", "i", "b", "many"):
        source = load(tmp_path, "a.json", label=key)
        assert rows(source) == [(line["text"], line[key]) for line in lines]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "a.json: is empty"),
        (["[", "]"], "line 1: not JSON (a JSON array? expected one object per line)"),
        (['{"text": "a", "label": "b"}', '{"text": '], "line 2: not JSON"),
        (['["a"]'], "line 1: holds a list; expected one JSON object"),
        (['{"text": "a", "labels": "b"}'], "no column 'label'; did you mean 'labels'?"),
        (['{"text": 5, "label": "b"}'], "row 1: 'text' holds a whole number; expected a text"),
        (['{"text": "a", "label": 1}', '{"label": 1}'], "row 2: no text (null) in 'text'"),
        (['{"text": "\\ud800", "label": 1}'], "row 1: 'text' holds half a character"),
        (
            [
                '{"text": "a", "label": 1}',
                '{"text": "a", "label": null}',
                '{"text": "a", "label": "b"}',
            ],
            "row 3: 'label' holds a text, row 1 a whole number; labels of one column must be",
        ),
        (
            ['{"text": "a", "label": ["b"]}', '{"text": "a", "label": ["b", 2]}'],
            "row 2: the list of 'label' holds a whole number, row 1 a text",
        ),
        (
            ['{"text": "a", "label": ["b"]}', '{"text": "a", "label": "b"}'],
            "row 2: 'label' holds a text, row 1 a list",
        ),
        (['{"text": "a", "label": true}', '{"text": "a", "label": 1}'], "row 2: 'label' holds a w"),
        (['{"text": "a", "label": 0.5}'], "column 'label' holds double; expected labels as text"),
        (['{"text": "a", "label": {"b": 1}}'], "column 'label' holds struct"),
        (['{"text": "a", "label": [["b"]]}'], "column 'label' holds list"),
        (['{"text": "a", "label": 99999999999999999999}'], "'label' cannot be read as labels"),
    ],
)
def test_broken_json_lines(tmp_path, lines, message):
    (tmp_path / "a.json").write_text("\n".join(lines))
    assert message in refused(tmp_path, "a.json")


def test_rows_are_named_by_the_file_they_stand_in(tmp_path):
    for number in (0, 1):
        lines = [json.dumps({"text": f"{number} {row}", "label": "x"}) for row in range(3)]
        (tmp_path / f"train-{number}.json").write_text("\n".join(lines))
    spec = {"loader": "json", "path": ".", "splits": {"train": "train-*.json", **MADE}}
    source = load_source(spec, str(tmp_path))["train"]
    places = [source.where(row) for row in range(source.rows)]
    assert places[2].endswith("train-0.json: row 3") and places[3].endswith("train-1.json: row 1")
    assert source.take([4, 0]).where(0).endswith("train-1.json: row 2")


# --- Parquet


def test_parquet_of_every_text_and_label_type(tmp_path):
    labels = {
        "plain": pa.array(["x", "y"]),
        "dictionary": pa.array(["x", "y"]).dictionary_encode(),
        "small": pa.array([1, 2], pa.int8()),
        "flag": pa.array([True, False]),
        "many": pa.array([["x"], ["y", "x"]], pa.large_list(pa.string())),
        "pair": pa.array([[1, 2], [3, 4]], pa.list_(pa.int16(), 2)),
    }
    for text in (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())):
        table = pa.table({"text": pa.array(["a", "b"]).cast(text), **labels})
        pq.write_table(table, tmp_path / "a.parquet")
        for name, column in labels.items():
            source = load(tmp_path, "a.parquet", label=name)
            assert rows(source) == list(zip("ab", column.to_pylist(), strict=True))


def test_parquet_that_cannot_be_read(tmp_path):
    table = pa.table({"text": ["a", None], "label": ["x", "y"], "n": [1, 2], "f": [0.5, 1]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert "a.parquet: row 2: no text (null) in 'text'" in refused(tmp_path, "a.parquet")
    assert "column 'n' holds int64; expected texts" in refused(tmp_path, "a.parquet", text="n")
    assert "column 'f' holds double" in refused(tmp_path, "a.parquet", label="f", text="label")
    assert "no column 'lable'; did you mean 'label'" in refused(
        tmp_path, "a.parquet", label="lable"
    )
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "half.parquet").write_bytes(whole[: len(whole) // 2])
    assert "half.parquet: not a complete Parquet file" in refused(tmp_path, "half.parquet")
    pq.write_table(table[:0], tmp_path / "none.parquet")
    assert "none.parquet: has no rows" in refused(tmp_path, "none.parquet")
    bad = pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff"))
    pq.write_table(pa.table({"text": bad, "label": ["x"]}), tmp_path / "bytes.parquet")
    assert "bytes.parquet: column 'text': In chunk 0: Invalid: Invalid UTF8" in refused(
        tmp_path, "bytes.parquet"
    )


def test_splits_whose_labels_are_of_other_types(tmp_path):
    from probeline.data.source import concatenate

    pq.write_table(pa.table({"text": ["a"], "label": ["x"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": ["a"], "label": [1]}), tmp_path / "b.parquet")
    parts = [load(tmp_path, "a.parquet"), load(tmp_path, "b.parquet")]
    with pytest.raises(ProbelineError, match=r"b\.parquet: labels of 'label' are of type int64"):
        concatenate(parts)


# --- folders


def test_a_folder_of_texts_in_name_order(tmp_path):
    for name in random.Random(0).sample(string.ascii_lowercase, 26):
        for label in ("b", "a"):
            (tmp_path / "texts" / label).mkdir(parents=True, exist_ok=True)
            (tmp_path / "texts" / label / f"{name}.txt").write_text(f"{label} {name}\n")
    source = load(tmp_path, "texts", loader="folder")
    expected = [(f"{x} {y}\n", x) for x in "ab" for y in string.ascii_lowercase]
    assert rows(source) == expected
    assert source.where(0).endswith("texts/a/a.txt")


def test_a_folder_per_split_and_an_encoding_per_file(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split / "x").mkdir(parents=True)
    (tmp_path / "train" / "x" / "1.txt").write_text("\ufeffé")
    (tmp_path / "train" / "x" / "2.txt").write_bytes("é".encode("cp1252"))
    (tmp_path / "test" / "x" / "1.txt").write_text("t")
    spec = {
        "loader": "folder",
        "path": ".",
        "encoding": ["utf-8", "cp1252"],
        "splits": {"train": "train", "validation": 0.5, "test": "test"},
    }
    sources = load_source(spec, str(tmp_path))
    assert rows(sources["train"]) == [("é", "x"), ("é", "x")]
    assert rows(sources["test"]) == [("t", "x")]
    with pytest.raises(ProbelineError, match=r"train/x/2\.txt: not utf-8: byte 0xe9 at offset 0"):
        load_source(spec | {"encoding": "utf-8"}, str(tmp_path))
    with pytest.raises(ProbelineError, match=r"tset: no such folder; did you mean 'test'\?"):
        load_source(spec | {"splits": spec["splits"] | {"test": "tset"}}, str(tmp_path))
    with pytest.raises(ProbelineError, match=r"is a file; splits\.train of a folder dataset"):
        load_source({"loader": "folder", "path": "train/x/1.txt", "splits": MADE}, str(tmp_path))


# --- entries


def test_an_unknown_loader(tmp_path):
    assert "loader: 'jsonl' is not one of hub, csv" in refused(tmp_path, "a", loader="jsonl")


def test_three_text_columns(tmp_path):
    (tmp_path / "a.csv").write_text("a,b,c,label\n1,2,3,4\n")
    assert "text: 3 columns" in refused(tmp_path, "a.csv", text=["a", "b", "c"])


def test_a_file_that_may_not_be_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\na,b\n")
    path.chmod(0)
    try:
        path.read_bytes()
        pytest.skip("this user may read every file")
    except PermissionError:
        assert "a.csv: cannot be read: Permission denied" in refused(tmp_path, "a.csv")


@pytest.mark.parametrize("loader, separator", [("csv", ","), ("tsv", "\t")])
def test_lists_in_cells_are_no_classes(tmp_path, loader, separator):
    path = tmp_path / f"notes.{loader}"
    rows = [("one", '"[""a"", ""b""]"'), ("two", "[b]"), ("three", "[]")]
    lines = ["text" + separator + "label", *(separator.join(row) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    spec = {"loader": loader, "path": str(path), "splits": {"validation": 0.2, "test": 0.2}}
    with pytest.raises(ProbelineError, match="is written like a list, but a cell holds one label"):
        load_source(spec, None)
    # A bracket now and then is part of a name.
    path.write_text("\n".join([*lines, "four" + separator + "c"]) + "\n", encoding="utf-8")
    assert load_source(spec, None)["train"].rows == 4
