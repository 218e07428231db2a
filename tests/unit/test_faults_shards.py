"""Shards that the disk has damaged: an error in one line, or the very values that were written."""

from __future__ import annotations

import random
import zlib

import h5py
import numpy as np
import pytest

from probeline.activations.shards import ShardWriter, open_shard, write_shard
from probeline.errors import ProbelineError

META = {
    "model": "org/name",
    "dataset_fingerprint": "f00d",
    "layer": 3,
    "offsets": {"train": [0, 30], "test": [30, 40]},
}
ROWS, WIDTH, BLOCK = 40, 6, 8


@pytest.fixture(scope="module")
def values():
    return np.random.default_rng(0).normal(size=(ROWS, WIDTH)).astype("float16")


@pytest.fixture
def path(tmp_path, values):
    target = tmp_path / "hidden.mean.03.h5"
    writer = ShardWriter.create(target, ROWS, WIDTH, "float16", META, BLOCK)
    for start in range(0, ROWS, BLOCK):
        writer.write(start, values[start : start + BLOCK])
    writer.finish()
    return target


def flip(path, place, bit=0):
    with path.open("r+b") as handle:
        handle.seek(place)
        byte = handle.read(1)[0]
        handle.seek(place)
        handle.write(bytes([byte ^ 1 << bit]))


def place_of(path, row, column=0):
    with h5py.File(path) as file:
        return file["activations"].id.get_offset() + 2 * (row * WIDTH + column)


def read(path):
    with open_shard(path) as shard:
        return shard.read(), shard.meta


def places(whole):
    """Positions in a file: all at its ends, every eleventh between."""
    size = len(whole)
    return sorted({*range(64), *range(64, size, 11), *range(size - 64, size)})


def one_line(error):
    text = str(error.value)
    assert "\n" not in text and "hidden.mean.03.h5: " in text and "run" in text, text


def test_checksums_are_crc32_of_the_bytes_of_each_block(path, values):
    with h5py.File(path) as file:
        found = file["checksums"][:].tolist()
    blocks = range(0, ROWS, BLOCK)
    assert found == [zlib.crc32(values[start : start + BLOCK].tobytes()) for start in blocks]


def test_same_bytes_whether_written_at_once_or_in_blocks(path, tmp_path, values, monkeypatch):
    monkeypatch.setattr("probeline.activations.shards._BLOCK_BYTES", 2 * WIDTH * BLOCK)
    write_shard(tmp_path / "whole.h5", values, META)
    assert (tmp_path / "whole.h5").read_bytes() == path.read_bytes()


def test_cut_at_any_byte_it_is_refused(path):
    whole = path.read_bytes()
    for length in places(whole):
        path.write_bytes(whole[:length])
        with pytest.raises(ProbelineError) as error:
            read(path)
        one_line(error)


def test_any_flipped_bit_is_refused(path):
    whole = path.read_bytes()
    rng = random.Random(0)
    for place in places(whole):
        flip(path, place, rng.randrange(8))
        with pytest.raises(ProbelineError) as error:
            read(path)
        one_line(error)
        path.write_bytes(whole)


def test_damage_names_its_rows_and_leaves_the_others_readable(path, values):
    flip(path, place_of(path, 18, 2), 6)
    with pytest.raises(ProbelineError, match=r"rows 16 to 23 are not what was written") as error:
        read(path)
    one_line(error)
    with open_shard(path) as shard:
        np.testing.assert_array_equal(shard.read(slice(24, 40)), values[24:40].astype("f4"))
        # The damaged value lies in the block, not among the rows that are asked for.
        with pytest.raises(ProbelineError, match="checksum"):
            shard.read(slice(20, 30), np.array([1]))
        with pytest.raises(ProbelineError, match="rows 16 to 23"):
            shard.check()


def test_each_block_is_compared_once(path, values, monkeypatch):
    seen = []
    compare = type(open_shard(path))._compare

    def counted(shard, blocks, part):
        seen.append((blocks.start, blocks.stop))
        compare(shard, blocks, part)

    monkeypatch.setattr("probeline.activations.shards.Shard._compare", counted)
    monkeypatch.setattr("probeline.activations.shards._READ_BYTES", 2 * WIDTH * BLOCK)
    with open_shard(path) as shard:
        for start, stop in ((3, 20), (20, 33), (33, 40), (0, 40), (5, 5)):
            np.testing.assert_array_equal(shard.read(slice(start, stop)), values[start:stop])
    assert sorted(seen) == [(block, block + 1) for block in range(ROWS // BLOCK)]


def test_checking_counts_every_row(path):
    rows = []
    with open_shard(path) as shard:
        shard.check(rows.append)
    assert sum(rows) == ROWS
