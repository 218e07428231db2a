"""Where data lie: paths, packages, splits named by files, cheap fingerprints."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from probeline.data.paths import (
    class_files,
    resolve_path,
    source_files,
    source_fingerprint,
    split_paths,
)
from probeline.errors import ProbelineError


def test_relative_paths_start_at_the_data_root_then_the_variable_then_here(tmp_path, monkeypatch):
    monkeypatch.setenv("PROBELINE_DATA_ROOT", str(tmp_path / "variable"))
    assert resolve_path("a.csv", str(tmp_path / "given")) == tmp_path / "given" / "a.csv"
    assert resolve_path("a.csv") == tmp_path / "variable" / "a.csv"
    assert resolve_path("/b/a.csv", "elsewhere") == Path("/b/a.csv")
    assert resolve_path("~/a.csv", "elsewhere") == Path.home() / "a.csv"
    monkeypatch.delenv("PROBELINE_DATA_ROOT")
    assert resolve_path("a.csv") == Path("a.csv")


def test_a_package_is_found_without_importing_it(tmp_path, monkeypatch):
    package = tmp_path / "somewords"
    (package / "inner" / "data").mkdir(parents=True)
    for folder in (package, package / "inner"):
        (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert resolve_path("package:somewords/inner/data") == package / "inner" / "data"
    assert resolve_path("package:somewords.inner/data") == package / "inner" / "data"
    assert "somewords" not in sys.modules


@pytest.mark.parametrize("path", ["package:no_such_words/data", "package:/data", "package:"])
def test_a_package_that_is_not_installed(path):
    with pytest.raises(ProbelineError, match="no installed package is imported as"):
        resolve_path(path)


def test_an_empty_path():
    with pytest.raises(ProbelineError, match="path: empty"):
        resolve_path("  ")


def test_the_module_needs_the_standard_library_only():
    code = (
        "import sys; before = set(sys.modules); import probeline.data.paths; "
        "new = {m.split('.')[0] for m in set(sys.modules) - before}; "
        "print(sorted(new - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['probeline']"


def test_one_file_is_train(tmp_path):
    (tmp_path / "all.csv").touch()
    spec = {"loader": "csv", "path": "all.csv", "splits": {"validation": 0.2, "test": 0.2}}
    assert source_files(spec, str(tmp_path)) == [tmp_path / "all.csv"]


def test_files_by_split_and_by_pattern_in_name_order(tmp_path):
    for name in ("train-1.json", "train-0.json", "test.json", ".train-2.json.swp"):
        (tmp_path / name).touch()
    spec = {
        "loader": "json",
        "path": ".",
        "splits": {"train": "train-*.json", "validation": 0.1, "test": "test.json"},
    }
    found = split_paths(spec, str(tmp_path))
    assert {split: [p.name for p in paths] for split, paths in found.items()} == {
        "train": ["train-0.json", "train-1.json"],
        "test": ["test.json"],
    }
    assert [p.name for p in source_files(spec, str(tmp_path))] == [
        "train-0.json",
        "train-1.json",
        "test.json",
    ]


@pytest.mark.parametrize(
    ("path", "splits", "message"),
    [
        ("texts.csx", {}, r"texts\.csx: no such file or folder; did you mean 'texts.csv'\?"),
        (".", {}, r"is a folder; name the file of train in splits.train \(it holds: texts.csv\)"),
        (".", {"train": "text.csv"}, r"no such file \(splits.train\); did you mean 'texts.csv'"),
        (".", {"train": "texts.csv", "test": "t-*.csv"}, r"t-\*\.csv: no such file"),
        ("texts.csv", {"train": "texts.csv"}, "splits.train: 'texts.csv' is looked for in the"),
        (".", {"train": "texts.csv", "test": "texts.csv"}, "both name 'texts.csv'"),
        (".", {"train": "texts.csv", "valid": "texts.csv"}, "splits.valid: unknown split"),
    ],
)
def test_missing_files_and_splits(tmp_path, path, splits, message):
    (tmp_path / "texts.csv").touch()
    spec = {"loader": "csv", "path": path, "splits": {"validation": 0.2, "test": 0.2} | splits}
    with pytest.raises(ProbelineError, match=message) as caught:
        source_files(spec, str(tmp_path))
    assert "\n" not in str(caught.value)


def class_folder(folder: Path) -> Path:
    for name in ("b/2.txt", "b/1", "a/1.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def test_a_class_folder_leaves_out_what_is_no_data(tmp_path):
    folder = class_folder(tmp_path)
    for name in ("README.md", "a/.hidden", "a/x.pyc", "a/Thumbs.db", "b/1~", "__pycache__/m.pyc"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("no data")
    (folder / ".git").mkdir()
    (folder / "a" / "__pycache__").mkdir()
    found = [(label, path.name) for label, path in class_files(folder)]
    assert found == [("a", "1.txt"), ("b", "1"), ("b", "2.txt")]


def test_class_folders_that_cannot_be_meant(tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(ProbelineError, match="none: holds no folders"):
        list(class_files(tmp_path / "none"))
    (tmp_path / "hollow" / "a").mkdir(parents=True)
    with pytest.raises(ProbelineError, match=r"hollow/a: holds no texts"):
        list(class_files(tmp_path / "hollow"))
    class_folder(tmp_path / "deep" / "train")
    with pytest.raises(ProbelineError, match=r"train/a: a folder inside the class folder 'train'"):
        list(class_files(tmp_path / "deep"))


def test_a_folder_dataset_is_no_list_of_inputs_but_has_a_fingerprint(tmp_path):
    spec = {"loader": "folder", "path": "texts", "splits": {"validation": 0.2, "test": 0.2}}
    class_folder(tmp_path / "one" / "texts")
    # Moved or copied with their times, files are the same.
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert source_files(spec, str(tmp_path / "one")) == []
    first = source_fingerprint(spec, str(tmp_path / "one"))
    assert first == source_fingerprint(spec, str(tmp_path / "two"))
    assert len(first) == 16
    (tmp_path / "two" / "texts" / ".hidden").touch()
    assert first == source_fingerprint(spec, str(tmp_path / "two"))
    (tmp_path / "two" / "texts" / "b" / "1").write_text("longer than before")
    second = source_fingerprint(spec, str(tmp_path / "two"))
    (tmp_path / "two" / "texts" / "b" / "1").rename(tmp_path / "two" / "texts" / "b" / "3")
    third = source_fingerprint(spec, str(tmp_path / "two"))
    assert len({first, second, third}) == 3


def test_an_edit_that_keeps_a_files_size_is_noticed_in_a_folder_of_ones_own(tmp_path):
    spec = {"loader": "folder", "path": "texts", "splits": {"validation": 0.2, "test": 0.2}}
    class_folder(tmp_path / "texts")
    first = source_fingerprint(spec, str(tmp_path))
    file = tmp_path / "texts" / "b" / "1"
    text, stat = file.read_text(), file.stat()
    file.write_text(text[::-1])
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))
    assert source_fingerprint(spec, str(tmp_path)) != first


@pytest.mark.parametrize("target, words", [("nowhere", "No such file"), ("2", "Too many levels")])
def test_a_link_that_leads_to_no_file_is_one_line_before_any_job(tmp_path, target, words):
    spec = {"loader": "folder", "path": "texts", "splits": {"validation": 0.2, "test": 0.2}}
    class_folder(tmp_path / "texts")
    path = tmp_path / "texts" / "b" / "2"
    path.unlink(missing_ok=True)
    path.symlink_to(target)
    with pytest.raises(ProbelineError, match=f"texts/b/2: cannot be read: {words}"):
        source_fingerprint(spec, str(tmp_path))


def test_the_fingerprint_of_a_hub_dataset_is_its_name_and_revision(tmp_path):
    spec = {"loader": "hub", "path": "glue", "config": "sst2", "splits": {}}
    other = spec | {"revision": "abc"}
    assert source_fingerprint(spec) == source_fingerprint(dict(spec))
    assert source_fingerprint(spec) != source_fingerprint(other)
    assert source_files(spec) == []
    (tmp_path / "data.csv").write_text("text,label")
    local = {"loader": "hub", "path": str(tmp_path), "splits": {}}
    before = source_fingerprint(local)
    (tmp_path / "data.csv").write_text("text,label\n")
    assert source_fingerprint(local) != before
    with pytest.raises(ProbelineError, match="no such folder"):
        source_fingerprint(local | {"path": str(tmp_path / "nothing")})
