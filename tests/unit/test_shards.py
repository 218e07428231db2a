"""Shards: what is written is read back; anything else is refused by name."""

from __future__ import annotations

import os

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probeline import versions
from probeline.activations import shards
from probeline.activations.names import parse_name, shard_name, shard_names
from probeline.activations.shards import ShardWriter, open_shard, write_shard
from probeline.errors import ProbelineError
from probeline.models.reference import ModelShape
from probeline.sealed import seal

META = {
    "model": "org/name",
    "dataset": "bbc",
    "dataset_fingerprint": "f00d",
    "layer": 3,
    "offsets": {"train": [0, 5], "test": [5, 7]},
}


def values(rows=7, width=5, dtype="float16"):
    return np.random.default_rng(0).normal(size=(rows, width)).astype(dtype)


@pytest.fixture
def path(tmp_path):
    write_shard(tmp_path / "hidden.mean.03.h5", values(), META)
    return tmp_path / "hidden.mean.03.h5"


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_round_trip(tmp_path, dtype):
    data = values(dtype=dtype)
    write_shard(tmp_path / "a.h5", data, META)
    with open_shard(tmp_path / "a.h5", {"dataset": "bbc", "layer": 3}) as shard:
        assert (shard.rows, shard.width) == (7, 5)
        assert shard.read().dtype == np.float32
        np.testing.assert_array_equal(shard.read(), data.astype(np.float32))
        assert shard.meta["offsets"] == META["offsets"]
        assert shard.meta["storage_dtype"] == dtype
        assert shard.meta["complete"] is True
    assert sorted(item.name for item in tmp_path.iterdir()) == ["a.h5"]


@settings(max_examples=40, deadline=None)
@given(data=st.data(), rows=st.integers(1, 30), width=st.integers(1, 12))
def test_any_rows_and_columns(tmp_path_factory, data, rows, width):
    path = tmp_path_factory.mktemp("shard") / "a.h5"
    whole = values(rows, width)
    write_shard(path, whole, META)
    start = data.draw(st.integers(0, rows))
    stop = data.draw(st.integers(start, rows))
    columns = np.array(data.draw(st.lists(st.integers(0, width - 1))), dtype=np.int64)
    with open_shard(path) as shard:
        part = shard.read(slice(start, stop), columns)
    np.testing.assert_array_equal(part, whole[start:stop][:, columns].astype(np.float32))


def test_reading_goes_on_over_several_buffers(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "_READ_BYTES", 64)
    whole = values(100, 9)
    write_shard(tmp_path / "a.h5", whole, META)
    with open_shard(tmp_path / "a.h5") as shard:
        np.testing.assert_array_equal(shard.read(), whole.astype(np.float32))
        np.testing.assert_array_equal(
            shard.read(slice(11, 98), np.array([8, 0])), whole[11:98][:, [8, 0]]
        )


def test_plain_h5py_reads_it_and_it_is_little_larger_than_its_values(path):
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["activations"][:], values())
        assert file.attrs["model"] == "org/name"
    write_shard(path, values(2000, 384), META)
    assert path.stat().st_size <= 1.03 * 2 * 2000 * 384


def test_blocks_written_in_any_order(tmp_path):
    path = tmp_path / "a.h5"
    whole = values(10, 4)
    writer = ShardWriter.create(path, 10, 4, "float16", META, block=3)
    writer.write(6, whole[6:])
    ShardWriter(path).write(0, whole[:6])  # as after an interruption
    with pytest.raises(ProbelineError, match="incomplete"):
        open_shard(path)
    ShardWriter(path).finish()
    with open_shard(path) as shard:
        np.testing.assert_array_equal(shard.read(), whole.astype(np.float32))


def test_writer_refuses_what_does_not_fit(tmp_path):
    writer = ShardWriter.create(tmp_path / "a.h5", 4, 3, "float16", META)
    with pytest.raises(ValueError, match="float16 rows of 3"):
        writer.write(0, np.zeros((1, 3), dtype=np.float32))
    with pytest.raises(ValueError, match=r"rows 1\.\.3 are no blocks of"):
        writer.write(1, np.zeros((2, 3), dtype=np.float16))
    with pytest.raises(ValueError, match="do not lie in"):
        writer.write(3, np.zeros((2, 3), dtype=np.float16))
    with pytest.raises(ProbelineError, match="'float8' is not one of float16, float32"):
        ShardWriter.create(tmp_path / "b.h5", 4, 3, "float8", META)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.999])
def test_truncated_file(path, share):
    write_shard(path, values(500, 64), META)
    os.truncate(path, int(share * path.stat().st_size))
    with pytest.raises(ProbelineError, match=r"hidden\.mean\.03\.h5: .*delete it and run"):
        open_shard(path)


def test_missing_file(tmp_path):
    with pytest.raises(ProbelineError, match=r"no\.h5: no such shard"):
        open_shard(tmp_path / "no.h5")


def test_foreign_files(tmp_path):
    (tmp_path / "text.h5").write_text("not HDF5 at all")
    with pytest.raises(ProbelineError, match="not an HDF5 file"):
        open_shard(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["activations"] = np.zeros((3, 2))
    with pytest.raises(ProbelineError, match="not a probeline shard"):
        open_shard(tmp_path / "other.h5")


def test_older_format(path):
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = versions.SHARD_FORMAT - 1
        place, size = file["activations"].id.get_offset(), file["activations"].nbytes
    seal(path, place, size)
    with pytest.raises(ProbelineError, match=r"shard format 1, this version .* reads 2"):
        open_shard(path)


@pytest.mark.parametrize("name, value", [("dataset_fingerprint", "beef"), ("model", "x"), ("q", 1)])
def test_shard_about_something_else(path, name, value):
    with pytest.raises(ProbelineError, match=rf"its {name} is .*, expected '{value}'"):
        open_shard(path, {"dataset": "bbc", name: value})


def test_column_out_of_range(path):
    with open_shard(path) as shard, pytest.raises(ProbelineError, match=r"columns 2\.\.5"):
        shard.read(columns=np.array([5, 2]))


def test_names():
    shape = ModelShape(layers=2, decoder_layers=1)
    names = shard_names(shape, ["hidden", "ffn"], ["mean", "first"])
    assert names == [
        "ffn.first.01.h5",
        "ffn.first.02.h5",
        "ffn.mean.01.h5",
        "ffn.mean.02.h5",
        "hidden.first.00.h5",
        "hidden.first.01.h5",
        "hidden.first.02.h5",
        "hidden.mean.00.h5",
        "hidden.mean.01.h5",
        "hidden.mean.02.h5",
    ]
    assert shard_names(shape, ["hidden", "ffn"], ["mean"], [0, 2]) == [
        "ffn.mean.02.h5",
        "hidden.mean.00.h5",
        "hidden.mean.02.h5",
    ]
    assert shard_names(shape, ["decoder-ffn"], ["max"]) == ["decoder-ffn.max.01.h5"]
    assert shard_name(ModelShape(layers=100), "hidden", "max", 7) == "hidden.max.007.h5"
    for name in names:
        representation, pooling, layer = parse_name(name)
        assert shard_name(shape, representation, pooling, layer) == name


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda s: shard_names(s, ["fnn"], ["max"]), "'fnn' is not one of .*did you mean 'ffn'"),
        (lambda s: shard_names(s, ["ffn"], ["maxx"]), "'maxx' is not one of .*did you mean 'max'"),
        (lambda s: shard_names(s, ["decoder-ffn"], ["max"]), "no encoder-decoder"),
        (lambda s: shard_name(s, "ffn", "max", 3), "layer 3 of 'ffn' is out of range.*1 to 2"),
        (lambda s: parse_name("hidden.mean.h5"), "not the name of a shard"),
    ],
)
def test_bad_names(call, words):
    with pytest.raises(ProbelineError, match=words):
        call(ModelShape(layers=2))
