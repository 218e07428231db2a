"""A hyperparameter search in a run, what an edit of it runs again, and the run after it."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import snake
import tiny_project
import yaml
from fixtures import assert_kept, edited_stages, run_once
from tiny_project import DATASET, MODEL, TASK, edited

CONFIG = edited(
    ("extract.representations", ["hidden"]),
    ("extract.poolings", ["mean"]),
    ("combinations", {}),
    ("baselines", []),
    ("finetune", {"evaluations": 2}),
    ("label_tokens", {"initializations": ["random"]}),
    (
        "search",
        {
            "classifiers": ["finetune", "label-tokens"],
            "trials": 3,
            "workers": 2,
            "space": {
                "learning_rate": {"low": 1e-5, "high": 1e-2, "log": True},
                "epochs": [1, 2],
                "batch_size": [16],
            },
        },
    ),
)
CLASSIFIERS = ("finetune", "label-tokens-random")
FOUND = {"search_figure": 2, "search_report": 2}


def place(folder, classifier):
    return folder / "results" / "search" / DATASET / TASK / MODEL / classifier


@pytest.fixture(scope="module")
def searched(shared, tiny_model, server):
    """A project that has run whole; for dry runs, not to be changed."""

    def build(folder):
        tiny_project.build_project(folder, tiny_model, CONFIG)

    return run_once(shared, "search", build, server)


@pytest.fixture
def variant(searched, tmp_path):
    """Return the stages that would run again under another configuration."""
    return edited_stages(searched, tmp_path, CONFIG)


EDITS = {
    "nothing": ([], {}),
    "trials": ([("search.trials", 4)], FOUND | {"search": 4}),
    "a job more": ([("search.workers", 3)], FOUND | {"search": 2}),
    "a setting that is searched": ([("finetune.epochs", 7)], {}),
    "a setting that is not": ([("finetune.schedule", "cosine")], FOUND | {"search": 4}),
    "one classifier": (
        [("label_tokens.dropout", 0.2)],
        {"search": 2, "search_figure": 1, "search_report": 1},
    ),
    "report_to": ([("finetune.report_to", ["tensorboard"])], {}),
    "none": ([("search.classifiers", [])], {}),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_runs_exactly_what_depends_on_it(variant, name):
    changes, expected = EDITS[name]
    assert variant(*changes) == dict(sorted(expected.items()))


def test_no_secret_is_written_or_printed(searched):
    assert_kept(searched)


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_the_jobs_have_shared_the_trials(searched, classifier):
    folder = place(searched, classifier)
    own = [json.loads((folder / f"worker-{worker}.json").read_text()) for worker in range(2)]
    assert sorted(number for one in own for number in one["trials"]) == [0, 1, 2]
    table = pd.read_csv(folder / "trials.csv")
    assert len(table) == 3 and set(table["state"]) <= {"complete", "pruned"}
    figures = searched / "results" / "figures" / DATASET / TASK / MODEL
    assert (figures / f"search-{classifier}.svg").stat().st_size > 1000


def test_the_next_run_takes_the_best_settings(searched):
    for classifier, keys in zip(CLASSIFIERS, [[], ["label_tokens"]], strict=True):
        best = place(searched, classifier) / "best.yaml"
        found = yaml.safe_load(best.read_text())
        for key in [*keys, "finetune"]:
            found = found[key]
        table = pd.read_csv(place(searched, classifier) / "trials.csv")
        complete = table[table["state"] == "complete"]
        row = complete.loc[complete["score"].idxmax()]
        assert found == pytest.approx({name: row[name] for name in found})
        assert set(found) == {"learning_rate", "epochs", "batch_size", "weight_decay", "warmup"}
        # Beside the configuration, and checked with it.
        planned = snake.planned(searched, "--configfile", searched / "config.yaml", best)
        assert snake.stages(planned) == {}
