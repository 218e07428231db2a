"""The list of bad inputs: what is wrong, and the words that the one line about it must hold.

`python tests/unit/bad_inputs.py` prints it as the table of docs/bad_input.md.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file

MADE = {"validation": 0.2, "test": 0.2}


@dataclass(frozen=True)
class Bad:
    """A bad input.

    Attributes
    ----------
    reader : str
        What reads it.
    what : str
        What is wrong with it.
    words : str
        What the line about it says, among other things.
    use : callable
        Makes it in a folder, and reads it.
    """

    reader: str
    what: str
    words: str
    use: Callable[[Path], object]


# --- datasets


def dataset(name: str, content: bytes | str = b"", make: Callable | None = None, **keys):
    """Read the dataset file or folder `name`, which holds `content` or what `make` puts there."""

    def use(folder: Path):
        from probeline.data.loaders import load_source

        if make is not None:
            make(folder / name)
        else:
            raw = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
            (folder / name).write_bytes(raw)
        loader = {"loader": name.rpartition(".")[2], "path": name, "splits": MADE}
        return load_source(loader | keys, str(folder))

    return use


def table(metadata=None, **columns):
    def make(path: Path):
        found = pa.table(columns).replace_schema_metadata(metadata)
        pq.write_table(found, path)

    return make


def parquet(what: str, words: str, metadata=None, **columns) -> Bad:
    ab = pa.array(["a", "b"])
    columns = {"text": ab, "label": ab} | columns
    return Bad("Parquet", what, words, dataset("a.parquet", make=table(metadata, **columns)))


def noted(value: str) -> dict:
    return {"huggingface": value}


def half(path: Path):
    table(text=["a"] * 99, label=["b"] * 99)(path)
    os.truncate(path, path.stat().st_size // 2)


def doubled(path: Path):
    column = pa.array(["a"])
    pq.write_table(pa.table([column] * 3, names=["text", "label", "label"]), path)


def class_folder(name: bytes, make: Callable[[bytes], object]):
    def inside(path: Path):
        place = os.path.join(os.fsencode(path), name)  # noqa: PTH118 - Path takes no bytes
        os.makedirs(place)  # noqa: PTH103
        make(place)

    return inside


def text_file(place: bytes):
    with open(place + b"/1.txt", "wb") as handle:  # noqa: PTH123
        handle.write(b"a")


def link_to_itself(place: bytes):
    (Path(os.fsdecode(place)) / "1.txt").symlink_to("1.txt")


def link_to_pipe(place: bytes):
    os.mkfifo(place + b"/../pipe")
    (Path(os.fsdecode(place)) / "1.txt").symlink_to("../pipe")


def link_to_device(place: bytes | Path):
    path = Path(os.fsdecode(place))
    (path / "1.txt" if path.is_dir() else path).symlink_to("/dev/zero")


def socket_file(path: Path):
    # The name of a socket may have no more than some 100 bytes.
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


MEGABYTE = "y" * 10**6
PIPE, DEVICE = "a pipe, not a regular file", "a device, not a regular file"
NOT_UTF8 = pa.array([b"\xff", b"a"]).view(pa.string())
LISTED = pa.array([["a", None], ["b"]])
DATASETS = [
    Bad("CSV", "an empty file", "is empty; expected a header line", dataset("a.csv")),
    Bad("CSV", "a header alone", "has no rows", dataset("a.csv", "text,label\n")),
    Bad("CSV", "a byte-order mark alone", "is empty", dataset("a.csv", b"\xef\xbb\xbf")),
    Bad("CSV", "no such column", "did you mean 'txt'", dataset("a.csv", "txt,label\na,b\n")),
    Bad("CSV", "two columns of a name", "2 columns 'text'", dataset("a.csv", "text,text,label\n")),
    Bad("CSV", "a row too long", "row 1 (line 2) has 3", dataset("a.csv", "text,label\na,b,c\n")),
    Bad("CSV", "a row too short", "has 1 fields", dataset("a.csv", "text,label\r\na\r\n")),
    Bad("CSV", "an open quote", "unexpected end", dataset("a.csv", 'text,label\n"a,b\n')),
    Bad("CSV", "text behind a quote", "line 2", dataset("a.csv", 'text,label\n"a"b,c\n')),
    Bad("CSV", "not UTF-8", "byte 0xff at offset 11", dataset("a.csv", b"text,label\n\xff,x\n")),
    Bad(
        "CSV",
        "cp1252 in UTF-8",
        "byte 0xa3",
        dataset("a.csv", "text,label\né,x\n".encode() + b"\xa3,y\n"),
    ),
    Bad(
        "CSV",
        "UTF-16 taken for UTF-8",
        "not utf-8",
        dataset("a.csv", "text,label\n".encode("utf-16")),
    ),
    Bad(
        "CSV",
        "UTF-16 without its mark",
        "does not start with BOM",
        dataset("a.csv", "text,label\na,b\n", encoding="utf-16"),
    ),
    Bad(
        "CSV", "a lone surrogate as bytes", "byte 0xed", dataset("a.csv", "text,label\n\ud800,x\n")
    ),
    Bad(
        "CSV",
        "a column with a NUL in its name",
        "it has: text\\x00",
        dataset("a.csv", "text\0,label\na,b\n"),
    ),
    Bad("CSV", "no such encoding", "is not an encoding", dataset("a.csv", "a", encoding="utf9")),
    Bad(
        "CSV",
        "an encoding with a NUL",
        "is not an encoding",
        dataset("a.csv", "a", encoding="a\0b"),
    ),
    Bad(
        "CSV",
        "an encoding that is none",
        "is not an encoding",
        dataset("a.csv", "a", encoding="zlib"),
    ),
    Bad(
        "CSV",
        "labels written as lists",
        "written like a list",
        dataset("a.csv", "text,label\na,[1]\n"),
    ),
    Bad("CSV", "a header of a megabyte", "[...]", dataset("a.csv", f"{MEGABYTE},label\na,b\n")),
    Bad("CSV", "random bytes", "not utf-8", dataset("a.csv", np.random.default_rng(0).bytes(999))),
    Bad(
        "TSV",
        "a ragged row",
        "row 1 (line 2) has 3 fields",
        dataset("a.tsv", "text\tlabel\na\tb\tc\n"),
    ),
    Bad("JSON lines", "an empty file", "is empty; expected one JSON", dataset("a.json")),
    Bad("JSON lines", "half a line", "line 1: not JSON", dataset("a.json", '{"text": ')),
    Bad("JSON lines", "an array", "a JSON array?", dataset("a.json", "[\n]")),
    Bad("JSON lines", "a list for a row", "holds a list", dataset("a.json", '["a"]')),
    Bad(
        "JSON lines",
        "lists a hundred thousand deep",
        "line 1: not JSON",
        dataset("a.json", '{"text":' + "[" * 100_000),
    ),
    Bad(
        "JSON lines",
        "a number of 5,000 digits",
        "line 1: not JSON",
        dataset("a.json", '{"label":' + "9" * 5000 + "}"),
    ),
    Bad(
        "JSON lines",
        "a number for a text",
        "expected a text",
        dataset("a.json", '{"text": 5, "label": 1}'),
    ),
    Bad(
        "JSON lines",
        "half a character in a text",
        "half a character",
        dataset("a.json", '{"text": "\\ud800", "label": 1}'),
    ),
    Bad(
        "JSON lines",
        "half a character in a key",
        "it has: \\ud800",
        dataset("a.json", '{"\\ud800": "a"}'),
    ),
    Bad(
        "JSON lines",
        "a terminal's codes in a key",
        "it has: \\x1b[31m",
        dataset("a.json", '{"\\u001b[31m": "a"}'),
    ),
    Bad(
        "JSON lines",
        "half a character in a label",
        "cannot be read as labels",
        dataset("a.json", '{"text": "a", "label": "\\ud800"}'),
    ),
    Bad(
        "JSON lines",
        "labels of two types",
        "must be of one type",
        dataset("a.json", '{"text": "a", "label": 1}\n{"text": "b", "label": "1"}'),
    ),
    Bad(
        "JSON lines",
        "a decimal label",
        "holds double",
        dataset("a.json", '{"text": "a", "label": 0.5}'),
    ),
    Bad(
        "JSON lines",
        "a label beyond 64 bits",
        "cannot be read as labels",
        dataset("a.json", '{"text": "a", "label": 99999999999999999999}'),
    ),
    Bad(
        "Parquet", "no Parquet", "not a complete Parquet file", dataset("a.parquet", b"PAR1 or not")
    ),
    Bad("Parquet", "half a file", "not a complete Parquet file", dataset("a.parquet", make=half)),
    Bad(
        "Parquet", "two columns of a name", "2 columns 'label'", dataset("a.parquet", make=doubled)
    ),
    parquet("nested text", "holds struct", text=pa.array([{"a": 1}, {"a": 2}])),
    parquet("binary text", "holds binary", text=pa.array([b"\xff", b"a"])),
    parquet("text that is not UTF-8", "Invalid UTF8", text=NOT_UTF8),
    parquet("labels that are not UTF-8", "Invalid UTF8", label=NOT_UTF8),
    parquet(
        "lists of labels that are not UTF-8",
        "Invalid UTF8",
        label=pa.ListArray.from_arrays([0, 1, 2], NOT_UTF8),
    ),
    parquet("a text column of nulls", "holds null", text=pa.nulls(2)),
    parquet("a null among texts", "row 2: no text (null)", text=pa.array(["a", None])),
    parquet(
        "decimal labels", "holds decimal128(2, 1)", label=pa.array([1, 2], pa.decimal128(2, 1))
    ),
    parquet(
        "labels two lists deep", "holds list<element: list<", label=pa.array([[["a"]], [["b"]]])
    ),
    parquet("labels beyond 64 bits", "not in range", label=pa.array([2**63, 1], pa.uint64())),
    parquet("dates as labels", "holds date32", label=pa.array([1, 2], pa.date32())),
    parquet(
        "a map as labels",
        "holds map",
        label=pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int64())),
    ),
    parquet(
        "an extension type",
        "holds extension<arrow.json>",
        label=pa.ExtensionArray.from_storage(pa.json_(), pa.array(["1", "2"])),
    ),
    parquet("broken notes of the datasets library", "what the datasets library noted", noted("{")),
    parquet("notes that are a list", "what the datasets library noted", noted("[]")),
    parquet("notes that never end", "what the datasets library noted", noted('{"info":' * 20_000)),
    parquet("notes that are no text", "what the datasets library noted", {"huggingface": b"\xff"}),
    parquet(
        "class names that are a number",
        "class names are not a list",
        noted('{"info": {"features": {"label": {"_type": "ClassLabel", "names": 3}}}}'),
    ),
    Bad(
        "Folder",
        "no folder per class",
        "holds no folders",
        dataset("a", make=Path.mkdir, loader="folder"),
    ),
    Bad(
        "Folder",
        "an empty class",
        "holds no texts",
        dataset("a", make=class_folder(b"x", lambda place: None), loader="folder"),
    ),
    Bad(
        "Folder",
        "a class that is not UTF-8",
        "it is not UTF-8; rename it",
        dataset("a", make=class_folder(b"\xff", text_file), loader="folder"),
    ),
    Bad(
        "Folder",
        "a pipe among the texts",
        PIPE,
        dataset(
            "a",
            make=class_folder(b"x", lambda place: os.mkfifo(place + b"/1.txt")),
            loader="folder",
        ),
    ),
    Bad(
        "Folder",
        "a link to a pipe",
        PIPE,
        dataset("a", make=class_folder(b"x", link_to_pipe), loader="folder"),
    ),
    Bad(
        "Folder",
        "a link to a device",
        DEVICE,
        dataset("a", make=class_folder(b"x", link_to_device), loader="folder"),
    ),
    Bad(
        "Folder",
        "a link to itself",
        "Too many levels",
        dataset("a", make=class_folder(b"x", link_to_itself), loader="folder"),
    ),
    Bad(
        "Folder",
        "a folder in a class",
        "a folder inside",
        dataset("a", make=class_folder(b"x/y", text_file), loader="folder"),
    ),
    Bad("Path", "a NUL", "cannot be a path", dataset("a", "", path="a\0b", loader="csv")),
    Bad(
        "Path",
        "a name of 5,000 letters",
        "File name too long",
        dataset("a", "", path="x" * 5000, loader="csv"),
    ),
    Bad(
        "Path",
        "half a character",
        "cannot be a path",
        dataset("a", "", path="\ud800", loader="csv"),
    ),
    Bad(
        "Path",
        "no such user",
        "cannot be a path",
        dataset("a", "", path="~nobody-here/a", loader="csv"),
    ),
    Bad(
        "Path",
        "no such package",
        "no installed package",
        dataset("a", "", path="package:..", loader="csv"),
    ),
    Bad(
        "Path",
        "a split with a NUL",
        "cannot be a path",
        dataset("a", "", path=".", splits={"train": "\0", **MADE}, loader="csv"),
    ),
    Bad(
        "Path",
        "a device",
        DEVICE,
        dataset("a", "", path="/dev/zero", loader="csv"),
    ),
    Bad("Path", "a pipe", PIPE, dataset("a.csv", make=os.mkfifo)),
    Bad(
        "Path",
        "a socket",
        "a socket, not a regular file",
        dataset("a", make=socket_file, loader="parquet"),
    ),
    Bad("Path", "a link to a device", DEVICE, dataset("a.json", make=link_to_device)),
    Bad(
        "Path",
        "a pipe for a split",
        PIPE,
        dataset("a", make=os.mkfifo, path=".", splits={"train": "a", **MADE}, loader="tsv"),
    ),
    Bad(
        "Path",
        "a pipe among the files of a pattern",
        PIPE,
        dataset(
            "a.parquet", make=os.mkfifo, path=".", splits={"train": "*", **MADE}, loader="parquet"
        ),
    ),
]


# --- scores made elsewhere


def scores(name: str, content: str | bytes | dict = b"", make: Callable | None = None):
    def use(folder: Path):
        from labelled_texts import LABELS, labelled

        from probeline.data.store import read_dataset
        from probeline.lrsl.outside import read_scores
        from probeline.probe.task import task_data

        data = read_dataset(labelled(folder / "data"))
        filled = content
        if make is not None:
            make(folder / name)
        elif isinstance(content, dict):
            rows = list(range(len(data.texts)))
            columns = {"row": rows} | {label: [0.5] * len(rows) for label in LABELS} | content
            pq.write_table(pa.table(columns), folder / name)
        else:
            raw = filled.encode() if isinstance(filled, str) else filled
            (folder / name).write_bytes(raw)
        return read_scores(folder / name, data, task_data(data, "label"), "logits")

    return use


HEADER = "row,second_half,stock-markets,rain,longSpeech\n"
SCORES = [
    Bad("Scores", "an empty file", "is empty", scores("s.csv", "")),
    Bad("Scores", "no Parquet", "not a complete Parquet file", scores("s.parquet", b"PAR1")),
    Bad("Scores", "another format", "expected scores as .csv", scores("s.xlsx", b"PK")),
    Bad(
        "Scores",
        "a word for a number",
        "'much' in 'rain' is not a",
        scores("s.csv", HEADER + "0,1,1,much,1\n"),
    ),
    Bad("Scores", "NaN", "expected a finite number", scores("s.csv", HEADER + "0,1,1,nan,1\n")),
    Bad(
        "Scores",
        "infinity",
        "expected a finite number",
        scores("s.csv", HEADER + "0,1,1,1e999,1\n"),
    ),
    Bad(
        "Scores",
        "a row beyond the data",
        "there is no row 48",
        scores("s.csv", HEADER + "48,1,1,1,1\n"),
    ),
    Bad("Scores", "a row twice", "stands there twice", scores("s.csv", HEADER + "0,1,1,1,1\n" * 2)),
    Bad("Scores", "a negative row", "there is no row -1", scores("s.csv", HEADER + "-1,1,1,1,1\n")),
    Bad(
        "Scores",
        "rows of decimals",
        "does not hold whole numbers",
        scores("s.parquet", {"row": [0.5] * 48}),
    ),
    Bad(
        "Scores",
        "rows of lists",
        "does not hold whole numbers",
        scores("s.parquet", {"row": [[1]] * 48}),
    ),
    Bad(
        "Scores",
        "scores that are lists",
        "is not a number",
        scores("s.parquet", {"rain": [[1.0]] * 48}),
    ),
    Bad(
        "Scores",
        "scores that are null",
        "expected a finite number",
        scores("s.parquet", {"rain": pa.nulls(48)}),
    ),
    Bad(
        "Scores",
        "a stray column",
        "is no label of the task",
        scores("s.parquet", {"snow": [1.0] * 48}),
    ),
    Bad(
        "Scores",
        "a split there is not",
        "split 'dev' is not one of",
        scores("s.parquet", {"split": ["dev"] * 48}),
    ),
    Bad(
        "Scores",
        "splits that are numbers",
        "split '1' is not one of",
        scores("s.parquet", {"split": [1] * 48}),
    ),
    Bad(
        "Scores",
        "splits that are lists",
        "is not one of",
        scores("s.parquet", {"split": [["train"]] * 48}),
    ),
    Bad("Scores", "a pipe", PIPE, scores("s.csv", make=os.mkfifo)),
    Bad("Scores", "a link to a device", DEVICE, scores("s.parquet", make=link_to_device)),
    Bad(
        "Scores", "random bytes", "not utf-8", scores("s.csv", np.random.default_rng(1).bytes(999))
    ),
]


# --- files of models


def model(make: Callable[[Path], object]):
    """Read the files of a model of which there is a config.json and what `make` writes."""

    def use(folder: Path):
        from probeline.models.load import load_model

        config = {"model_type": "bert", "num_hidden_layers": 1, "hidden_size": 8}
        config |= {"intermediate_size": 8, "num_attention_heads": 2}
        (folder / "config.json").write_text(json.dumps(config))
        save_file({"a": np.zeros(2, np.float32)}, folder / "model.safetensors")
        make(folder)
        return load_model({"path": str(folder), "device": "cpu", "dtype": "float32"})

    return use


def write(name: str, content: str | bytes):
    raw = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(raw)


def tensors(header: str, data: bytes = b""):
    raw = header.encode()
    return write("model.safetensors", len(raw).to_bytes(8, "little") + raw + data)


def pipe(name: str):
    def make(folder: Path):
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return make


def indexed(value: object):
    def make(folder: Path):
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": value}))

    return make


MODELS = [
    Bad(
        "Model",
        "config.json cut off",
        "not a complete JSON file",
        model(write("config.json", '{"model_type": ')),
    ),
    Bad(
        "Model",
        "config.json without end",
        "not a complete JSON file",
        model(write("config.json", "[" * 100_000)),
    ),
    Bad(
        "Model",
        "a number of 5,000 digits",
        "not a complete JSON file",
        model(write("config.json", "9" * 5000)),
    ),
    Bad("Model", "config.json a pipe", PIPE, model(pipe("config.json"))),
    Bad("Model", "weights that are a pipe", "no weights", model(pipe("model.safetensors"))),
    Bad("Model", "config.json a list", "expected a JSON object", model(write("config.json", "[]"))),
    Bad(
        "Model",
        "a model_type that is a list",
        "no hooks for this architecture",
        model(write("config.json", '{"model_type": []}')),
    ),
    Bad(
        "Model",
        "a Git LFS pointer",
        "not a safetensors file",
        model(write("model.safetensors", "version https://git-lfs")),
    ),
    Bad(
        "Model",
        "a header of 2^63 bytes",
        "not a safetensors file",
        model(write("model.safetensors", b"\xff" * 7 + b"\x7f{}")),
    ),
    Bad("Model", "a header cut off", "its header cannot be read", model(tensors('{"a": {'))),
    Bad("Model", "a header that is a list", "its header cannot be read", model(tensors("[]"))),
    Bad(
        "Model", "a header without end", "its header cannot be read", model(tensors("[" * 100_000))
    ),
    Bad(
        "Model",
        "offsets that are texts",
        "its header cannot be read",
        model(tensors('{"a": {"data_offsets": [0, "x"]}}')),
    ),
    Bad(
        "Model",
        "weights cut off",
        "half-copied or damaged",
        model(tensors('{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}', b"123")),
    ),
    Bad(
        "Model",
        "an index that leads outside",
        "outside of the folder",
        model(indexed({"a": "../../other.safetensors"})),
    ),
    Bad(
        "Model",
        "an index that leads to /",
        "outside of the folder",
        model(indexed({"a": "/etc/passwd"})),
    ),
    Bad("Model", "an index of numbers", "not a complete index", model(indexed({"a": 5}))),
    Bad(
        "Model",
        "a weight file that is missing",
        "1 of 1 weight files are missing",
        model(indexed({"a": "b.safetensors"})),
    ),
    Bad("Model", "no tokenizer", "no tokenizer", model(lambda folder: None)),
    Bad(
        "Model",
        "a broken tokenizer",
        "its tokenizer cannot be read",
        model(write("tokenizer.json", "{")),
    ),
]


# --- classifiers


def classifier(change: Callable[[dict, dict], object], **arrays):
    """Read a classifier folder after `change` of its manifest and arrays."""

    def use(folder: Path):
        from probeline.classifier import load

        step = {"penalty": 1.0, "C": 1.0, "l1_ratio": 1.0, "class_weight": None, "score": 0.5}
        step |= dict.fromkeys(("error", "log_loss", "threshold", "objective", "gap"), 0.0)
        step |= {"nonzero": 2, "neurons": 2, "iterations": 3, "converged": True}
        reference = {
            "kind": "folder",
            "path": "./model",
            "revision": "sha256:0",
            "dtype": "float32",
        }
        reference |= {"tokenizer": None, "tokenizer_hash": "0", "max_length": 16}
        manifest = {
            "format": 1,
            "probeline": "0.1.0",
            "model": reference | {"trust_remote_code": False},
            "task": "label",
            "labels": ["a", "b", "c"],
            "multilabel": False,
            "sources": [["hidden", "mean"]],
            "depth": 1,
            "neurons": 2,
            "eta": 0.5,
            "step": step,
            "scores": {},
            "provenance": {},
        }
        whole = {name: np.zeros(2, np.int64) for name in ("layer", "neuron", "source")}
        whole |= {name: np.ones(2, np.float32) for name in ("mean", "scale")}
        whole |= {"coefficients": np.ones((2, 3), np.float32), "intercept": np.ones(3, np.float32)}
        change(manifest, whole)
        (folder / "classifier.json").write_text(json.dumps(manifest))
        save_file(whole, folder / "head.safetensors")
        return load(folder, device="cpu")

    return use


def cut_head(folder: Path):
    (folder / "head.safetensors").write_bytes(b"{}")


def edit(*path: str, to: object):
    def change(manifest: dict, arrays: dict):
        holder = manifest
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = to

    return change


def array(name: str, values: np.ndarray):
    return lambda manifest, arrays: arrays.update({name: values})


DAMAGED = "damaged or do not belong together"
CLASSIFIERS = [
    Bad(
        "Classifier", "another format", "format 99, this version", classifier(edit("format", to=99))
    ),
    Bad("Classifier", "no labels", DAMAGED, classifier(lambda manifest, _: manifest.pop("labels"))),
    Bad("Classifier", "labels that are numbers", DAMAGED, classifier(edit("labels", to=[1, 2, 3]))),
    Bad(
        "Classifier",
        "a label too many",
        DAMAGED,
        classifier(edit("labels", to=["a", "b", "c", "d"])),
    ),
    Bad(
        "Classifier",
        "a threshold that is text",
        DAMAGED,
        classifier(edit("step", "threshold", to="x")),
    ),
    Bad("Classifier", "no model", DAMAGED, classifier(edit("model", to=None))),
    Bad(
        "Classifier",
        "a length that is text",
        DAMAGED,
        classifier(edit("model", "max_length", to="x")),
    ),
    Bad(
        "Classifier",
        "a model outside of the folder",
        "outside of the folder",
        classifier(edit("model", "path", to="./../../model")),
    ),
    Bad(
        "Classifier",
        "a tokenizer outside",
        "outside of the folder",
        classifier(edit("model", "tokenizer", to="./../x")),
    ),
    Bad(
        "Classifier",
        "a model with code of its own",
        "--trust-remote-code",
        classifier(edit("model", "trust_remote_code", to=True)),
    ),
    Bad(
        "Classifier",
        "weights that are not finite",
        DAMAGED,
        classifier(array("coefficients", np.full((2, 3), np.nan, np.float32))),
    ),
    Bad(
        "Classifier",
        "weights of too few neurons",
        DAMAGED,
        classifier(array("coefficients", np.ones((1, 3), np.float32))),
    ),
    Bad(
        "Classifier",
        "a source there is not",
        DAMAGED,
        classifier(array("source", np.array([0, 9]))),
    ),
    Bad(
        "Classifier",
        "a source below nought",
        DAMAGED,
        classifier(array("source", np.array([0, -1]))),
    ),
    Bad(
        "Classifier",
        "neurons that are decimals",
        DAMAGED,
        classifier(array("neuron", np.ones(2, np.float32))),
    ),
]


# --- fine-tuned models


def fine_tuned(change: Callable[[dict], object]):
    """Read the folder of a tiny fine-tuned model after `change` of its training.json."""

    def use(folder: Path):
        from probeline.classifier import load

        training = {
            "labels": ["a", "b", "c"],
            "multilabel": True,
            "found": {"threshold": [0.5] * 3},
        }
        training |= {"settings": {"max_length": 16, "pair": False}}
        write_trained(folder)
        training = change(training) or training
        (folder / "training.json").write_text(json.dumps(training))
        return load(folder, device="cpu").predict("a text")

    return use


def write_trained(folder: Path) -> None:
    from tiny_models import TINY, tokenizer
    from transformers import BertForSequenceClassification

    config = TINY["bert"].config()
    config.num_labels = 3
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer(TINY["bert"].style).save_pretrained(folder)


def edit_training(*path: str, to: object):
    return lambda training: edit(*path, to=to)(training, {})


NOT_TRAINED = "not that of a fine-tuned model"
TRAINED = [
    Bad("Fine-tuned", "a list", NOT_TRAINED, fine_tuned(lambda training: [training])),
    *(
        Bad("Fine-tuned", what, NOT_TRAINED, fine_tuned(edit_training(*path, to=value)))
        for what, path, value in (
            ("labels that are a text", ["labels"], "abc"),
            ("labels that are numbers", ["labels"], [1, 2, 3]),
            ("no label", ["labels"], []),
            ("a label twice", ["labels"], ["a", "b", "a"]),
            ("several labels, as text", ["multilabel"], "no"),
            ("settings that are a list", ["settings"], [16]),
            ("a length that is text", ["settings", "max_length"], "16"),
            ("a length below nought", ["settings", "max_length"], -1),
            ("a length without end", ["settings", "max_length"], 10**400),
            ("pairs that are a number", ["settings", "pair"], 1),
            ("nothing found", ["found"], None),
            ("a threshold that is text", ["found", "threshold"], "0.5"),
            ("a threshold of two labels", ["found", "threshold"], [0.5, 0.5]),
            ("a threshold in a list of lists", ["found", "threshold"], [[0.5]] * 3),
            ("a threshold that is no number", ["found", "threshold"], float("nan")),
            ("a threshold without end", ["found", "threshold"], 10**400),
        )
    ),
    Bad(
        "Fine-tuned",
        "a label too many",
        "the model beside it has 3",
        fine_tuned(lambda t: t["labels"].append("d") or t["found"].update(threshold=0.5)),
    ),
    Bad(
        "Fine-tuned",
        "a length above the model's",
        "the model beside it has room for",
        fine_tuned(edit_training("settings", "max_length", to=10**6)),
    ),
]


# --- label texts, texts to classify, configurations


def label_texts(name: str, content: str | bytes = b"", make: Callable | None = None):
    def use(folder: Path):
        from probeline.data.label_text_file import read_label_texts

        if make is not None:
            make(folder / name)
        else:
            write(name, content)(folder)
        return read_label_texts(folder / name)

    return use


def inputs(name: str, content: str | bytes):
    def use(folder: Path):
        from probeline.classifier.inputs import read_inputs

        write(name, content)(folder)
        return list(read_inputs(None, str(folder / name), ["text"]))

    return use


def config(content: str | bytes):
    def use(folder: Path):
        from probeline.config import load

        write("config.yaml", content)(folder)
        return load(folder / "config.yaml")

    return use


def named(name: str) -> str:
    return json.dumps(
        {
            "models": {"m": {"path": "./model"}},
            "datasets": {name: {"loader": "csv", "path": "a.csv", "splits": MADE}},
        }
    )


REST = [
    Bad(
        "Label texts",
        "YAML that makes objects",
        "not a readable mapping",
        label_texts("l.yaml", "a: !!python/object/apply:os.system [true]"),
    ),
    Bad(
        "Label texts",
        "lists without end",
        "not a readable mapping",
        label_texts("l.json", "[" * 100_000),
    ),
    Bad("Label texts", "a list", "expected a mapping", label_texts("l.yaml", "- a")),
    Bad(
        "Label texts",
        "not UTF-8",
        "not a readable UTF-8 file",
        label_texts("l.csv", b"label,text\n\xff,a\n"),
    ),
    Bad("Label texts", "a pipe", PIPE, label_texts("l.csv", make=os.mkfifo)),
    Bad("Label texts", "a link to a device", DEVICE, label_texts("l.yaml", make=link_to_device)),
    Bad("predict --input", "not UTF-8", "not UTF-8", inputs("t.txt", b"\xff\n")),
    Bad(
        "predict --input",
        "JSON without end",
        "expected a JSON object",
        inputs("t.jsonl", "[" * 100_000),
    ),
    Bad("predict --input", "no such column", "no column 'text'", inputs("t.csv", "txt\na\n")),
    Bad(
        "predict --input",
        "a text that is a number",
        "is not a string",
        inputs("t.jsonl", '{"text": 5}'),
    ),
    Bad(
        "Configuration",
        "YAML that makes objects",
        "not valid YAML",
        config("models: !!python/object/apply:os.system [true]"),
    ),
    Bad("Configuration", "an empty file", "holds nothing", config("")),
    Bad("Configuration", "not UTF-8", "not UTF-8 text at byte 0", config(b"\xff")),
    Bad("Configuration", "a NUL", "not valid YAML", config("a: \0")),
    Bad("Configuration", "lists without end", "cannot be read", config("[" * 100_000)),
    Bad("Configuration", "a key twice", "two entries", config("seed: 1\nseed: 2\n")),
    *(
        Bad("Configuration", f"a name of `{shown or name}`", "letters, digits", config(named(name)))
        for name, shown in (
            ("a; touch x", ""),
            ("$(touch x)", ""),
            ("a b", ""),
            ("../up", ""),
            ("/etc", ""),
            ("a.b", ""),
            ("<script>", ""),
            ("a\nb", "a\\nb"),
            ("é", ""),
            ("x" * 65, "x (65 times)"),
        )
    ),
]

ALL = [*DATASETS, *SCORES, *MODELS, *CLASSIFIERS, *TRAINED, *REST]

HEAD = """# Bad inputs

Each of these is refused in one line that says, among other things, what stands on the right; none
ends in a traceback, hangs, or is read as something else. The table is printed by
`python tests/unit/bad_inputs.py`, and `tests/unit/test_bad_inputs.py` tries every row.

| no. | what is read | what is wrong with it | words of the line |
| --: | --- | --- | --- |
"""


def markdown() -> str:
    rows = (
        f"| {number} | {bad.reader} | {bad.what} | {bad.words.replace('|', chr(92) + '|')} |\n"
        for number, bad in enumerate(ALL, start=1)
    )
    return HEAD + "".join(row.replace("<", "&lt;") for row in rows)


if __name__ == "__main__":
    print(markdown(), end="")
