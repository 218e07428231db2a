"""Bad input through the workflow: one line in the log of its rule, nothing half-made left."""

from __future__ import annotations

import json
import os
import shutil
import struct
from pathlib import Path

import h5py
import numpy as np
import pytest
import snake
import tiny_project
from tiny_project import CONFIG, DATASET, MODEL, edited, sentences, write_csv

from probeline.sealed import seal

ENTRY = CONFIG["datasets"][DATASET]
SPLIT_FILES = {"train": "train.csv", "validation": "validation.csv", "test": "test.csv"}


def errors(folder: Path, log: str) -> list[str]:
    """Return the ERROR lines of a rule's log, which must hold no traceback."""
    text = (folder / "logs" / log).read_text(encoding="utf-8")
    assert "Traceback" not in text, text
    return [line for line in text.splitlines() if " ERROR " in line]


def failed(server: str | None, folder: Path, *arguments: str | Path) -> None:
    """Run all the jobs that can be run; some must fail."""
    done = snake.snakemake(folder, "--keep-going", *arguments, server=server)
    assert done.returncode == 1, done.stdout + done.stderr


# Datasets: {name: (rows by file, changes of the entry, what the line says)}

ROWS = sentences(60)


def changed(number: int, text: str | None = None, label: str | None = None) -> list[tuple]:
    """Return the rows with row `number`, counted from 1, changed."""
    rows = list(ROWS)
    old = rows[number - 1]
    rows[number - 1] = (old[0] if text is None else text, old[1] if label is None else label)
    return rows


DATASETS = {
    "empty-text": ({"a.csv": changed(7, text="  ")}, {}, ("a.csv: row 7", "empty text")),
    "null-label": ({"a.csv": changed(9, label="")}, {}, ("a.csv: row 9", "label")),
    "wrong-column": ({"a.csv": ROWS}, {"text": "txet"}, ("a.csv", "'txet'", "did you mean 'text'")),
    "one-class": ({"a.csv": [(t, "food") for t, _ in ROWS]}, {}, ("only 'food'",)),
    "rare-class": ({"a.csv": changed(5, label="rare")}, {}, ("'rare'",)),
    "no-rows": ({"a.csv": []}, {}, ("a.csv", "no rows")),
    "label-only-in-test": (
        {
            "train.csv": ROWS[:30],
            "validation.csv": ROWS[30:45],
            "test.csv": [*ROWS[45:], ("a text of its own", "gossip")],
        },
        {"splits": SPLIT_FILES},
        ("test.csv: row 16", "'gossip'"),
    ),
    "wrong-encoding": ({"a.csv": changed(3, text="caf\udce9 bread")}, {}, ("a.csv", "utf-8")),
}


def write_bytes(path: Path, rows: list[tuple]) -> None:
    """Write CSV; lone surrogates become bytes that are not UTF-8."""
    write_csv(path, [])
    lines = [f'"{text}",{label}\r\n' for text, label in rows]
    with path.open("ab") as handle:
        handle.write("".join(lines).encode("utf-8", "surrogateescape"))


@pytest.fixture(scope="module")
def bad_datasets(tmp_path_factory, tiny_model, server) -> Path:
    """A project of bad datasets, and a good one, after its dataset rules have run."""
    folder = tiny_project.build_project(tmp_path_factory.mktemp("bad") / "datasets", tiny_model)
    entries = {DATASET: ENTRY}
    for name, (files, changes, _) in DATASETS.items():
        (folder / name).mkdir()
        for file, rows in files.items():
            write_bytes(folder / name / file, rows)
        alone = "splits" not in changes
        entries[name] = ENTRY | {"path": f"{name}/a.csv" if alone else name} | changes
    tiny_project.write_config(folder / "config.yaml", edited(("datasets", entries)))
    failed(server, folder, *(f"results/datasets/{name}/dataset.json" for name in entries))
    return folder


@pytest.mark.parametrize("name", DATASETS)
def test_a_bad_dataset_is_one_line(bad_datasets, name):
    (line,) = errors(bad_datasets, f"texts/{name}.log")
    assert f" ERROR datasets.{name}: " in line
    for words in DATASETS[name][2]:
        assert words in line, line
    assert not list((bad_datasets / "results" / "datasets").glob(f"{name}/*"))


def test_bad_datasets_do_not_stop_a_good_one(bad_datasets):
    assert (bad_datasets / "results" / "datasets" / DATASET / "dataset.json").is_file()
    assert not errors(bad_datasets, f"dataset/{DATASET}.log")


# Models


def halve(folder: Path) -> None:
    path = folder / "model.safetensors"
    os.truncate(path, path.stat().st_size // 2)


def put(folder: Path, name: str, value: float) -> None:
    """Set the first number of a weight."""
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    (length,) = struct.unpack("<Q", data[:8])
    start, _ = json.loads(data[8 : 8 + length])[name]["data_offsets"]
    data[8 + length + start : 12 + length + start] = struct.pack("<f", value)
    path.write_bytes(data)


BIAS = "encoder.layer.1.intermediate.dense.bias"
MODELS = {
    "half-copied": (halve, ("model.safetensors", "half-copied")),
    "not-a-number": (
        lambda folder: put(folder, BIAS, float("nan")),
        ("NaN", "row ", "'ffn' layer 2"),
    ),
    "too-large": (
        lambda folder: put(folder, BIAS, 1e6),
        ("ffn.max.02.h5", "row ", "storage_dtype: float32"),
    ),
}


@pytest.fixture(scope="module")
def bad_models(tmp_path_factory, tiny_model, server) -> Path:
    """A project of bad models after its extract rules have run."""
    folder = tiny_project.build_project(tmp_path_factory.mktemp("bad") / "models", tiny_model)
    entries = {}
    for name, (damage, _) in MODELS.items():
        damage(shutil.copytree(tiny_model, folder / name))
        entries[name] = CONFIG["models"][MODEL] | {"path": f"./{name}"}
    tiny_project.write_config(folder / "config.yaml", edited(("models", entries)))
    failed(
        server, folder, *(f"results/activations/{DATASET}/{name}/tokens.json" for name in entries)
    )
    return folder


@pytest.mark.parametrize("name", MODELS)
def test_a_bad_model_is_one_line(bad_models, name):
    (line,) = errors(bad_models, f"extract/{DATASET}/{name}.log")
    for words in MODELS[name][1]:
        assert words in line, line
    assert not list((bad_models / "results" / "activations" / DATASET).glob(f"{name}/*"))


# Shards: {name of the shard: (damage, what the line says)}


def cut_off(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 100)


def attribute(name: str, value):
    def change(path: Path) -> None:
        with h5py.File(path, "r+", locking=False) as file:
            file.attrs[name] = value
            rows = file["activations"]
            place, size = rows.id.get_offset(), rows.nbytes
        seal(path, place, size)

    return change


def foreign(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["x"] = np.zeros(3)


SHARDS = {
    "hidden.mean.01.h5": (cut_off, ("truncated", "delete it")),
    "ffn.max.02.h5": (attribute("format_version", 0), ("shard format 0", "delete it")),
    "hidden.max.02.h5": (
        attribute("dataset_fingerprint", "0123456789abcdef"),
        ("dataset_fingerprint", "0123456789abcdef", "delete it"),
    ),
    "ffn.mean.01.h5": (foreign, ("not a probeline shard", "delete it")),
}


@pytest.fixture(scope="module")
def bad_shards(tmp_path_factory, finished, server) -> Path:
    """The finished project with damaged shards, after its probe rules have run again."""
    folder = tmp_path_factory.mktemp("bad") / "shards"
    shutil.copytree(finished, folder, symlinks=True)
    for name, (damage, _) in SHARDS.items():
        damage(folder / "results" / "activations" / DATASET / MODEL / name)
    probes = [f"results/probes/{DATASET}/label/{MODEL}/{name}" for name in SHARDS]
    assert snake.stages(snake.planned(folder, *probes)) == {"probe": 4}
    failed(server, folder, *probes)
    return folder


@pytest.mark.parametrize("name", SHARDS)
def test_a_bad_shard_is_one_line(bad_shards, name):
    representation, pooling, _, _ = name.split(".")
    (line,) = errors(bad_shards, f"probe/{DATASET}/label/{MODEL}/{representation}.{pooling}.0.log")
    for words in (f"results/activations/{DATASET}/{MODEL}/{name}", *SHARDS[name][1]):
        assert words in line, line
    # Probes of the other layers, trained in the same job, go with the failed one.
    folder = bad_shards / "results" / "probes" / DATASET / "label" / MODEL
    assert not list(folder.glob(f"{representation}.{pooling}.*"))
