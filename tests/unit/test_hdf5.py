"""HDF5 files that are damaged, or made by someone who means harm, are refused and nothing else.

Who means harm can seal a file too: nearly all here have a seal that is right.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import damage
import h5py
import numpy as np
import pytest
from test_predictions import META, some_task
from test_shards import META as SHARD_META
from test_shards import values

from probeline.activations.parts import write_index
from probeline.activations.shards import ShardWriter, open_shard, write_shard
from probeline.doctor.whole import trouble
from probeline.errors import ProbelineError
from probeline.probe.store import read_probe
from probeline.results.predictions import read_predictions, write_predictions
from probeline.sealed import seal, seal_of

TIMES = 200


@pytest.mark.parametrize("kind", damage.KINDS)
def test_damage_anywhere_is_refused_or_has_changed_nothing(tmp_path, kind):
    """In a process of its own, since out of bounds HDF5 would take this one with it."""
    done = subprocess.run(
        [sys.executable, damage.__file__, kind, str(tmp_path), str(TIMES), "1"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) == TIMES


@pytest.fixture
def predictions(tmp_path) -> Path:
    path = tmp_path / "stc.h5"
    write_predictions(path, *some_task("multiclass"), META)
    return path


@pytest.fixture
def shard(tmp_path) -> Path:
    path = tmp_path / "hidden.mean.03.h5"
    write_shard(path, values(), SHARD_META)
    return path


@pytest.fixture
def probe(tmp_path) -> Path:
    return damage.KINDS["probe"](tmp_path)[0]


@pytest.fixture
def crossfitted(tmp_path):
    return damage.KINDS["crossfit"](tmp_path)


@contextmanager
def forging(path: Path) -> Iterator[h5py.File]:
    """Open a file for changes, and seal it again."""
    with h5py.File(path, "r+") as file:
        yield file
        link = file.get("activations", getlink=True)
        data = file["activations"] if isinstance(link, h5py.HardLink) else None
        offset = data.id.get_offset() if isinstance(data, h5py.Dataset) else None
        rows = (512, 0) if offset is None else (offset, data.nbytes)
    seal(path, *(rows if sum(rows) <= path.stat().st_size else (512, 0)))


def replace_dataset(path: Path, name: str, make) -> None:
    """Put what `make(file, name)` creates in the place of a dataset."""
    with forging(path) as file:
        del file[name]
        make(file, name)


def one_line(path: Path, read, match: str) -> None:
    with pytest.raises(ProbelineError, match=match) as caught:
        read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def soft(file, name):
    file[name] = h5py.SoftLink("/other")


def external_link(file, name):
    with h5py.File(Path(file.filename).with_name("secret.h5"), "w") as other:
        other["x"] = np.zeros((18, 4), np.float32)
    file[name] = h5py.ExternalLink("secret.h5", "/x")


def external_storage(file, name):
    secret = Path(file.filename).with_name("secret.txt")
    secret.write_bytes(bytes(18 * 4 * 4))
    file.create_dataset(name, (18, 4), "f4", external=[(str(secret), 0, h5py.h5f.UNLIMITED)])


def virtual(file, name):
    external_link(file, "link")
    layout = h5py.VirtualLayout((18, 4), "f4")
    layout[:] = h5py.VirtualSource("secret.h5", "x", (18, 4))
    file.create_virtual_dataset(name, layout)


def references(file, name):
    kind = h5py.special_dtype(ref=h5py.Reference)
    values = np.empty((18, 4), kind)
    values[:] = file.ref
    file.create_dataset(name, data=values, dtype=kind)


def opaque(file, name):
    file.create_dataset(name, data=np.full((18, 4), b"cos\nsystem\n(S'x'\ntR.", dtype="V32"))


def group(file, name):
    file.create_group(name)


def texts(file, name):
    file.create_dataset(name, data=np.full((18, 4), "1.0", dtype=object), dtype=h5py.string_dtype())


def bomb(file, name):
    """A terabyte in a few hundred bytes."""
    file.create_dataset(name, (1 << 20, 1 << 18), "f4", chunks=(1 << 10, 1 << 10))


def contiguous_bomb(file, name):
    file.create_dataset(name, (1 << 20, 1 << 18), "f4")


def overflow(file, name):
    """Of so many values that their number is 0 in 64 bits."""
    file.create_dataset(name, (1 << 32, 1 << 32), "f4", chunks=(1 << 10, 1 << 10))


def compressed(file, name):
    file.create_dataset(name, data=np.zeros((18, 4), "f4"), compression="gzip")


ATTACKS = [soft, external_link, external_storage, virtual, references, opaque, group, texts]
ATTACKS += [bomb, contiguous_bomb, overflow, compressed]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_values_that_are_not_in_the_file(predictions, shard, probe, crossfitted, attack):
    for path, name, read in (
        (predictions, "logits", read_predictions),
        (shard, "activations", lambda path: open_shard(path).close()),
        (probe, "coefficients", read_probe),
        (crossfitted[0], "logits", crossfitted[1]),
    ):
        replace_dataset(path, name, attack)
        one_line(path, read, r"\(.*(coefficients|logits|activations).*\); delete it and run")


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_files_without_a_seal(predictions, attack):
    unsealed(predictions)
    with h5py.File(predictions, "r+") as file:
        del file["logits"]
        attack(file, "logits")
    one_line(predictions, read_predictions, "'logits'.*delete it and run")


def test_checksums_of_a_shard_that_are_elsewhere(shard):
    replace_dataset(shard, "checksums", external_link)
    one_line(shard, open_shard, "'checksums' is a link to somewhere else.*delete it and run")


@pytest.mark.parametrize("weight", ["x" * 100_000, 3, "reference"])
def test_one_long_text_many_times(probe, weight):
    """Each element of text is a place in the file, and all may be the same one."""

    def make(file, name):
        if weight == "reference":
            kind = h5py.special_dtype(ref=h5py.Reference)
            file.create_dataset(name, data=np.full(4, file.ref, dtype=object), dtype=kind)
        else:
            file[name] = [weight] * 4

    replace_dataset(probe, "path/class_weight", make)
    one_line(probe, read_probe, "not a readable probe .*path/class_weight.*delete it and run")


ATTRIBUTES = {"texts": ["x" * 1000] * 9, "none": h5py.Empty("S1"), "numbers": np.arange(3)}


@pytest.mark.parametrize("value", [*ATTRIBUTES, "reference"])
def test_attributes_that_are_not_one_value(predictions, shard, probe, crossfitted, value):
    for path, read in (
        (predictions, read_predictions),
        (shard, open_shard),
        (probe, read_probe),
        (crossfitted[0], crossfitted[1]),
    ):
        with forging(path) as file:
            file.attrs["extra"] = file.ref if value == "reference" else ATTRIBUTES[value]
        one_line(path, read, "attribute 'extra' is .*delete it and run")
        assert "attribute 'extra'" in (trouble(path) or "")


WRONG = {
    "of too few rows": ("row", np.arange(17)),
    "of a split there is not": ("split", np.full(18, 7, np.int8)),
    "of too few labels": ("logits", np.zeros((18, 3), np.float32)),
    "of text": ("defined", np.full(18, b"yes")),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_predictions_that_do_not_agree(predictions, wrong):
    name, data = WRONG[wrong]
    replace_dataset(predictions, name, lambda file, name: file.create_dataset(name, data=data))
    one_line(predictions, read_predictions, "not readable predictions")


SHAPES = {
    "intercept": np.zeros(9, np.float32),
    "mean": np.zeros(1, np.float32),
    "kept": np.zeros(3),
    "path/C": np.zeros(0),
}


@pytest.mark.parametrize("name", SHAPES)
def test_probes_that_do_not_agree(probe, name):
    replace_dataset(probe, name, lambda file, name: file.create_dataset(name, data=SHAPES[name]))
    one_line(probe, read_probe, "not a readable probe")


BROKEN = [(name, None) for name in ("rows", "width", "storage_dtype", "complete", "format")]
BROKEN += [(name, value) for name in ("rows", "width") for value in (-1, "9", np.arange(3))]
BROKEN += [("block", value) for value in (None, 0, -1, 1, "x", 0.5, float("nan"))]
BROKEN += [
    ("storage_dtype", "f64"),
    ("storage_dtype", 3),
    ("offsets", "{"),
    ("offsets", "[" * 9999),
]
BROKEN += [("format_version", h5py.Empty("f4")), ("complete", False), ("model", b"\xff")]


@pytest.mark.parametrize("name, value", BROKEN, ids=str)
def test_shards_with_broken_attributes(shard, name, value):
    with forging(shard) as file:
        del file.attrs[name]
        if isinstance(value, bytes):
            file.attrs[name] = np.array(value, h5py.string_dtype("utf-8", 1))
        elif value is not None:
            file.attrs[name] = value
    one_line(shard, open_shard, r"hidden\.mean\.03\.h5: .*(delete it|run)")


@pytest.fixture
def parted(tmp_path) -> tuple[Path, Path]:
    """The index of a shard of two parts, and the second part."""
    data, shard = values(), tmp_path / "hidden.mean.03.h5"
    half = len(data) // 2
    about = {**SHARD_META, "whole": "all", "parts": 2, "total_rows": len(data)}
    names = []
    for number, (start, stop) in enumerate([(0, half), (half, len(data))], start=1):
        names.append(f"part-{number}-of-2/{shard.name}")
        path = tmp_path / names[-1]
        path.parent.mkdir()
        meta = {**about, "part": number, "start": start, "stop": stop, "extraction": str(number)}
        writer = ShardWriter.create(path, stop - start, data.shape[1], str(data.dtype), meta)
        writer.write(0, data[start:stop])
        writer.finish()
    write_index(shard, names)
    with open_shard(shard) as opened:
        np.testing.assert_array_equal(opened.read(), data.astype(np.float32))
    return shard, path


ONE = {"name": "part-1-of-2/hidden.mean.03.h5", "start": 0, "stop": 1}
HUGE = [ONE, {**ONE, "name": ONE["name"].replace("-1-", "-2-"), "start": 1, "stop": 10**15}]
FILES = [None, 3, "x", "{", "[" * 9999, "[3]", "null", "{}", "[{}]"]
FILES += [json.dumps([ONE | change]) for change in ({"name": 3}, {"start": "0"}, {"stop": None})]
FILES += [json.dumps([ONE | {"name": "a\0b"}]), json.dumps(HUGE), json.dumps([HUGE[1]])]
INDICES = [("files", value) for value in FILES]
INDICES += [("extraction", value) for value in (None, 3)]
INDICES += [(name, value) for name in ("rows", "width") for value in (None, -1, "9", 1.5, 10**15)]


@pytest.mark.parametrize("name, value", INDICES, ids=lambda value: str(value)[:40])
def test_indices_with_broken_attributes(parted, name, value):
    with forging(parted[0]) as file:
        del file.attrs[name]
        if value is not None:
            file.attrs[name] = value
        if value == json.dumps(HUGE):
            file.attrs["rows"] = 10**15
    with pytest.raises(ProbelineError, match=r"hidden\.mean\.03\.h5: .*(delete|run)") as caught:
        open_shard(parted[0])
    assert "\n" not in str(caught.value)


PARTS = [("whole", None), ("whole", 3), ("row_hash", None), ("row_hash", 3), ("stop", None)]
PARTS += [("start", None), ("parts", "2"), ("width", 10**15), ("rows", 10**15)]


@pytest.mark.parametrize("name, value", PARTS, ids=str)
def test_parts_with_broken_attributes(parted, name, value):
    shard, part = parted
    with forging(part) as file:
        del file.attrs[name]
        if value is not None:
            file.attrs[name] = value
    one_line(part, lambda _: open_shard(shard), "(delete|run)")


JOINED = [(name, value) for name in ("whole", "stop", "total_rows") for value in (None, 3.5)]


@pytest.mark.parametrize("name, value", [*JOINED, ("stop", 10**15)])
def test_parts_that_are_joined_with_broken_attributes(parted, name, value):
    shard, part = parted
    with forging(part) as file:
        del file.attrs[name]
        if value is not None:
            file.attrs[name] = value
    names = [str(path.relative_to(shard.parent)) for path in sorted(shard.parent.glob("*/*.h5"))]
    one_line(part, lambda _: write_index(shard, names), "(delete|run)")


def test_parts_that_claim_more_rows_than_they_hold(parted):
    shard, _ = parted
    paths = sorted(shard.parent.glob("*/*.h5"))
    for path in paths:
        with forging(path) as file:
            file.attrs["total_rows"] = 10**15
    with forging(paths[-1]) as file:
        file.attrs["stop"] = 10**15
    names = [str(path.relative_to(shard.parent)) for path in paths]
    one_line(paths[-1], lambda _: write_index(shard, names), "all parts hold 7 rows, expected 10")


def test_what_hdf5_cannot_open(shard):
    """A seal that is right around nothing that HDF5 knows."""
    whole = shard.read_bytes()
    shard.write_bytes(whole[:520] + bytes(len(whole) - 520))
    seal(shard)
    one_line(shard, open_shard, "delete it and run")


def unsealed(path: Path) -> None:
    """Make a file as earlier versions wrote it."""
    old = path.with_name("old.h5")
    with h5py.File(path) as file, h5py.File(old, "w") as copy:
        for name in file:
            file.copy(name, copy)
        copy.attrs.update(file.attrs)
    old.replace(path)


def test_files_of_earlier_versions_are_read(predictions, probe, crossfitted):
    for path, read in (
        (predictions, read_predictions),
        (probe, read_probe),
        (crossfitted[0], crossfitted[1]),
    ):
        before = read(path)
        unsealed(path)
        assert seal_of(path) is None
        assert damage.equal(read(path), before)
