"""What a run with a shared cache goes by, apart from Snakemake: contents, commits, folders."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from tiny_models import build

from probeline.cache import uses
from probeline.errors import ProbelineError
from probeline.models.hub import tokenizer_commit
from probeline.models.load import load_model
from probeline.workflow.models import offline_spec, pinned_revision
from probeline.workflow.parsing import start_or_exit
from probeline.workflow.sharing import content, note_use, refuse_nameless, shared_folder

FIRST, SECOND = "a" * 40, "b" * 40


def test_contents_tell_files_apart_and_their_order(tmp_path):
    a, b, same = (str(tmp_path / name) for name in ("a", "b", "same"))
    for path, text in ((a, "one"), (b, "two"), (same, "one")):
        Path(path).write_text(text)
    assert content(a) == content(same) == content([a]) == content([], a)
    assert len({content(), content(a), content(b), content(a, b), content(b, [a])}) == 5
    assert content(a, b) == content([same, b])


def test_a_file_that_is_still_to_be_made_is_named_as_the_rule_does(tmp_path):
    missing = str(tmp_path / "missing")
    with pytest.raises(FileNotFoundError) as error:
        content(missing)
    # Snakemake compares it with the names of inputs.
    assert error.value.filename == missing


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """A hub's cache with two commits of a tokenizer, the second being main."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "models--org--words"
    for commit, kind in ((FIRST, "bert"), (SECOND, "gpt2")):
        build(kind, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(SECOND)
    return repository


def test_a_tokenizer_is_that_of_the_commit_that_was_fetched(hub, tmp_path):
    model = build("bert", tmp_path / "model")
    spec = {"path": str(model), "revision": None, "tokenizer": "org/words", "dtype": "float32"}
    assert tokenizer_commit(spec) == {"tokenizer": SECOND}
    assert (
        tokenizer_commit({"tokenizer": str(model)}) == tokenizer_commit({"tokenizer": None}) == {}
    )
    pinned = tmp_path / "pinned.json"
    pinned.write_text(json.dumps({"path": "x", "commit": None, "tokenizer": FIRST}))
    # Another run has moved the branch on.
    found = offline_spec(spec, str(pinned), 1)
    assert found["tokenizer_revision"] == FIRST
    expected = load_model({**spec, "tokenizer": str(hub / "snapshots" / FIRST)}).tokenizer_hash
    assert load_model(found).tokenizer_hash == expected
    assert load_model(spec).tokenizer_hash != expected


@pytest.mark.parametrize("threads", [1, 3])
def test_torch_computes_with_the_threads_of_the_job(threads):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        offline_spec({"path": "./model"}, None, threads)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_the_commit_that_was_fetched_is_the_revision(tmp_path):
    pinned = tmp_path / "pinned.json"
    for commit, revision, expected in (
        (FIRST, None, FIRST),
        (FIRST, "main", FIRST),
        (None, "v", "v"),
    ):
        pinned.write_text(json.dumps({"path": "x", "commit": commit}))
        assert pinned_revision({"revision": revision}, str(pinned)) == {"revision": expected}
    assert pinned_revision({"revision": "v"}, None) == {"revision": "v"}


def test_without_the_option_there_is_no_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SNAKEMAKE_OUTPUT_CACHE", str(tmp_path))
    assert shared_folder(None) is None
    assert shared_folder([]) == shared_folder(["texts"]) == tmp_path
    monkeypatch.setenv("SNAKEMAKE_OUTPUT_CACHE", "s3://bucket/cache")
    assert shared_folder([]) is None


def test_a_bare_option_does_not_reach_a_cluster():
    for asked, local in ((None, False), (["texts"], False), ([], True)):
        refuse_nameless(asked, local)
    with pytest.raises(ProbelineError, match="write --cache texts"):
        refuse_nameless([], False)


def test_a_run_goes_on_where_its_use_cannot_be_noted(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    note_use(None)
    note_use(tmp_path)
    assert [(use.folder, use.running) for use in uses.recorded(tmp_path)] == [(tmp_path, False)]
    start_or_exit(tmp_path, [], True)
    assert [(use.folder, use.running) for use in uses.recorded(tmp_path)] == [(tmp_path, True)]
    note_use(tmp_path)
    assert [use.running for use in uses.recorded(tmp_path)] == [False]
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING):
        note_use(tmp_path / "file")
    assert "not noted that this folder uses it" in caplog.text
