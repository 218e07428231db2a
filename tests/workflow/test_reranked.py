"""Reranking and scores made elsewhere in one run, and what an edit of each runs again."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import snake
import tiny_project
from fixtures import assert_kept, edited_stages, run_once
from rerun_table import ALL, TABLES
from rich.console import Console
from tiny_project import DATASET, MODEL, TASK, edited

from probeline.lrsl.folder import read_reranker_manifest
from probeline.results.predictions import read_predictions
from probeline.results.table import show

GIVEN = "theirs"
SOURCES = ("stc", "given")
CONFIG = edited(
    ("extract.poolings", ["mean"]),
    (f"datasets.{DATASET}.label_texts", "labels.csv"),
    ("scores", {GIVEN: {"dataset": DATASET, "path": "theirs.csv", "kind": "probabilities"}}),
    (
        "lrsl",
        {
            "sources": list(SOURCES),
            "embedder": "./model",
            "crossfit": 2,
            "tune": {"batch_size": 8, "learning_rate": 1e-3},
            "seeds": [1, 2],
            "threshold": 0.5,
        },
    ),
)
OF_PAIR = {"probe": 2, "sparsify": 2, "aggregate": 3}
# Of two sources, of two seeds each; scores made elsewhere cannot be fitted again.
TRIPLETS, FITTED, RERANKED, FIGURES = 2, 1, 4, 2


def write_theirs(folder) -> None:
    """Write probabilities that know two labels in three."""
    rng = np.random.default_rng(0)
    rows = tiny_project.sentences(120)
    names = list(tiny_project.CLASSES)
    known = np.array([names.index(label) for _, label in rows])
    p = rng.dirichlet(np.ones(3), size=len(rows)) + 0.7 * np.eye(3)[known]
    p /= p.sum(axis=1, keepdims=True)
    frame = pd.DataFrame(p, columns=names)
    frame.insert(0, "text", [text for text, _ in rows])
    frame.to_csv(folder / "theirs.csv", index=False)


def write_labels(folder, extra: str = "") -> None:
    (folder / "labels.csv").write_text(f"label,text\nfood,a dinner\n{extra}", encoding="utf-8")


@pytest.fixture(scope="module")
def reranked(shared, tiny_model, server):
    """A project that has run whole; for dry runs, not to be changed."""

    def build(folder):
        tiny_project.build_project(folder, tiny_model, CONFIG)
        write_theirs(folder)
        write_labels(folder)

    return run_once(shared, "reranked", build, server)


@pytest.fixture
def variant(reranked, tmp_path):
    """Return the stages that would run again under another configuration."""
    return edited_stages(reranked, tmp_path, CONFIG)


# Of all seeds of a source together.
SHOWN = ("lrsl_figure", "lrsl_tables")


def counts(*stages: str, **more: int) -> dict[str, int]:
    return dict(sorted((dict.fromkeys(stages, 1) | more).items()))


FROM_RERANK = {"rerank": RERANKED, **dict.fromkeys(SHOWN, FIGURES), **dict.fromkeys(TABLES, 1)}
FROM_EMBED = {"embed": RERANKED} | FROM_RERANK
FROM_TRIPLETS = {"triplets": TRIPLETS} | FROM_EMBED
OF_FITTED = counts(*TABLES, triplets=FITTED, embed=2, rerank=2) | dict.fromkeys(SHOWN, FITTED)
EDITS = {
    "nothing": ([], {}),
    "powers": ([("lrsl.powers", [1, 2])], FROM_RERANK),
    "forms": ([("lrsl.forms", ["prob", "mlp"])], FROM_RERANK),
    "threshold": ([("lrsl.threshold", "validation")], FROM_RERANK),
    "the order of what is tried": ([("lrsl.powers", [3, 2, 1, 0.5])], {}),
    "tune": ([("lrsl.tune.epochs", 2)], FROM_EMBED),
    "untuned": ([("lrsl", CONFIG["lrsl"] | {"tune": None})], FROM_RERANK),
    "template": ([("lrsl.template", "about {label}")], FROM_TRIPLETS),
    "triplets": ([("lrsl.triplets", {"per_text": 1})], FROM_TRIPLETS),
    "crossfit": ([("lrsl.crossfit", 3)], {"crossfit": FITTED} | OF_FITTED),
    # The paper's way: the classifiers' own logits.
    "no crossfit": ([("lrsl.crossfit", 0)], OF_FITTED),
    "a seed more": (
        [("lrsl.seeds", [1, 2, 3])],
        counts(*TABLES, embed=2, rerank=2) | dict.fromkeys(SHOWN, FIGURES),
    ),
    "a seed less": ([("lrsl.seeds", [1])], counts(*TABLES) | dict.fromkeys(SHOWN, FIGURES)),
    "a source less": ([("lrsl.sources", ["stc"])], counts(*TABLES)),
    "a source more": (
        [("lrsl.sources", [*SOURCES, "tfidf"])],
        counts(*TABLES, "crossfit", "triplets", *SHOWN, embed=2, rerank=2),
    ),
    # The embeddings are tuned again on what the classifiers themselves say, and figures are whole.
    "ablations": (
        [("lrsl.ablations", True)],
        {"triplets_of_own_logits": FITTED, "embed_on_own_logits": 2 * FITTED}
        | {"lrsl_ablations": RERANKED, "lrsl_figure": FIGURES},
    ),
    "ablations without cross-fitting": (
        [("lrsl.ablations", True), ("lrsl.crossfit", 0)],
        OF_FITTED | {"lrsl_ablations": RERANKED, "lrsl_figure": FIGURES},
    ),
    "ablations of untuned embeddings": (
        [("lrsl", CONFIG["lrsl"] | {"tune": None, "ablations": True})],
        FROM_RERANK | {"lrsl_ablations": RERANKED},
    ),
    "no source": ([("lrsl.sources", [])], counts(*TABLES)),
    "nothing of it": ([("lrsl", None), ("scores", None)], counts(*TABLES)),
    "kind of the scores": (
        [(f"scores.{GIVEN}.kind", "logits")],
        counts(*TABLES, "given", "triplets", *SHOWN, embed=2, rerank=2),
    ),
    "what a source is made of": (
        [("aggregate.path_length", 7)],
        counts("classifier", "layer_figure", "tradeoff_figure", "crossfit", aggregate=3)
        | OF_FITTED,
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_runs_exactly_what_depends_on_it(variant, name):
    changes, expected = EDITS[name]
    assert variant(*changes) == dict(sorted(expected.items()))


def test_a_first_run_has_a_job_for_each_part(tmp_path, tiny_model):
    folder = tiny_project.build_project(tmp_path / "new", tiny_model, CONFIG)
    write_theirs(folder)
    write_labels(folder)
    jobs = ALL | OF_PAIR | {"given": 1, "crossfit": FITTED} | FROM_TRIPLETS
    assert snake.stages(snake.planned(folder)) == dict(sorted(jobs.items()))


def test_the_texts_of_labels_in_a_file_count_by_what_they_say(reranked, variant):
    before = (reranked / "labels.csv").read_text(encoding="utf-8")
    try:
        (reranked / "labels.csv").write_text("text,label\na dinner,food\n", encoding="utf-8")
        assert variant() == {}
        write_labels(reranked, "sport,a game\n")
        assert variant() == dict(sorted(FROM_TRIPLETS.items()))
    finally:
        (reranked / "labels.csv").write_text(before, encoding="utf-8")


def test_the_summary_has_a_row_for_each_source_and_seed(reranked):
    rows = pd.read_csv(reranked / "results" / "summary.csv")
    rows = rows[(rows["split"] == "test") & (rows["method"].isin(["lrsl", "given"]))]
    found = rows.groupby(["model", "method", "source"])["seed"].agg(list).to_dict()
    expected = {
        (MODEL, "lrsl", "stc"),
        (GIVEN, "lrsl", "given"),
    }
    assert set(found) == expected | {(GIVEN, "given", "theirs.csv")}
    for key in expected:
        assert sorted(found[key], key=str)[:2] == [1, 2] and np.isnan(found[key][2])
    labels = pd.read_parquet(reranked / "results/datasets" / DATASET / "labels.parquet")[TASK]
    for seed in (1, 2):
        path = reranked / f"results/predictions/{DATASET}/{TASK}/{GIVEN}/lrsl-given-{seed}.h5"
        kept = read_predictions(path)
        right = kept.of("test").argmax(axis=1) == labels.to_numpy()[kept.rows_of("test")]
        row = rows[(rows["source"] == "given") & (rows["seed"] == seed)].iloc[0]
        assert row["score"] == pytest.approx(right.mean(), abs=1e-4)
        assert row["variant"] == kept.meta["variant"]


def test_each_reranking_is_compared_with_what_it_reranks(reranked):
    rows = pd.read_csv(reranked / "results" / "comparisons.csv")
    own = rows[rows["method"] == "lrsl"]
    assert set(zip(own["model"], own["against"], strict=True)) == {(GIVEN, "given")}
    selected = rows[(rows["method"] == "stc") & (rows["against"] == "lrsl")]
    assert selected["against_variant"].tolist() == ["on stc: mean of 2 seeds"]
    assert selected["against_seeds"].tolist() == [2]
    assert (rows[rows["against"] == "given"]["texts"] == 30).all()


def test_the_terminal_shows_each_reranking(reranked):
    console = Console(width=160, record=True)
    show(reranked, console)
    printed = console.export_text()
    for name in (
        "STC, selected, reranked, 2 seeds",
        "scores made elsewhere, reranked, 2 seeds",
        f"{DATASET}, {GIVEN}: accuracy",
    ):
        assert name in printed


def test_the_folder_of_a_reranker_is_whole(reranked):
    folder = reranked / "results/lrsl" / DATASET / TASK / MODEL / "stc" / "reranker" / "1"
    manifest = read_reranker_manifest(folder)
    assert (manifest["dataset"], manifest["model"], manifest["source"]) == (DATASET, MODEL, "stc")
    assert manifest["label_texts"]["food"] == ["a dinner"]
    report = json.loads((folder.parents[1] / "report" / "1.json").read_text(encoding="utf-8"))
    assert report["test"]["texts"] == 30


def test_no_secret_is_written_or_printed(reranked):
    assert_kept(reranked)


def test_the_report_builds(reranked):
    snake.run(reranked, "--report", "report.html")
    report = (reranked / "report.html").read_text(encoding="utf-8")
    for name in ("lrsl-stc.svg", "examples/1.csv", "stc/changes.csv", "stc/classes.csv"):
        assert name in report


MISTAKES = [
    (("lrsl.embedder", "./none"), "lrsl.embedder: ./none: no such folder"),
    ((f"scores.{GIVEN}.path", "none.csv"), f"scores.{GIVEN}.path: none.csv: no such file"),
    (
        (f"datasets.{DATASET}.label_texts", "none.json"),
        f"datasets.{DATASET}.label_texts: none.json: no such file of label texts",
    ),
]


@pytest.mark.parametrize(("change", "line"), MISTAKES)
def test_a_missing_file_is_one_line_before_anything_runs(reranked, tmp_path, change, line):
    path = tiny_project.write_config(tmp_path / "edited.yaml", edited(change, base=CONFIG))
    done = snake.snakemake(reranked, "-n", "--configfile", path)
    assert done.returncode == 1
    assert next(text for text in done.stderr.splitlines() if "none" in text).startswith(line)


def test_every_level_and_the_paths_of_a_hierarchy_are_reranked(tmp_path, tiny_model):
    """For each seed of what is reranked, and each of its own."""
    config = edited(
        ("extract.poolings", ["mean"]),
        (f"datasets.{DATASET}.label", ["coarse", "fine"]),
        (f"models.{MODEL}-tuned", {"finetuned_from": MODEL, "on": DATASET, "task": "coarse"}),
        ("baselines", ["tfidf", "finetune"]),
        ("finetune", {"models": [MODEL], "seeds": [1, 2]}),
        ("lrsl", {"sources": ["stc", "tfidf", "finetune"], "embedder": "./model", "seeds": [3, 4]}),
    )
    folder = tiny_project.build_project(tmp_path / "deep", tiny_model, config)
    found = snake.planned(folder)
    names = {
        MODEL: {f"lrsl-{s}-{n}" for s in ("stc", "finetune-1", "finetune-2") for n in (3, 4)},
        # Its own head is among its source's.
        f"{MODEL}-tuned": {"lrsl-stc-3", "lrsl-stc-4"},
        "tfidf": {"lrsl-tfidf-3", "lrsl-tfidf-4"},
    }
    paths: dict[str, set[str]] = {}
    for job in found:
        if job.rule == "path_predictions" and job.wildcards["method"].startswith("lrsl"):
            paths.setdefault(job.wildcards["model"], set()).add(job.wildcards["method"])
    assert paths == names
    jobs = [job for job in found if job.rule == "rerank"]
    assert {job.wildcards["task"] for job in jobs} == {"coarse", "fine"}
    assert len(jobs) == 2 * sum(map(len, names.values()))
