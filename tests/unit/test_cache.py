"""The shared cache: what lies in it, who uses it, and what may go."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import h5py
import pytest
from shared_caches import (
    DAY,
    key,
    project,
    store_embedding,
    store_labels,
    store_shards,
    store_texts,
)

from probeline.cache import uses
from probeline.cache.entries import read_entries, unfinished
from probeline.cache.location import cache_folder
from probeline.cache.origin import Origin, origin
from probeline.cache.words import age_text, parse_age, parse_size, size_text
from probeline.errors import ProbelineError
from probeline.sealed import seal


@pytest.fixture
def cache(tmp_path) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    return folder


# Words


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("12h", 43200), ("30d", 2592000), ("2w", 1209600), ("1.5d", 129600), (" 3 d ", 259200)],
)
def test_ages(text, seconds):
    assert parse_age(text, "--older-than") == seconds


@pytest.mark.parametrize("text", ["", "30", "d", "-3d", "3y", "1e3d", "30 day", "\u0663d", "nan d"])
def test_what_is_no_age_is_named(text):
    with pytest.raises(ProbelineError, match=r"--older-than: '.*' is no age; expected a number"):
        parse_age(text, "--older-than")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("50GB", 50 * 10**9),
        ("1.5tb", 15 * 10**11),
        ("200 MiB", 200 * 2**20),
        ("3B", 3),
        ("2KiB", 2048),
    ],
)
def test_sizes(text, size):
    assert parse_size(text, "--keep") == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "5PB", "5 0GB", "5G", "inf", "1,5GB"])
def test_what_is_no_size_is_named(text):
    with pytest.raises(ProbelineError, match=r"--keep: '.*' is no size; expected a number"):
        parse_size(text, "--keep")


def test_ages_and_sizes_are_shown_in_one_unit():
    assert [age_text(s) for s in (-1, 59, 60, 7200, 3 * DAY)] == ["0s", "59s", "1min", "2h", "3d"]
    shown = [size_text(size) for size in (0, 999, 1000, 5 * 10**8, 10**13)]
    assert shown == ["0 B", "999 B", "1.0 KB", "500.0 MB", "10.0 TB"]


# Where it lies


def test_the_folder_is_the_one_given_or_the_one_of_the_environment(cache, monkeypatch):
    monkeypatch.setenv("SNAKEMAKE_OUTPUT_CACHE", str(cache))
    assert cache_folder() == cache
    assert cache_folder(cache.parent) == cache.parent


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (None, "is not set, so there is no shared cache"),
        ("", "is not set, so there is no shared cache"),
        ("some/cache", "'some/cache' is no full path; begin it with /"),
        ("/no/such/place", "/no/such/place: no such folder; make it first"),
        (__file__, "no such folder; make it first"),
    ],
)
def test_a_folder_that_cannot_be_the_cache_is_refused(monkeypatch, value, problem):
    monkeypatch.delenv("SNAKEMAKE_OUTPUT_CACHE", raising=False)
    if value is not None:
        monkeypatch.setenv("SNAKEMAKE_OUTPUT_CACHE", value)
    with pytest.raises(ProbelineError) as error:
        cache_folder()
    assert "SNAKEMAKE_OUTPUT_CACHE" in str(error.value) and problem in str(error.value)


# Entries


def test_files_of_one_job_are_one_entry(cache):
    store_texts(cache, "aa", days=3, size=50)
    store_shards(cache, "bb")
    store_embedding(cache, "cc")
    (cache / "README").write_text("not an entry")
    (cache / "tmpab12_x9z").mkdir()
    found = read_entries(cache)
    assert [entry.key for entry in found] == [key("aa"), key("bb"), key("cc")]
    texts, shards, tuned = found
    assert sorted(texts.parts) == ["_manifest.json", "_texts.parquet"]
    assert texts.size == 50 + len(json.dumps({"name": "notes", "rows": 7}))
    assert time.time() - texts.made == pytest.approx(3 * DAY, abs=60)
    assert time.time() - texts.stored < 60
    assert shards.size == sum(path.stat().st_size for path in shards.parts.values())
    inside = [path for path in (cache / f"{key('cc')}_folder").rglob("*") if path.is_file()]
    beside = cache / f"{key('cc')}_identity.json"
    assert tuned.size == sum(path.stat().st_size for path in [*inside, beside])
    assert unfinished(cache) == [cache / "tmpab12_x9z"]


def test_entries_say_what_they_are(cache):
    store_texts(cache, "a")
    store_labels(cache, "b")
    store_shards(cache, "c", revision="0123456789" * 4)
    store_shards(cache, "d", "plain")
    store_shards(cache, "e", "large", part=2, parts=3, start=14)
    store_embedding(cache, "f")
    (cache / f"{key('ff')}.bam").write_text("of another workflow")
    assert [origin(entry) for entry in read_entries(cache)] == [
        Origin("texts", "notes", "", "7 texts"),
        Origin("dataset", "notes", "", "7 texts, coarse, fine"),
        Origin("extract", "notes", "tiny", "org/tiny at 0123456, 7 texts, 24 tokens, float32"),
        Origin("extract", "notes", "plain", "org/plain, 7 texts, 24 tokens, float32"),
        Origin("extract", "notes", "large", "org/large, 7 texts, 24 tokens, float32, part 2 of 3"),
        Origin("embed", "notes", "", "label, seed 3, from small"),
        Origin(""),
    ]


def test_a_damaged_entry_is_listed_as_such(cache):
    shard = store_shards(cache, "a")[0]
    shard.write_bytes(shard.read_bytes()[:100])
    store_texts(cache, "b")
    (cache / f"{key('b')}_manifest.json").write_text("{")
    store_labels(cache, "c")
    (cache / f"{key('c')}_manifest.json").write_text("{}")
    (store_embedding(cache, "d") / "embedding.json").write_text("")
    found = [origin(entry) for entry in read_entries(cache)]
    assert [of.rule for of in found] == ["extract", "texts", "dataset", "embed"]
    assert all(of.detail.startswith("cannot be read (") for of in found)
    assert all("\n" not in of.detail for of in found)


@pytest.mark.parametrize(
    "names",
    [
        ["_folder"],
        ["_folder", "_identity.json"],
        ["_texts.parquet"],
        ["_labels.parquet", "_scores.csv"],
        ["_manifest.json"],
        ["matrix.h5"],
        ["hidden.mean.00.h5", "counts.csv"],
        ["tokens.json", "timing.json"],
        [""],
    ],
)
def test_entries_with_names_like_ours_are_of_other_workflows(cache, names):
    for name in names:
        path = cache / f"{key('a')}{name}"
        path.mkdir() if name == "_folder" else path.write_text("of another workflow")
    assert [origin(entry) for entry in read_entries(cache)] == [Origin("")]


@pytest.mark.parametrize("damage", ["flipped", "of many values", "without a seal"])
def test_a_shard_of_others_is_read_as_any_other(cache, damage):
    shard = store_shards(cache, "a")[0]
    if damage == "flipped":
        whole = shard.read_bytes()
        shard.write_bytes(whole[:700] + bytes([whole[700] ^ 4]) + whole[701:])
        expected = "cannot be read (ProbelineError: not a whole shard: damaged"
    elif damage == "of many values":
        with h5py.File(shard, "r+") as file:
            file.attrs["model"] = ["x" * 1000] * 9
        seal(shard)
        expected = "cannot be read (ProbelineError: not a whole shard (attribute 'model' is not one"
    else:
        with h5py.File(shard) as file, h5py.File(cache / "old.h5", "w") as old:
            old.attrs.update(file.attrs)
        (cache / "old.h5").replace(shard)
        expected = "org/tiny, 7 texts, 24 tokens, float32"
    (found,) = (origin(entry) for entry in read_entries(cache))
    assert found.detail.startswith(expected)


# Who uses it


def test_links_count_wherever_the_cache_is_mounted(cache, tmp_path):
    texts, (shard, *_) = store_texts(cache, "a"), store_shards(cache, "b")
    tuned = store_embedding(cache, "c")
    elsewhere = Path("/mnt/of/another/host") / texts.name
    folder = project(tmp_path / "one", elsewhere, shard, tuned)
    # What Snakemake makes of a folder that it has from the cache.
    inside = folder / "results" / "lrsl" / "1"
    inside.mkdir(parents=True)
    other = key("d") + "_folder"
    (inside / "config.json").symlink_to(cache / other / "config.json")
    (folder / "results" / "notes.csv").symlink_to("/etc/hostname")
    assert uses.linked(folder) == {
        key("a"): "results/datasets/notes",
        key("b"): "results/datasets/notes",
        key("c"): "results/datasets/notes",
        key("d"): "results/lrsl/1",
    }
    assert uses.linked(tmp_path / "nowhere") == {}


def test_what_a_folder_had_stays_while_it_cannot_be_looked_at(cache, tmp_path):
    folder = project(tmp_path / "one", store_texts(cache, "a"))
    use = uses.record(cache, folder)
    assert uses.recorded(cache) == [use]
    assert (use.folder, use.entries) == (folder, {key("a"): "results/datasets/notes"})
    found = uses.in_use(uses.recorded(cache))
    assert (found.links, found.unseen) == ({key("a"): [folder]}, [])
    folder.rename(tmp_path / "moved")
    found = uses.in_use(uses.recorded(cache))
    assert (found.links, found.unseen) == ({key("a"): [folder]}, [use])
    uses.forget(cache, folder)
    assert uses.in_use(uses.recorded(cache)).links == {}
    assert uses.in_use([], [tmp_path / "moved"]).links == {key("a"): [tmp_path / "moved"]}


def test_a_folder_at_the_same_path_is_not_the_same(cache, tmp_path):
    """As on two machines with a disk of their own, and a cache that both have."""
    folder = project(tmp_path / "one", store_texts(cache, "a"))
    here = uses.record(cache, folder)
    folder.rename(tmp_path / "of another machine")
    project(folder, store_texts(cache, "b"))
    # Before any run of it, and after.
    links = {key("a"): [folder]}
    assert uses.in_use(uses.recorded(cache)) == uses.InUse(links, [here])
    there = uses.record(cache, folder)
    found = uses.in_use(uses.recorded(cache))
    assert found == uses.InUse(links | {key("b"): [folder]}, [here])
    assert uses.record(cache, folder).id == there.id != here.id
    assert len(uses.recorded(cache)) == 2
    # Forgotten is the one that is not here; then the other.
    uses.forget(cache, folder)
    assert [use.id for use in uses.recorded(cache)] == [there.id]
    uses.forget(cache, folder)
    assert uses.recorded(cache) == []


def test_a_copy_of_a_folder_is_known_for_itself(cache, tmp_path):
    folder = project(tmp_path / "one", store_texts(cache, "a"))
    uses.record(cache, folder)
    copy = Path(shutil.copytree(folder, tmp_path / "two", symlinks=True))
    uses.record(cache, copy)
    found = uses.in_use(uses.recorded(cache))
    assert found.unseen == [] and list(found.links) == [key("a")]
    assert set(found.links[key("a")]) == {folder, copy}


def test_links_count_where_results_lie_on_another_disk(cache, tmp_path):
    texts, labels = store_texts(cache, "a"), store_labels(cache, "b")
    tuned = store_embedding(cache, "c")
    folder = project(tmp_path / "one", texts, tuned)
    scratch = project(tmp_path / "scratch", labels)
    (folder / "results" / "activations").symlink_to(scratch / "results" / "datasets")
    # Round and round, and into an entry with a link of its own.
    (scratch / "results" / "datasets" / "back").symlink_to(folder / "results")
    (tuned / "inside").symlink_to(cache / f"{key('d')}_texts.parquet")
    expected = {
        key("a"): "results/datasets/notes",
        key("b"): "results/activations/notes",
        key("c"): "results/datasets/notes",
    }
    assert uses.linked(folder) == uses.linked(folder, strict=True) == expected
    labels.unlink()
    assert uses.broken(folder) == [folder / "results/activations/notes" / f"0-{labels.name[-20:]}"]


@pytest.mark.parametrize("name", ["results", "results/datasets", "results/datasets/notes"])
def test_a_disk_that_is_not_here_is_none_without_links(cache, tmp_path, name):
    texts = store_texts(cache, "a")
    folder = project(tmp_path / "one", texts)
    scratch = tmp_path / "scratch"
    (folder / name).rename(scratch)
    (folder / name).symlink_to(scratch)
    use = uses.record(cache, folder)
    links = {key("a"): [folder]}
    assert uses.in_use([use]) == uses.InUse(links, [])
    scratch.rename(tmp_path / "unmounted")
    assert uses.in_use([use]) == uses.InUse(links, [use])
    with pytest.raises(ProbelineError, match=rf"--used-by: .*/{name} leads to what is not there"):
        uses.in_use([], [folder])
    # Of a link to an entry that is gone it is known what it was for.
    (folder / name).unlink()
    project(tmp_path / "two", texts)
    texts.unlink()
    assert list(uses.linked(tmp_path / "two", strict=True)) == [key("a")]


def test_a_folder_that_has_let_go_uses_nothing(cache, tmp_path):
    folder = project(tmp_path / "one", store_texts(cache, "a"))
    uses.record(cache, folder)
    shutil.rmtree(folder / "results")
    assert uses.in_use(uses.recorded(cache)).links == {}


def test_what_is_not_known_is_an_error(cache, tmp_path):
    with pytest.raises(ProbelineError, match=r"--forget: .*/two: the cache knows no such folder"):
        uses.forget(cache, tmp_path / "two")
    with pytest.raises(ProbelineError, match=r"--used-by: .*/two: cannot be read: No such file"):
        uses.in_use([], [tmp_path / "two"])
    uses.record(cache, tmp_path)
    (path,) = (cache / ".probeline" / "folders").iterdir()
    for text in ("{", "[]", "{}", '{"folder": 3}'):
        path.write_text(text)
        with pytest.raises(ProbelineError, match="cannot be read, so it is not known what that"):
            uses.recorded(cache)


def test_what_probeline_keeps_is_open_to_whom_the_cache_is(cache, tmp_path):
    cache.chmod(0o2770)
    uses.record(cache, tmp_path)
    kept = cache / ".probeline" / "folders"
    for folder in (kept.parent, kept):
        assert oct(folder.stat().st_mode & 0o7777) == "0o2770"
    (path,) = kept.iterdir()
    assert oct(path.stat().st_mode & 0o777) == "0o644"


def test_broken_links_are_found_and_removed(cache, tmp_path):
    texts, labels = store_texts(cache, "a"), store_labels(cache, "b")
    folder = project(tmp_path / "one", texts, labels)
    (folder / "results" / "datasets" / "own").symlink_to("/no/such/file")
    assert uses.broken(folder) == []
    texts.unlink()
    (link,) = uses.broken(folder)
    assert link.readlink() == texts
    assert uses.unlink_broken(folder) == 1
    assert not link.is_symlink() and len(uses.linked(folder)) == 1
    with pytest.raises(ProbelineError, match=r"--unlink: .*/two: no such folder"):
        uses.unlink_broken(tmp_path / "two")
