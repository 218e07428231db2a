"""The rerun table: for each kind of edit, exactly the jobs that run, by dry runs."""

from __future__ import annotations

import os
import shutil
import time

import pytest
import snake
import tiny_project
from rerun_table import (
    ALL,
    END,
    FIGURES,
    FROM_AGGREGATE,
    FROM_DATASET,
    FROM_EXTRACT,
    FROM_PROBE,
    FROM_SPARSIFY,
    PAIR,
    TABLES,
    table,
)
from tiny_project import CONFIG, DATASET, MODEL, edited


def reordered(value):
    """Return `value` with the keys of all mappings in the opposite order."""
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(value)}
    return value


RENAMED = {"food": "meals", "sport": "games", "weather": "sky"}
NARROWED = [("probe.poolings", ["mean"])]
EDITS = {
    "nothing": ([], table()),
    # From the end of the workflow to its beginning.
    "sentence_embedding.penalties": (
        [("sentence_embedding.penalties", [1, 10])],
        table("sentence_embedding", *TABLES, *FIGURES),
    ),
    "aggregate.select": ([("aggregate.select", "sparsest")], table(*END)),
    "aggregate.within": ([("aggregate.within", 0.05)], table(*END)),
    "aggregate.depths": ([("aggregate.depths", [1, 2])], table(*FROM_AGGREGATE)),
    "sparsify.etas": ([("sparsify.etas", [0.2, 0.5])], table(*FROM_AGGREGATE)),
    "combination added": (
        [("combinations.wide", ["ffn.max", "hidden.mean"])],
        table(*END, aggregate=1),
    ),
    "combination changed": (
        [("combinations.both", ["ffn.max", "hidden.mean"])],
        table(*END, aggregate=1),
    ),
    "combination removed": ([("combinations", None)], table(*END)),
    "poolings narrowed": (NARROWED, table("layers", *END)),
    "representations narrowed": (
        [("probe.representations", ["hidden"]), ("combinations", None)],
        table("layers", *END),
    ),
    # Layer 0 is one of hidden states only.
    "layers narrowed": (
        [("probe.layers", [1, 2])],
        table(*FROM_SPARSIFY, sparsify=2, aggregate=3),
    ),
    "layers_per_job": ([("probe.layers_per_job", 1)], table()),
    "probe.path_length": ([("probe.path_length", 5)], table(*FROM_PROBE)),
    # One job instead of one per representation and pooling.
    "probe.device": ([("probe.device", "cuda")], table(*FROM_PROBE, probe=1)),
    "probe.standardize": ([("probe.standardize", False)], table(*FROM_PROBE)),
    "metric": (
        [(f"datasets.{DATASET}.metric", "macro-f1")],
        table("sentence_embedding", "tfidf", *FROM_PROBE),
    ),
    "labels renamed": (
        [(f"datasets.{DATASET}.label_names", RENAMED)],
        table(*FROM_DATASET),
    ),
    "labels merged": (
        [(f"datasets.{DATASET}.label_names", {"food": "in", "sport": "out", "weather": "out"})],
        ALL,
    ),
    "max_length": ([(f"models.{MODEL}.max_length", 16)], table(*FROM_EXTRACT)),
    "storage_dtype": ([("extract.storage_dtype", "float32")], table(*FROM_EXTRACT)),
    # Whose shards are the same, but Snakemake knows no file by what is in it.
    "extract.parts": ([("extract.parts", 3)], table(*FROM_EXTRACT, extract=3, join=1)),
    # One forward pass writes all shards or none.
    "storage widened": (
        [("extract.poolings", ["max", "mean", "first"]), ("probe.poolings", ["max", "mean"])],
        table(*FROM_EXTRACT),
    ),
    # A probe's job has the shards of all stored layers for inputs; ffn has no layer 0.
    "layers stored narrowed": (
        [("extract.layers", [1, 2])],
        table(*FROM_PROBE, probe=2, sparsify=2, aggregate=3),
    ),
    "storage narrowed": ([("extract.poolings", ["mean"])], table("layers", *END)),
    "layers of the model said": ([(f"models.{MODEL}.layers", 2)], table()),
    "split fraction": ([(f"datasets.{DATASET}.splits.test", 0.2)], ALL),
    "seed": ([("seed", 8)], ALL),
    "seed, with a seed of the split's own": (
        [("seed", 8), (f"datasets.{DATASET}.split_seed", 7)],
        table(*TABLES),
    ),
    "seed of the split as before": ([(f"datasets.{DATASET}.split_seed", 7)], table()),
    # The same said in another way.
    "lists in another order": (
        [
            ("extract.poolings", ["mean", "max"]),
            ("extract.representations", ["hidden", "ffn"]),
            ("sparsify.etas", [0.6, 0.2]),
            ("combinations.both", ["hidden.mean", "ffn.mean"]),
            ("sentence_embedding.penalties", [100, 1]),
        ],
        table(),
    ),
    "defaults written out": (
        [
            ("runs", [{"model": MODEL, "dataset": [DATASET], "parts": 1}]),
            ("probe.poolings", "all"),
            ("probe.representations", ["ffn", "hidden"]),
            ("aggregate.l1_ratios", [0]),
            ("probe.tolerance", 5e-3),
            ("probe.device", "cpu"),
            (f"datasets.{DATASET}.encoding", ["utf-8"]),
            (f"models.{MODEL}.dtype", "float32"),
        ],
        table(),
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_runs_exactly_what_depends_on_it(variant, name):
    changes, expected = EDITS[name]
    assert snake.stages(variant(*changes)) == dict(sorted(expected.items()))


def test_keys_in_another_order_run_nothing(variant):
    assert variant(config=reordered(CONFIG)) == []


def test_a_layer_that_was_not_stored_before_is_a_forward_pass(copied):
    for path in copied.glob(f"results/activations/{DATASET}/{MODEL}/hidden.*.00.h5"):
        path.unlink()
    assert snake.stages(snake.planned(copied)) == table(*FROM_EXTRACT)


def test_the_project_itself_runs_nothing_again(finished):
    assert snake.planned(finished) == []
    assert "Nothing to be done" in snake.run(finished)


def test_narrowed_and_widened_back_nothing_costly_runs(copied, server):
    config = copied / "config.yaml"
    tiny_project.write_config(config, edited(*NARROWED))
    summary = (copied / "results" / "summary.csv").read_text(encoding="utf-8")
    snake.run(copied, "results/summary.csv", server=server)
    narrowed = (copied / "results" / "summary.csv").read_text(encoding="utf-8")
    assert ",max," in summary and ",max," not in narrowed
    tiny_project.write_config(config, CONFIG)
    assert snake.stages(snake.planned(copied)) == table("layers", *END)


def test_a_new_model_runs_its_own_jobs_only(variant, tmp_path, tiny_model):
    other = shutil.copytree(tiny_model, tmp_path / "other")
    found = variant(("models.other", {"path": str(other), "max_length": 24}))
    assert snake.stages(found) == table("card", *TABLES, **PAIR)
    for job in found:
        assert job.stage in ("card", *TABLES, "extract") or job.wildcards["model"] == "other"
        assert job.stage != "extract" or job.rule == f"extract_{DATASET}.other"


def test_a_new_dataset_runs_its_own_jobs_only(variant, tmp_path):
    path = tmp_path / "other.csv"
    tiny_project.write_csv(path, tiny_project.sentences(60, seed=1))
    entry = CONFIG["datasets"][DATASET] | {"path": str(path)}
    found = variant(("datasets.other", entry))
    assert snake.stages(found) == dict(sorted(ALL.items()))
    for job in found:
        assert job.stage in ("extract", *TABLES) or job.wildcards["dataset"] == "other"
        assert job.stage != "extract" or job.rule == f"extract_other.{MODEL}"


def test_the_order_of_the_entries_is_that_of_the_summary_and_nothing_else(
    variant, tmp_path, tiny_model
):
    other = {"path": str(tiny_model), "max_length": 24}
    first = variant(config=edited(("models", {MODEL: CONFIG["models"][MODEL], "other": other})))
    last = variant(config=edited(("models", {"other": other, MODEL: CONFIG["models"][MODEL]})))
    assert snake.stages(first) == snake.stages(last)


def test_a_run_of_fewer_pairs_runs_the_summary_only(copied, tmp_path):
    entry = CONFIG["datasets"][DATASET]
    config = edited(("datasets.second", entry), ("runs", [{"model": MODEL, "dataset": DATASET}]))
    tiny_project.write_config(copied / "config.yaml", config)
    assert snake.planned(copied) == []


@pytest.mark.parametrize("way", ["dot", "absolute", "variable", "both"])
def test_the_data_root_given_in_another_way_runs_nothing(variant, finished, way):
    changes = {
        "dot": [("data_root", ".")],
        "absolute": [("data_root", str(finished))],
        "both": [("data_root", str(finished))],
    }
    env = {"variable": str(finished), "both": "/nowhere"}
    given = {"PROBELINE_DATA_ROOT": env[way]} if way in env else {}
    assert variant(*changes.get(way, []), **given) == []


def test_a_project_that_was_moved_runs_nothing(copied):
    assert snake.planned(copied) == []


def test_a_touched_file_runs_nothing(copied):
    later = time.time() + 60
    os.utime(copied / "notes.csv", (later, later))
    assert snake.planned(copied) == []


def test_changed_texts_run_everything(copied):
    rows = tiny_project.sentences(120)
    tiny_project.write_csv(copied / "notes.csv", [("a new text", "food"), *rows[1:]])
    assert snake.stages(snake.planned(copied)) == dict(sorted(ALL.items()))


def test_relabelled_texts_keep_their_shards(copied, server):
    config = edited((f"datasets.{DATASET}.label_names", RENAMED))
    tiny_project.write_config(copied / "config.yaml", config)
    shards = sorted((copied / "results" / "activations").rglob("*.h5"))
    before = [(path, path.stat().st_mtime_ns) for path in shards]
    snake.run(copied, server=server)
    assert [(path, path.stat().st_mtime_ns) for path in shards] == before
    assert snake.planned(copied) == []
    classifier = copied / "results" / "classifiers" / DATASET / "label" / MODEL
    assert "meals" in (classifier / "classifier.json").read_text(encoding="utf-8")


def test_a_changed_model_runs_all_but_the_dataset(copied, tiny_model):
    (copied / "model").unlink()
    tiny_project.build_model(copied / "model", seed=1)
    assert snake.stages(snake.planned(copied)) == table(*FROM_EXTRACT)


def test_a_fresh_copy_of_the_workflow_runs_nothing(finished, tmp_path):
    for name in ("Snakefile", "config.yaml", "workflow", "profiles", "envs"):
        source = snake.ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, copy_function=shutil.copyfile)
        else:
            shutil.copyfile(source, tmp_path / name)
    assert snake.planned(finished, "-s", tmp_path / "Snakefile") == []


def test_notes_beside_the_model_run_nothing(copied, tiny_model):
    (copied / "model").unlink()
    subfolder = shutil.copytree(tiny_model, copied / "model")
    (subfolder / "README.md").write_text("About this model.\n")
    (subfolder / "train_log.txt").write_text("loss 0.3\n")
    assert snake.planned(copied) == []
