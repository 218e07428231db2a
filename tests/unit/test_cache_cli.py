"""`probeline cache`, as a user meets it."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from shared_caches import DAY, key, project, store_shards, store_texts
from typer.testing import CliRunner

from probeline import cli
from probeline.cache import pruning, show, uses
from probeline.cache.entries import read_entries
from probeline.errors import ProbelineError


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """A cache of 41 texts ago and activations of today, that a project uses."""
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("SNAKEMAKE_OUTPUT_CACHE", str(folder))
    store_texts(folder, "aaaa", "reviews", days=41, size=2000)
    shard, *_ = store_shards(folder, "bbbb")
    uses.record(folder, project(tmp_path / "one", shard))
    # What was just stored may be on its way to somebody.
    now = time.time() + 2 * pruning.SETTLED
    monkeypatch.setattr(show.time, "time", lambda: now)
    return folder


def call(*args) -> list[str]:
    result = CliRunner().invoke(cli.app, ["cache", *map(str, args)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output.splitlines()


def test_the_table(cache):
    head, texts, shards, total = call()
    assert head.split() == [
        "entry",
        "rule",
        "dataset",
        "model",
        "made",
        "used",
        "size",
        "by",
        "in",
        "use",
        "of",
    ]
    assert texts.split()[:5] == ["aaaa0000", "texts", "reviews", "41d", "41d"]
    assert texts.split()[5:7] == ["2.0", "KB"] and texts.endswith(" -  7 texts")
    assert shards.split()[:4] == ["bbbb0000", "extract", "notes", "tiny"]
    assert shards.endswith(" 1  org/tiny, 7 texts, 24 tokens, float32")
    assert total.startswith(f"{cache}: 2 entries, ")


def test_an_empty_cache(tmp_path):
    assert call("--folder", tmp_path) == [f"{tmp_path}: 0 entries, 0 B"]


def test_a_dry_run_removes_nothing(cache):
    expected = "aaaa0000  texts reviews, 2.0 KB, last used 41d ago"
    assert call("--older-than", "30d", "-n") == [expected, "1 entry would be removed, 2.0 KB"]
    assert len(read_entries(cache)) == 2
    assert call("--older-than", "30d") == [expected, "1 entry removed, 2.0 KB"]
    assert [entry.key for entry in read_entries(cache)] == [key("bbbb")]


def test_down_to_a_size(cache, tmp_path):
    size = sum(entry.size for entry in read_entries(cache))
    assert call("--keep", size) == ["0 entries removed, 0 B"]
    assert call("--keep", size - 1)[-1] == "1 entry removed, 2.0 KB"
    (tmp_path / "one").rename(tmp_path / "copy")
    assert call("--keep", "0", "--used-by", tmp_path / "copy")[0] == "0 entries removed, 0 B"
    # Its own name is not known any more; what is said of it is believed.
    assert "cannot be looked at" in call("--keep", "0")[-1]
    call("--forget", tmp_path / "one")
    assert call("--keep", "0", "--used-by", tmp_path / "copy")[0] == "0 entries removed, 0 B"
    assert call("--keep", "0")[-1].startswith("1 entry removed")
    assert read_entries(cache) == []
    # Only the links are left.
    assert call("--unlink", tmp_path / "copy") == [
        f"{tmp_path / 'copy'}: 1 links removed; the next run makes these files again"
    ]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--older-than", "a month"], "--older-than: 'a month' is no age"),
        (["--keep", "lots"], "--keep: 'lots' is no size"),
        (["--dry-run"], "cache: --dry-run says what --older-than or --keep would remove"),
        (["--folder", "/no/such"], "--folder: /no/such: no such folder"),
        (["--used-by", "/no/such"], "--used-by: /no/such: cannot be read"),
        (["--forget", "/no/such"], "--forget: /no/such: the cache knows no such folder"),
        (["--unlink", "/no/such"], "--unlink: /no/such: no such folder"),
    ],
)
def test_mistakes_are_one_line(cache, options, line):
    with pytest.raises(ProbelineError) as error:
        call(*options)
    assert str(error.value).startswith(line)
    assert len(read_entries(cache)) == 2


def test_no_cache_is_one_line(monkeypatch, cache):
    monkeypatch.delenv("SNAKEMAKE_OUTPUT_CACHE")
    with pytest.raises(ProbelineError, match="SNAKEMAKE_OUTPUT_CACHE is not set"):
        call()
    shutil.rmtree(cache)
    monkeypatch.setenv("SNAKEMAKE_OUTPUT_CACHE", str(cache))
    with pytest.raises(ProbelineError, match="no such folder; make it first"):
        call("--older-than", f"{DAY:.0f}h")
