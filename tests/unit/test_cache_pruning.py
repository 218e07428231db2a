"""What may go from a shared cache, and how it goes while others work."""

from __future__ import annotations

import io
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from shared_caches import (
    DAY,
    key,
    project,
    store_embedding,
    store_shards,
    store_texts,
)

from probeline.cache import pruning, show, uses
from probeline.cache.entries import Entry, read_entries
from probeline.errors import ProbelineError


@pytest.fixture
def cache(tmp_path) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    return folder


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 50), st.booleans(), st.booleans()), max_size=9
    ),
    st.none() | st.integers(0, 50),
    st.none() | st.integers(0, 40),
)
def test_the_least_recently_used_go_first_and_nothing_that_is_used(cells, older_than, keep):
    """Against the definition: every entry is looked at for itself."""
    now = 10 * pruning.SETTLED
    entries = [
        Entry(key(f"{n:x}f"), {}, size, 0.0, float(now if young else 0), "me")
        for n, (size, _, _, young) in enumerate(cells)
    ]
    ages = {entry.key: age for entry, (_, age, _, _) in zip(entries, cells, strict=True)}
    links = {e.key for e, (_, _, linked, _) in zip(entries, cells, strict=True) if linked}
    young = {e.key for e, (*_, fresh) in zip(entries, cells, strict=True) if fresh}
    used = {name: now - age for name, age in ages.items()}
    choice = pruning.choose(entries, used, links, now, older_than, keep)
    gone = {entry.key for entry in choice.entries}
    assert not gone & (links | young)
    free = [entry for entry in entries if entry.key not in links | young]
    old = {e.key for e in free if older_than is not None and ages[e.key] > older_than}
    assert old <= gone
    left = sum(entry.size for entry in entries if entry.key not in gone)
    stay = [entry for entry in free if entry.key not in gone]
    if keep is None:
        assert gone == old and choice.short == 0
    else:
        assert choice.short == max(0, left - keep)
        assert not (choice.short and stay)
        more = [entry for entry in choice.entries if entry.key not in old]
        # None went without need, and none that was used later than one that stays.
        if more:
            assert left + more[-1].size > keep
        assert all(ages[a.key] >= ages[b.key] for a in more for b in stay)
    assert choice.young == len(young - links)


def test_what_is_chosen_is_removed_whole(cache):
    store_shards(cache, "a")
    store_embedding(cache, "b")
    kept = store_texts(cache, "c")
    leftover = cache / "tmpabcdefgh"
    leftover.mkdir()
    (leftover / f"{key('d')}_texts.parquet").write_text("half")
    gone, refused = pruning.remove(
        cache, read_entries(cache)[:2], [leftover], lambda: uses.in_use([])
    )
    assert (gone, refused) == ([key("a"), key("b")], [])
    assert {path.name for path in cache.iterdir()} == {
        ".probeline",
        kept.name,
        f"{key('c')}_manifest.json",
    }
    assert not list((cache / ".probeline" / "removed").iterdir())


def test_what_a_run_begins_to_use_meanwhile_is_put_back(cache, tmp_path):
    texts, shards = store_texts(cache, "a"), store_shards(cache, "b")
    before = {path.name: path.read_bytes() for path in [texts, *shards]}

    def look():
        """A run has just linked what was there a moment ago."""
        return uses.in_use([], [project(tmp_path / "one", texts)])

    gone, refused = pruning.remove(cache, read_entries(cache), [], look)
    assert (gone, refused) == ([key("b")], [])
    assert texts.read_bytes() == before[texts.name]
    assert [entry.key for entry in read_entries(cache)] == [key("a")]


def test_a_kill_amid_removing_loses_nothing(cache, tmp_path):
    texts, shards = store_texts(cache, "a"), store_shards(cache, "b")

    def killed():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pruning.remove(cache, read_entries(cache), [], killed)
    assert read_entries(cache) == []
    folder = project(tmp_path / "one", texts)
    gone, _ = pruning.remove(cache, [], [], lambda: uses.in_use([], [folder]))
    assert gone == [key("b")]
    assert texts.is_file() and not shards[0].exists()
    assert not list((cache / ".probeline" / "removed").iterdir())


def test_what_was_made_anew_meanwhile_is_not_overwritten(cache, tmp_path):
    texts = store_texts(cache, "a")

    def look():
        texts.write_text("anew")
        return uses.in_use([], [project(tmp_path / "one", texts)])

    pruning.remove(cache, read_entries(cache), [], look)
    assert texts.read_text() == "anew"
    assert not list((cache / ".probeline" / "removed").iterdir())


@pytest.mark.parametrize("name", ["_manifest.json", "_texts.parquet"])
def test_what_cannot_be_removed_is_named_and_stays_whole(cache, name):
    store_texts(cache, "a")
    (before,) = read_entries(cache)
    blocked = cache / ".probeline" / "removed" / f"{key('a')}{name}" / "in the way"
    blocked.mkdir(parents=True)
    _, refused = pruning.remove(cache, read_entries(cache), [], lambda: uses.in_use([]))
    (line,) = refused
    assert f"{key('a')}{name}: of " in line and "cannot be removed: " in line
    assert set(before.parts) == {"_manifest.json", "_texts.parquet"}
    assert all(path.is_file() for path in before.parts.values())


def test_two_do_not_remove_at_once(cache):
    store_texts(cache, "a")

    def look():
        with pytest.raises(ProbelineError, match="another `probeline cache` removes entries"):
            pruning.remove(cache, [], [], look)
        return uses.in_use([])

    assert pruning.remove(cache, read_entries(cache), [], look)[0] == [key("a")]


def test_leftovers_are_those_of_a_day_ago(cache):
    (cache / "tmpabcdefgh").mkdir()
    assert pruning.leftovers(cache, time.time()) == []
    assert pruning.leftovers(cache, time.time() + 2 * DAY) == [cache / "tmpabcdefgh"]


def test_leftovers_hold_entries_and_nothing_else(cache):
    """Others' folders can have such names, in a cache that is shared."""
    half, mixed, linked = cache / "tmp11111111", cache / "tmp22222222", cache / "tmp33333333"
    for folder in (half, mixed):
        (folder / f"{key('a')}_folder").mkdir(parents=True)
    (mixed / "thesis.txt").write_text("of somebody")
    linked.symlink_to(half)
    (cache / "tmp44444444").write_text("of somebody")
    later = time.time() + 2 * DAY
    assert pruning.leftovers(cache, later) == [half]
    assert pruning.remove(cache, [], [half], lambda: uses.in_use([])) == ([], [])
    assert not half.exists()
    # Something has come into it since it was looked at.
    _, (line,) = pruning.remove(cache, [], [mixed], lambda: uses.in_use([]))
    assert line == f"{mixed}: cannot be removed: Directory not empty"
    assert (mixed / "thesis.txt").is_file()


# All of it together


def told(cache: Path, *options) -> list[str]:
    """What pruning prints."""
    printed = io.StringIO()
    show.prune(cache, show.read_contents(cache), Console(file=printed, width=60), *options)
    return printed.getvalue().splitlines()


@pytest.fixture
def later(monkeypatch):
    """Two hours pass: what was just stored is no longer on its way to anybody."""
    now = time.time() + 2 * pruning.SETTLED
    monkeypatch.setattr(show.time, "time", lambda: now)


def test_the_last_use_is_what_counts(cache, tmp_path, later):
    store_texts(cache, "aaaa", "old", days=40, size=1000)
    store_texts(cache, "bbbb", "older", days=90, size=1000)
    # A run had it, and has it no more.
    folder = project(tmp_path / "one", cache / f"{key('bbbb')}_texts.parquet")
    uses.record(cache, folder)
    shutil.rmtree(folder / "results")
    assert told(cache, 30 * DAY, None, True) == [
        "aaaa0000  texts old, 1.0 KB, last used 40d ago",
        "1 entry would be removed, 1.0 KB",
    ]
    assert len(read_entries(cache)) == 2
    assert told(cache, 30 * DAY, None, False)[-1] == "1 entry removed, 1.0 KB"
    assert [entry.key for entry in read_entries(cache)] == [key("bbbb")]


def test_what_is_in_use_or_young_stays_and_is_told(cache, tmp_path, later):
    used = store_texts(cache, "aaaa", days=40, size=1000)
    store_texts(cache, "bbbb", days=50, size=1000)
    folder = project(tmp_path / "one", used)
    uses.record(cache, folder)
    assert told(cache, None, 0, False)[1:] == [
        "1 entry removed, 1.0 KB",
        "1.0 KB more than asked for stay, since they are in use",
    ]
    folder.rename(tmp_path / "moved")
    lines = told(cache, None, 0, False)
    assert lines[0] == "0 entries removed, 0 B"
    assert f"if it is gone: probeline cache --forget {folder}" in lines[-1]
    assert used.is_file()


def test_nothing_goes_while_a_run_goes_on_that_cannot_be_looked_at(cache, tmp_path, later):
    """It may link any entry, and its record tells only what it had at its start."""
    texts = store_texts(cache, "aaaa", days=40, size=1000)
    leftover = cache / "tmpabcdefgh"
    leftover.mkdir()
    folder = tmp_path / "one"
    folder.mkdir()
    uses.record(cache, folder, running=True)
    hidden = folder.rename(tmp_path / "unmounted")
    for dry_run in (True, False):
        lines = told(cache, None, 0, dry_run)
        assert lines[0].startswith("0 entries ")
        assert f"{folder} (of " in lines[-1]
        assert "cannot be looked at from here: a run goes on there, so that all stays" in lines[-1]
    assert texts.is_file() and leftover.is_dir()
    # It starts only after the choice was made.
    entries = read_entries(cache)
    gone, _ = pruning.remove(cache, entries, [], lambda: uses.in_use(uses.recorded(cache)))
    assert gone == [] and texts.is_file()
    # Where it can be looked at, its links tell all: what is younger stays anyway.
    hidden.rename(folder)
    assert told(cache, None, 0, True)[1].startswith("1 entry would be removed")
    uses.record(cache, folder)
    folder.rename(hidden)
    assert told(cache, None, 0, False)[1].startswith("1 entry removed")


def test_what_was_just_stored_stays(cache):
    store_texts(cache, "aaaa", days=40)
    lines = told(cache, DAY, None, False)
    assert lines[1] == "1 more stay: they were stored within the last hour"
    assert len(read_entries(cache)) == 1


def test_entries_of_other_workflows_are_left_alone(cache, later):
    path = cache / f"{key('a')}.bam"
    path.write_text("of another workflow")
    assert told(cache, None, 0, False) == ["0 entries removed, 0 B"]
    assert path.is_file()
    contents = show.read_contents(cache)
    assert (contents.entries, contents.foreign) == ([], 1)
