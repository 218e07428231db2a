"""The command line, as a user meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from pipeline import Run, config_of, trained
from tiny_models import build
from typer.testing import CliRunner

import probeline
from probeline import __version__, cli
from probeline.data.store import read_dataset
from probeline.errors import ProbelineError


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return trained("multiclass", tmp_path_factory)


def call(*args, stdin: str | bytes | None = None):
    """Inside this process; a `ProbelineError` comes out as such."""
    result = CliRunner().invoke(cli.app, list(map(str, args)), input=stdin)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def command(*args, stdin: str | bytes | None = None, cwd=None) -> subprocess.CompletedProcess:
    """The program itself."""
    given = stdin.encode() if isinstance(stdin, str) else stdin
    program = [sys.executable, "-m", "probeline.cli", *map(str, args)]
    done = subprocess.run(program, input=given, capture_output=True, cwd=cwd, env=os.environ)
    done.stdout, done.stderr = done.stdout.decode(), done.stderr.decode()
    return done


def answers(result) -> list[dict]:
    assert result.exit_code == 0
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture(scope="module")
def expected(run):
    texts = run.dataset.texts[:6]
    return texts, probeline.load(run.classifier).predict(texts)


def test_texts_as_arguments(run, expected):
    texts, found = expected
    assert answers(call("predict", "--classifier", run.classifier, *texts)) == found


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "txt", "-"])
def test_input_files(run, expected, tmp_path, suffix):
    texts, found = expected
    path = tmp_path / f"texts.{suffix}"
    if suffix in ("csv", "tsv"):
        separator = "," if suffix == "csv" else "\t"
        path.write_text(
            "".join(f"{i}{separator}{t}\n" for i, t in [("id", "body"), *enumerate(texts)])
        )
    elif suffix == "jsonl":
        path.write_text("".join(json.dumps({"body": text}) + "\n" for text in texts))
    else:
        path.write_text("\n".join(texts))
    source = "-" if suffix == "-" else path
    stdin = "\n".join(texts) if suffix == "-" else None
    arguments = ["--input", source, "--text-column", "body"]
    result = call("predict", "--classifier", run.classifier, *arguments, stdin=stdin)
    assert answers(result) == found


def test_pairs(tmp_path_factory, tmp_path):
    run = trained("pairs", tmp_path_factory)
    dataset = read_dataset(run.data)
    path = tmp_path / "pairs.jsonl"
    rows = list(zip(dataset.texts[:5], dataset.pairs[:5], strict=True))
    path.write_text("".join(json.dumps({"a": a, "b": b}) + "\n" for a, b in rows))
    result = call(
        "predict", "--classifier", run.classifier, "--input", path, "--text-column", "a,b"
    )
    loaded = probeline.load(run.classifier)
    assert answers(result) == loaded.predict(dataset.texts[:5], dataset.pairs[:5])
    with pytest.raises(ProbelineError, match="trained on pairs of texts"):
        call("predict", "--classifier", run.classifier, "only one")


def test_multi_label(tmp_path_factory):
    run = trained("multilabel", tmp_path_factory)
    text = run.dataset.texts[0]
    (answer,) = answers(call("predict", "--classifier", run.classifier, text))
    assert set(answer) == {"labels", "scores"}


def one_line(done: subprocess.CompletedProcess, *words: str) -> None:
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("probeline: ")
    assert "Traceback" not in line
    for word in words:
        assert str(word) in line


def test_mistakes_are_one_line_and_exit_status_1(run, tmp_path):
    one_line(command("predict", "--classifier", run.classifier), "give texts as arguments")
    (tmp_path / "a.jsonl").write_text('{"text": "a \\ud800 b"}\n')
    given = ["--input", tmp_path / "a.jsonl"]
    one_line(command("predict", "--classifier", run.classifier, *given), "surrogate")


@pytest.mark.parametrize(
    "source, words", [("none.csv", r"none\.csv: no such file"), ("-", "standard input: not UTF-8")]
)
def test_input_that_cannot_be_read(run, source, words):
    with pytest.raises(ProbelineError, match=words):
        call("predict", "--classifier", run.classifier, "--input", source, stdin=b"a\xff\n")


def test_a_folder_that_is_no_classifier(tmp_path):
    with pytest.raises(ProbelineError, match="not a classifier folder"):
        call("predict", "--classifier", tmp_path, "a")


def test_output_that_nobody_reads(run):
    """`probeline predict ... | head -1` ends without a word."""
    program = f"{sys.executable} -m probeline.cli predict --classifier {run.classifier} --input -"
    lines = "the cat\n" * 4000
    done = subprocess.run(
        ["bash", "-c", f"{program} | head -1"], input=lines.encode(), capture_output=True
    )
    assert json.loads(done.stdout)["label"]
    assert done.stderr == b""


WRONG = """
models:
  tiny: {path: ./model, max_lenght: 16}
datasets:
  texts: {loader: cvs, path: texts.csv, splits: {validation: 0.2, test: 0.2}}
probe:
  penalties: none
extract:
  poolings: [avg]
"""


def test_check_prints_every_mistake(tmp_path):
    (tmp_path / "config.yaml").write_text(WRONG)
    done = command("check", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("probeline: config.yaml: ") for line in lines)
    for word in ("did you mean 'max_length'?", "'cvs'", "probe.penalties", "mean"):
        assert word in done.stderr


def test_check_of_a_good_configuration(tmp_path):
    build("bert", tmp_path / "model")
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps(config_of(tmp_path, "multiclass")))
    result = call("check", path)
    # FFN in 3 layers and hidden states in 4, four poolings; 40 and 16 wide, two bytes each.
    assert result.stdout == (
        f"{path}: 1 (dataset, model) pairs, 28 shards\n"
        f"tiny: {2 * 4 * (3 * 40 + 4 * 16) / 1000:.1f} GB on disk per million texts\n"
    )
    config = config_of(tmp_path, "multiclass")
    config["models"]["tiny"]["path"] = str(tmp_path / "none")
    config["datasets"]["texts"]["path"] = str(tmp_path / "none.jsonl")
    path.write_text(json.dumps(config))
    with pytest.raises(ProbelineError) as caught:
        call("check", path)
    first, second = str(caught.value).splitlines()
    assert "models.tiny" in first
    assert "datasets.texts" in second


def test_check_without_a_file(tmp_path):
    with pytest.raises(ProbelineError, match=r"none\.yaml"):
        call("check", tmp_path / "none.yaml")


def test_fetch_of_a_local_model(tmp_path):
    build("bert", tmp_path / "model")
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps(config_of(tmp_path, "multiclass")))
    printed = "tiny: local, nothing to fetch\ntexts: local, nothing to fetch\n"
    assert call("fetch", path).stdout == printed


def test_fetch_leaves_out_what_does_not_run(tmp_path):
    build("bert", tmp_path / "model")
    config = config_of(tmp_path, "multiclass")
    config["models"]["other"] = {"path": "somebody/huge", "layers": 2}
    config["datasets"]["elsewhere"] = {
        "loader": "hub",
        "path": "somebody/large",
        "splits": {"validation": 0.1, "test": "test"},
    }
    config["runs"] = [{"model": "tiny", "dataset": "texts"}]
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps(config))
    printed = call("fetch", path).stdout.splitlines()
    assert [line.partition(":")[0] for line in printed] == ["tiny", "texts"]


@pytest.mark.parametrize("name", ["file", "file/below", "/proc/nothing"])
def test_a_folder_that_cannot_be_one(tmp_path, name):
    (tmp_path / "file").touch()
    done = command("run", "--directory", tmp_path / name, "--cores", "1")
    one_line(done, f"{tmp_path / name}: cannot be a folder to run in: ", "give --directory")
    one_line(command("doctor", tmp_path / name), f"{tmp_path / name}: no results/ here")


def test_show_without_results(tmp_path):
    with pytest.raises(ProbelineError, match="no results here; run"):
        call("show", tmp_path)


def test_version_and_help():
    assert call("--version").stdout == f"probeline {__version__}\n"
    text = call("--help").stdout
    for name in ("predict", "check", "fetch", "show"):
        assert name in text


def test_an_unknown_option_is_status_2():
    done = command("predict", "--clasifier", "x", "a")
    assert done.returncode == 2
    assert "--clasifier" in done.stderr
    assert "Traceback" not in done.stderr


def test_import_is_light():
    """`probeline` alone, and `--help`, load neither torch nor transformers."""
    code = (
        "import sys, probeline, probeline.cli\n"
        "print([m for m in ('torch', 'transformers', 'numpy', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
