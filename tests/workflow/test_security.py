"""A run whose folder, files, texts and environment try to get out of where they belong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import sentinels
import snake
import tiny_project
from fixtures import assert_kept
from tiny_project import DATASET, MODEL, edited, sentences, write_csv

# A shell would make the file `touched`, and a glob find other files.
FOLDER = "a $(touch touched); `touch touched` 'b' \"c\" & é"
FILE = "no tes; $(touch touched) `touch touched` [a-z]'.csv"
SCRIPT = "<script>alert('SENTINEL')</script>"
CARD = f"results/cards/{DATASET}.md"
PROBE = f"results/probes/{DATASET}/label/{MODEL}/hidden.mean.01.h5"


@pytest.fixture(scope="module")
def ran(tmp_path_factory, tiny_model) -> tuple[Path, str]:
    """The project's folder after a part of a run, and all that was printed."""
    folder = tmp_path_factory.mktemp("security") / FOLDER
    tiny_project.build_project(folder, tiny_model)
    (folder / "notes.csv").unlink()
    rows = [(text, SCRIPT if label == "food" else label) for text, label in sentences(90)]
    write_csv(folder / FILE, [(f"{text} {SCRIPT}", label) for text, label in rows])
    config = edited((f"datasets.{DATASET}.path", FILE))
    tiny_project.write_config(folder / "config.yaml", config)
    printed = snake.run(folder, "-n", CARD, PROBE, **sentinels.SECRETS)
    printed += snake.run(folder, CARD, PROBE, **sentinels.SECRETS)
    printed += snake.run(folder, CARD, PROBE, "--report", "report.html", **sentinels.SECRETS)
    return folder, printed


def test_what_stands_in_names_is_no_command(ran):
    folder, _ = ran
    assert (folder / CARD).is_file() and (folder / PROBE).is_file()
    assert not [path for path in folder.parent.rglob("*touched*") if path.name == "touched"]
    assert sorted(path.name for path in folder.parent.iterdir()) == [FOLDER]


def test_no_secret_is_written_or_printed(ran):
    folder, printed = ran
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    parts = {part for path in files for part in path.parts}
    # Of every kind that a run writes.
    assert {"report.html", "logs", "results", "metadata"} <= parts
    assert sentinels.written(folder) == [] == sentinels.printed(printed)


def test_no_secret_is_written_or_printed_by_a_whole_run(finished):
    assert_kept(finished)


def test_no_text_becomes_html(ran):
    """Labels stand in the card, and the card in the report."""
    folder, _ = ran
    card = (folder / CARD).read_text(encoding="utf-8")
    assert "&lt;script&gt;alert('SENTINEL')&lt;/script&gt;" in card
    for path in (folder / CARD, folder / "report.html"):
        assert SCRIPT not in path.read_text(encoding="utf-8")


NAMES = ["../up", "a/b", "/tmp/x", "a b", "a;touch x", "$(touch x)", "..", ".", "{x}", "-rf", ""]


@pytest.mark.parametrize("section", ["models", "datasets", "scores", "combinations"])
def test_no_name_leads_out_of_the_results(section):
    """Names become folders; whatever else is wrong with these entries, the names are."""
    from probeline.config import validate
    from probeline.errors import ConfigError

    for name in NAMES:
        config = edited((section, tiny_project.CONFIG.get(section, {}) | {name: {}}))
        with pytest.raises(ConfigError) as caught:
            validate(config)
        shown = repr(name)
        lines = [line for line in caught.value.problems if section in line and shown in line]
        assert any("letters, digits" in line for line in lines), (name, caught.value.problems)


def test_no_label_column_leads_out_of_the_results():
    """Levels of a hierarchy are tasks, and tasks become folders."""
    from probeline.config import validate
    from probeline.errors import ConfigError

    for name in ("../up", "a/b", os.sep, "a;b"):
        config = edited((f"datasets.{DATASET}.label", ["coarse", name]))
        config["datasets"][DATASET].pop("metric")
        with pytest.raises(ConfigError, match="names a task, and tasks become folders"):
            validate(config)


def test_braces_are_no_wildcards(tmp_path, tiny_model):
    folder = tiny_project.build_project(tmp_path / "project", tiny_model)
    (folder / "notes.csv").rename(folder / "{dataset}.csv")
    config = edited((f"datasets.{DATASET}.path", "{dataset}.csv"))
    tiny_project.write_config(folder / "config.yaml", config)
    done = snake.snakemake(folder, "-n")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "{dataset}.csv: Snakemake takes braces in the names of files" in done.stderr
