"""Parts of an extraction make the shards of the whole one, bit by bit, or are refused."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_datasets import write_texts
from tiny_models import PAIRS, SENTENCES, WORDS, build

from probeline.activations import extract as stage
from probeline.activations import parts as parts_module
from probeline.activations.join import join_parts
from probeline.activations.names import LENGTHS, part_folder
from probeline.activations.parts import Part, part_files, write_index
from probeline.activations.shards import Shard, open_part, open_shard, row_hash
from probeline.activations.texts import blocks_of_texts
from probeline.errors import ProbelineError
from probeline.sealed import check_seal, seal
from probeline.workflow.extract import run_extract

BLOCK = 8
OPTIONS = {
    "representations": ["ffn", "hidden"],
    "poolings": ["first", "last", "max", "mean"],
    "storage_dtype": "float16",
    "block_texts": BLOCK,
}
# 43 texts of many lengths: six blocks, the last one short; splits end inside blocks.
TEXTS = [" ".join(WORDS[(7 * n + k) % len(WORDS)] for k in range(1 + n % 11)) for n in range(43)]
SHARD = "hidden.mean.02.h5"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """(dataset folder, model spec)"""
    model = build("bert", tmp_path_factory.mktemp("bert"))
    spec = {"path": str(model), "dtype": "float32", "device": "cpu", "batch_tokens": 64}
    return write_texts(tmp_path_factory.mktemp("data"), TEXTS), spec


def extract(inputs, out: Path, part: Part | None = None, **options) -> None:
    data, spec = inputs
    options = {**OPTIONS, **options}
    state = out.with_name(out.name + ".state")
    stage.extract(data, "tiny", spec, options, out, state, 42, part=part)


def extract_parts(inputs, out: Path, parts: int, **options) -> list[str]:
    """Extract every part and join them; return the names of the shards."""
    for number in range(1, parts + 1):
        extract(inputs, out / part_folder(number, parts), Part(number, parts), **options)
    names = sorted(path.name for path in (out / part_folder(1, parts)).glob("*.h5"))
    join_parts(out, parts, names)
    return names


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    extract(inputs, out)
    return out


@pytest.fixture(scope="module")
def three(inputs, tmp_path_factory) -> Path:
    """An extraction in three parts; not to be changed."""
    out = tmp_path_factory.mktemp("three") / "out"
    extract_parts(inputs, out, 3)
    return out


@pytest.fixture
def copied(three, tmp_path) -> Path:
    return Path(shutil.copytree(three, tmp_path / "copied"))


# Which rows a part has


@given(rows=st.integers(1, 200), block=st.integers(1, 30), parts=st.integers(1, 40))
def test_parts_are_whole_blocks_and_hold_every_row_once(rows, block, parts):
    ends = [Part(number, parts).rows(rows, block) for number in range(1, parts + 1)]
    assert [row for start, stop in ends for row in range(start, stop)] == list(range(rows))
    blocks = [-(-(stop - start) // block) for start, stop in ends]
    assert max(blocks) - min(blocks) <= 1
    assert all(start % block == 0 or start == rows for start, _ in ends)


def test_texts_before_a_part_are_not_read(tmp_path, monkeypatch):
    data = write_texts(tmp_path / "data", TEXTS, [text.upper() for text in TEXTS])
    table = pq.read_table(data / "texts.parquet")
    pq.write_table(table, data / "texts.parquet", row_group_size=10)
    for first in range(len(TEXTS)):
        ranges = [(start, min(start + 5, len(TEXTS))) for start in range(first, len(TEXTS), 5)]
        found = list(blocks_of_texts(data, True, ranges))
        assert [(start, stop) for start, stop, *_ in found] == ranges
        assert [text for *_, texts, _ in found for text in texts] == TEXTS[first:]
        assert [text.lower() for *_, pairs in found for text in pairs] == TEXTS[first:]
    read = []
    real = pq.ParquetFile.iter_batches

    def noted(self, **arguments):
        read.append(arguments["row_groups"])
        return real(self, **arguments)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", noted)
    list(blocks_of_texts(data, True, [(29, 43)]))
    list(blocks_of_texts(data, True, [(30, 43)]))
    assert read == [[2, 3, 4], [3, 4]]


def test_texts_that_are_damaged_or_too_few_are_one_line(tmp_path):
    data = write_texts(tmp_path, [f"{text} number {n}" for n, text in enumerate(TEXTS)])
    with pytest.raises(ProbelineError, match="43 rows, expected 50; delete the folder and run"):
        list(blocks_of_texts(data, False, [(0, 40), (40, 50)]))
    path = data / "texts.parquet"
    with pq.ParquetFile(path) as file:
        group = file.metadata.row_group(0)
        columns = [group.column(number) for number in range(group.num_columns)]
    (column,) = (column for column in columns if column.path_in_schema == "text")
    whole, place = path.read_bytes(), column.data_page_offset + column.total_compressed_size // 2
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
    with pytest.raises(ProbelineError, match=r"texts\.parquet: cannot be read: .*delete") as caught:
        list(blocks_of_texts(data, False, [(0, 43)]))
    assert "\n" not in str(caught.value)


# The same bits


@pytest.mark.parametrize(
    "parts, storage_dtype", [(1, "float16"), (2, "float16"), (3, "float32"), (5, "float16")]
)
def test_shards_are_bit_equal_whatever_the_number_of_parts(inputs, tmp_path, parts, storage_dtype):
    single, out = tmp_path / "single", tmp_path / "out"
    extract(inputs, single, storage_dtype=storage_dtype)
    names = extract_parts(inputs, out, parts, storage_dtype=storage_dtype)
    assert names == sorted(path.name for path in single.glob("*.h5"))
    for name in names:
        with open_shard(single / name) as one, open_shard(out / name) as joined:
            assert one.read().tobytes() == joined.read().tobytes()
            assert (one.rows, one.width) == (joined.rows, joined.width)
            files = joined.meta.pop("files")
            assert joined.meta | {"format": one.meta["format"]} == one.meta
        assert len(files) == parts
    assert (out / "tokens.json").read_bytes() == (single / "tokens.json").read_bytes()
    timing, expected = (json.loads((f / "timing.json").read_text()) for f in (out, single))
    for key in ("texts", "tokens", "blocks", "batches", "bytes", "resumed_blocks"):
        assert timing[key] == expected[key], key
    assert timing["parts"] == parts


@pytest.mark.parametrize("kind", ["gpt2", "flan-t5"])
def test_other_families_and_pairs_of_texts(kind, tmp_path):
    model = build(kind, tmp_path / "model")
    spec = {"path": str(model), "dtype": "float32", "device": "cpu", "batch_tokens": 64}
    data = write_texts(tmp_path / "data", SENTENCES * 3, PAIRS * 3)
    options = {"representations": ["hidden", *(["decoder-ffn"] if kind == "flan-t5" else [])]}
    extract((data, spec), tmp_path / "single", **options)
    names = extract_parts((data, spec), tmp_path / "out", 2, **options)
    for name in names:
        with (
            open_shard(tmp_path / "single" / name) as one,
            open_shard(tmp_path / "out" / name) as joined,
        ):
            assert one.read().tobytes() == joined.read().tobytes()


def test_more_parts_than_blocks_leave_some_empty(inputs, whole, tmp_path, caplog):
    names = extract_parts(inputs, tmp_path / "out", 9)
    for name in names:
        with open_shard(whole / name) as one, open_shard(tmp_path / "out" / name) as joined:
            assert one.read().tobytes() == joined.read().tobytes()
    empty = [record.message for record in caplog.records if "has no texts" in record.message]
    assert empty == [
        f"part {number} of 9 has no texts: 43 texts are 6 blocks; fewer parts will do"
        for number in (1, 4, 7)
    ]
    with open_part(tmp_path / "out" / part_folder(4, 9) / names[0]) as part:
        assert part.rows == 0 and part.read().shape == (0, part.width)


def test_a_part_says_which_rows_it_holds(three):
    metas = []
    for number in (1, 2, 3):
        with open_part(three / part_folder(number, 3) / SHARD) as part:
            metas.append(part.meta)
    assert [(meta["start"], meta["stop"]) for meta in metas] == [(0, 16), (16, 32), (32, 43)]
    for number, meta in enumerate(metas, start=1):
        assert (meta["part"], meta["parts"], meta["total_rows"]) == (number, 3, 43)
        assert meta["offsets"] == {"train": [0, 21], "validation": [21, 31], "test": [31, 43]}
        assert meta["row_hash"] == row_hash(meta["stop"] - meta["start"], meta["start"])
    assert len({meta["extraction"] for meta in metas}) == 3
    assert len({meta["whole"] for meta in metas}) == 1


def test_hash_of_many_rows_takes_no_memory_for_them(monkeypatch):
    from probeline.activations import shards

    expected = [row_hash(10_000), row_hash(400, 9_600)]
    row_hash.cache_clear()
    monkeypatch.setattr(shards, "_HASHED_ROWS", 7)
    assert [row_hash(10_000), row_hash(400, 9_600)] == expected
    row_hash.cache_clear()


# Reading


@given(data=st.data())
def test_any_rows_and_columns(data, three, whole):
    start = data.draw(st.integers(0, 43))
    stop = data.draw(st.integers(start, 43))
    columns = data.draw(st.none() | st.lists(st.integers(0, 15)))
    columns = None if columns is None else np.array(columns, dtype=np.int64)
    with open_shard(whole / SHARD) as one, open_shard(three / SHARD) as joined:
        expected = one.read(slice(start, stop), columns)
        np.testing.assert_array_equal(joined.read(slice(start, stop), columns), expected)


def test_columns_that_are_not_there(three):
    with open_shard(three / SHARD) as shard:
        with pytest.raises(ProbelineError, match=r"columns 0\.\.16 are asked for, it has 16"):
            shard.read(columns=np.array([16, 0]))
        with pytest.raises(ValueError, match="contiguous"):
            shard.read(slice(0, 10, 2))


def test_reading_goes_on_over_buffers_and_parts(three, whole, monkeypatch):
    from probeline.activations import shards

    with open_shard(whole / SHARD) as one:
        expected = one.read()
    monkeypatch.setattr(shards, "_READ_BYTES", 5 * 2 * expected.shape[1])
    with open_shard(three / SHARD) as joined:
        np.testing.assert_array_equal(joined.read(), expected)
        np.testing.assert_array_equal(joined.read(slice(13, 35)), expected[13:35])


def flip(path: Path, row: int) -> None:
    """Change one bit of the first value of a row of a file."""
    with h5py.File(path) as file:
        data = file["activations"]
        place = data.id.get_offset() + row * data.shape[1] * data.dtype.itemsize
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)


def test_rows_of_a_part_are_compared_with_its_checksums(copied, whole):
    path = copied / part_folder(2, 3) / SHARD
    flip(path, 9)
    words = rf"part-2-of-3/{SHARD}: damaged: rows 8 to 15 are not what was written"
    with open_shard(copied / SHARD) as joined, open_shard(whole / SHARD) as one:
        for rows in (slice(0, 16), slice(32, 43)):
            np.testing.assert_array_equal(joined.read(rows), one.read(rows))
        with pytest.raises(ProbelineError, match=words):
            joined.read(slice(30, 40), np.array([3]))
        with pytest.raises(ProbelineError, match=words):
            joined.check()


def test_checking_counts_the_rows_of_all_parts(three):
    rows = []
    with open_shard(three / SHARD) as shard:
        shard.check(rows.append)
    assert sum(rows) == 43


def test_each_block_is_compared_once(three, monkeypatch):
    seen = []
    compare = Shard._compare

    def counted(shard, blocks, part):
        seen.append((shard.path.parent.name, blocks.start, blocks.stop))
        compare(shard, blocks, part)

    monkeypatch.setattr(Shard, "_compare", counted)
    monkeypatch.setattr("probeline.activations.shards._READ_BYTES", BLOCK)
    with open_shard(three / SHARD) as shard:
        for start, stop in ((30, 43), (0, 43), (3, 20), (5, 5)):
            shard.read(slice(start, stop))
    found = [(name, block) for name, start, stop in seen for block in range(start, stop)]
    assert sorted(found) == [(part_folder(n, 3), block) for n in (1, 2, 3) for block in (0, 1)]


def test_few_files_are_open_at_a_time(three):
    handles = Path("/proc/self/fd")
    if not handles.is_dir():
        pytest.skip("counts open files in /proc, which this system does not have")
    before = len(list(handles.iterdir()))
    with open_shard(three / SHARD) as shard:
        shard.read()
        assert len(list(handles.iterdir())) - before <= 1
    assert len(list(handles.iterdir())) == before


def test_only_the_parts_that_are_asked_for_are_read(three, monkeypatch):
    opened = []
    real = parts_module.open_part
    with open_shard(three / SHARD) as shard:
        monkeypatch.setattr(
            parts_module, "open_part", lambda path, own: opened.append(path) or real(path, own)
        )
        shard.read(slice(17, 30))
        shard.read(slice(20, 22))
    assert opened == [three / part_folder(2, 3) / SHARD]


# Moved folders, links


def test_a_moved_folder_is_read_where_it_lies(copied, whole, tmp_path):
    copied.rename(tmp_path / "moved")
    same_values(tmp_path / "moved", whole)


def same_values(folder: Path, whole: Path) -> None:
    with open_shard(folder / SHARD) as joined, open_shard(whole / SHARD) as one:
        np.testing.assert_array_equal(joined.read(), one.read())


def test_parts_may_be_links_as_those_of_a_shared_cache(copied, whole, tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    for path in copied.rglob("part-*/*.h5"):
        target = cache / f"{path.parent.name}{path.name}"
        path.rename(target)
        path.symlink_to(target)
    same_values(copied, whole)


def test_a_link_to_the_index_is_read_with_the_parts_beside_the_link(copied, whole, tmp_path):
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / SHARD).symlink_to(copied / SHARD)
    with pytest.raises(ProbelineError, match="part 1 of 3 of this shard is missing"):
        open_shard(linked / SHARD)
    for number in (1, 2, 3):
        (linked / part_folder(number, 3)).symlink_to(copied / part_folder(number, 3))
    same_values(linked, whole)
    # The whole folder by a link.
    (tmp_path / "folder").symlink_to(copied)
    same_values(tmp_path / "folder", whole)


def test_the_files_of_a_shard(three, whole):
    assert part_files(whole / SHARD) == [whole / SHARD]
    expected = [three / part_folder(number, 3) / SHARD for number in (1, 2, 3)]
    assert part_files(three / SHARD) == [three / SHARD, *expected]


# What is refused


def attribute(path: Path, **values) -> None:
    """Change a file as one that was written so, seal and all."""
    checked_but = check_seal(path, "a file", "")
    with h5py.File(path, "r+") as file:
        for name, value in values.items():
            file.attrs[name] = value
    seal(path, *checked_but)


def refused(folder: Path, words: str) -> None:
    """Both by whoever reads and by the job that joins, in one line each."""
    for call in (
        lambda: open_shard(folder / SHARD),
        lambda: write_index(folder / SHARD, [f"{part_folder(n, 3)}/{SHARD}" for n in (1, 2, 3)]),
    ):
        with pytest.raises(ProbelineError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_a_part_that_is_missing(copied):
    (copied / part_folder(2, 3) / SHARD).unlink()
    refused(copied, rf"part-2-of-3/{SHARD}: part 2 of 3 of this shard is missing; run the same")


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_part_that_is_cut_off(copied, share):
    path = copied / part_folder(2, 3) / SHARD
    os.truncate(path, int(share * path.stat().st_size))
    refused(copied, rf"part-2-of-3/{SHARD}: .*delete it and run")


def test_a_part_that_is_not_finished(copied):
    attribute(copied / part_folder(3, 3) / SHARD, complete=False)
    refused(copied, rf"part-3-of-3/{SHARD}: incomplete")


def test_a_part_in_the_place_of_another(copied):
    folders = [copied / part_folder(number, 3) for number in (1, 2)]
    shutil.copyfile(folders[0] / SHARD, folders[1] / SHARD)
    refused(copied, rf"part-2-of-3/{SHARD}: .*its part is '1', expected '2'")


def test_a_part_of_another_number_of_parts(copied, inputs, tmp_path):
    extract(inputs, tmp_path / "second", Part(2, 4))
    shutil.copyfile(tmp_path / "second" / SHARD, copied / part_folder(2, 3) / SHARD)
    refused(copied, rf"part-2-of-3/{SHARD}: .*its parts is '4', expected '3'")


def test_parts_that_overlap(copied):
    attribute(copied / part_folder(2, 3) / SHARD, start=8)
    refused(copied, rf"part-2-of-3/{SHARD}: .*its start is '8', expected '16'")


def test_parts_that_do_not_reach_the_end(copied):
    attribute(copied / part_folder(3, 3) / SHARD, stop=40)
    with pytest.raises(ProbelineError, match="its stop is '40', expected '43'"):
        open_shard(copied / SHARD)
    names = [f"{part_folder(n, 3)}/{SHARD}" for n in (1, 2, 3)]
    with pytest.raises(ProbelineError, match="the last part ends at row 40 of 43"):
        write_index(copied / SHARD, names)


def test_a_part_of_another_dataset(copied, inputs, tmp_path):
    others = write_texts(tmp_path / "others", [text + " film" for text in TEXTS])
    extract((others, inputs[1]), tmp_path / "second", Part(2, 3))
    shutil.copyfile(tmp_path / "second" / SHARD, copied / part_folder(2, 3) / SHARD)
    refused(copied, "its dataset_fingerprint is '.*'; delete the one that is wrong")


def test_a_part_of_another_model(copied, inputs, tmp_path):
    spec = inputs[1] | {"path": str(build("bert", tmp_path / "model"))}
    extract((inputs[0], spec), tmp_path / "second", Part(2, 3))
    shutil.copyfile(tmp_path / "second" / SHARD, copied / part_folder(2, 3) / SHARD)
    refused(copied, f"its model is '{tmp_path}/model', that of")


@pytest.mark.parametrize("change", [{"dtype": "bfloat16"}, {"max_length": 9}, {"batch_tokens": 99}])
def test_a_part_made_with_other_settings(copied, inputs, tmp_path, change):
    extract((inputs[0], inputs[1] | change), tmp_path / "second", Part(2, 3))
    shutil.copyfile(tmp_path / "second" / SHARD, copied / part_folder(2, 3) / SHARD)
    (key,) = change
    words = {"batch_tokens": "made with other settings than .* .batch_tokens"}
    refused(copied, words.get(key, f"its {key} is '{change[key]}', that of"))


def test_another_layer_in_the_place_of_a_part(copied):
    folder = copied / part_folder(2, 3)
    shutil.copyfile(folder / "hidden.mean.01.h5", folder / SHARD)
    refused(copied, "its layer is '1', that of")


def test_the_shard_is_about_what_is_expected(three):
    with open_shard(three / SHARD, {"dataset": "tiny", "layer": 2}):
        pass
    with pytest.raises(ProbelineError, match="its layer is '2', expected '3'"):
        open_shard(three / SHARD, {"layer": 3})


def test_a_part_by_itself_is_no_shard(three):
    path = three / part_folder(2, 3) / SHARD
    with pytest.raises(ProbelineError, match=rf"part 2 of 3 of a shard; open .*out/{SHARD}$"):
        open_shard(path)


def test_neither_a_shard_nor_an_index_is_a_part(three, whole):
    for folder in (three, whole):
        with pytest.raises(ProbelineError, match="not a part of a shard"):
            open_part(folder / SHARD)


@pytest.mark.parametrize("name", ["../out/part-1-of-3/x.h5", "/etc/passwd"])
def test_an_index_names_files_beside_it_only(copied, name):
    files = [{"name": name, "start": 0, "stop": 43}]
    attribute(copied / SHARD, files=json.dumps(files))
    with pytest.raises(ProbelineError, match="names a part outside its folder"):
        open_shard(copied / SHARD)


def test_an_index_with_a_gap(copied):
    names = [f"{part_folder(n, 3)}/{SHARD}" for n in (1, 2, 3)]
    rows = [(0, 16), (17, 32), (32, 43)]
    files = [{"name": n, "start": a, "stop": b} for n, (a, b) in zip(names, rows, strict=True)]
    attribute(copied / SHARD, files=json.dumps(files))
    with pytest.raises(ProbelineError, match="begins at row 17, expected 16"):
        open_shard(copied / SHARD)
    attribute(copied / SHARD, files=json.dumps(files[:1]))
    with pytest.raises(ProbelineError, match="its parts hold 16 of 43 rows"):
        open_shard(copied / SHARD)


def test_a_part_that_is_replaced_while_it_is_read(copied):
    with open_shard(copied / SHARD) as shard:
        shutil.copyfile(copied / part_folder(1, 3) / SHARD, copied / part_folder(2, 3) / SHARD)
        with pytest.raises(ProbelineError, match="its part is '1', expected '2'"):
            shard.read()


@pytest.mark.parametrize(
    "damage", ["missing", "short", "pickle", "text", "floats", "table", "archive"]
)
def test_token_counts_of_a_part_that_are_not_whole(copied, damage):
    path = copied / part_folder(2, 3) / LENGTHS
    if damage == "missing":
        path.unlink()
    elif damage == "short":
        np.save(path, np.zeros(3, np.int32))
    elif damage == "pickle":
        np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    elif damage in ("floats", "table"):
        found = np.load(path)
        np.save(path, found.astype(float) if damage == "floats" else found[:, None])
    elif damage == "archive":
        with path.open("wb") as handle:
            np.savez(handle, np.load(copied / part_folder(1, 3) / LENGTHS))
    else:
        path.write_text("hello")
    with pytest.raises(ProbelineError, match=r"lengths\.npy") as caught:
        join_parts(copied, 3, [SHARD])
    assert "run the same command again" in str(caught.value)


@pytest.mark.parametrize("timing", [None, "tokens", "many", "list"])
def test_timings_of_a_part_that_are_not_whole(copied, timing):
    path = copied / part_folder(2, 3) / "timing.json"
    found = json.loads(path.read_text())
    if timing == "tokens":
        del found["tokens"]
    else:
        found = {None: {}, "many": found | {"seconds": "many"}, "list": [1, 2]}[timing]
    path.write_text(json.dumps(found))
    with pytest.raises(ProbelineError, match=r"part-2-of-3/timing\.json: '.*' is missing or no"):
        join_parts(copied, 3, [SHARD])


# Taken up again


def test_an_interrupted_part_goes_on(inputs, three, tmp_path, monkeypatch):
    out = tmp_path / part_folder(3, 3)
    real = stage.State.save
    calls = []

    def stopping(self, *arguments):
        if calls:
            raise KeyboardInterrupt
        calls.append(1)
        real(self, *arguments)

    monkeypatch.setattr(stage.State, "save", stopping)
    with pytest.raises(KeyboardInterrupt):
        extract(inputs, out, Part(3, 3))
    monkeypatch.undo()
    assert not out.exists()
    extract(inputs, out, Part(3, 3))
    assert json.loads((out / "timing.json").read_text())["resumed_blocks"] == 1
    for path in (three / part_folder(3, 3)).glob("*.h5"):
        assert (out / path.name).read_bytes() == path.read_bytes()
    # A state of another part is not gone on with.
    monkeypatch.setattr(stage.State, "save", stopping)
    calls.clear()
    other = tmp_path / "other"
    with pytest.raises(KeyboardInterrupt):
        extract(inputs, other, Part(1, 3))
    monkeypatch.undo()
    extract(inputs, other, Part(2, 3))
    assert json.loads((other / "timing.json").read_text())["resumed_blocks"] == 0


def test_interrupted_while_finished_parts_are_moved(inputs, three, tmp_path):
    out = tmp_path / part_folder(2, 3)
    out.mkdir()
    (out / "hidden.max.02.h5").mkdir()
    with pytest.raises(OSError):
        extract(inputs, out, Part(2, 3))
    moved = {path.name for path in out.glob("*.h5") if path.is_file()}
    assert 0 < len(moved) < len(list(three.glob("*.h5")))
    (out / "hidden.max.02.h5").rmdir()
    extract(inputs, out, Part(2, 3))
    assert json.loads((out / "timing.json").read_text())["resumed_blocks"] == 2
    for path in (three / part_folder(2, 3)).glob("*.h5"):
        assert (out / path.name).read_bytes() == path.read_bytes()


def test_the_jobs_of_one_extraction_keep_their_states_apart(inputs, tmp_path, monkeypatch):
    data, spec = inputs
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("probeline.workflow.extract.offline_spec", lambda spec, *_: spec)
    settings = {"model": "tiny", "spec": spec, "options": OPTIONS, "seed": 0}
    states = []

    def noted(*arguments, part=None, **_):
        states.append((str(arguments[5]), part))

    monkeypatch.setattr(stage, "extract", noted)
    folder = Path("results/activations/data/tiny")
    run_extract(data, folder, None, 1, [SHARD], settings)
    for number in (1, 2):
        own = folder / part_folder(number, 2)
        run_extract(data, own, None, 1, [SHARD], settings | {"part": [number, 2]})
    assert states == [
        (".probeline/extract/data/tiny", None),
        (".probeline/extract/data/tiny.part-1-of-2", Part(1, 2)),
        (".probeline/extract/data/tiny.part-2-of-2", Part(2, 2)),
    ]
