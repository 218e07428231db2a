"""Fine-tuned models and all baselines in one run, and what an edit of each runs again."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import snake
import tiny_project
from fixtures import assert_kept, edited_stages, run_once
from rerun_table import PAIR, TABLES
from tiny_language_models import build_causal
from tiny_project import DATASET, MODEL, TASK, edited

from probeline.results.predictions import read_predictions

TUNED, ASKED = "tuned", "asked"
CONFIG = edited(
    ("extract.poolings", ["mean"]),
    (f"models.{TUNED}", {"finetuned_from": MODEL, "on": DATASET, "max_length": 16}),
    (f"models.{ASKED}", {"path": "./causal"}),
    ("baselines", ["sentence-embedding", "tfidf", "zero-shot", "icl", "finetune"]),
    ("icl", {"models": [ASKED], "seeds": [1, 2], "shots": 1, "max_texts": {"test": 20}}),
    ("finetune", {"models": [MODEL], "seeds": [1, 2], "epochs": 2, "learning_rate": 1e-3}),
)
MODELS = (MODEL, TUNED, ASKED)
# Of one pair with one pooling of two representations.
OF_PAIR = PAIR | {"probe": 2, "sparsify": 2, "aggregate": 3}
# The seeds of the baseline, and that of the model.
TRAINED = {"finetune": 3, "training_figure": 3}


@pytest.fixture(scope="module")
def compared(shared, tiny_model, server):
    """A project with every method that has run whole; for dry runs, not to be changed."""

    def build(folder):
        tiny_project.build_project(folder, tiny_model, CONFIG)
        build_causal("gpt2", folder / "causal")

    return run_once(shared, "compared", build, server)


@pytest.fixture
def variant(compared, tmp_path):
    """Return the stages that would run again under another configuration."""
    return edited_stages(compared, tmp_path, CONFIG)


def counts(*stages: str, **more: int) -> dict[str, int]:
    return dict(sorted((dict.fromkeys(stages, 1) | more).items()))


EDITS = {
    "nothing": ([], counts()),
    "tfidf": ([("tfidf.penalties", [1])], counts("tfidf", *TABLES)),
    "zero_shot": ([("zero_shot.temperature", 0.1)], counts(*TABLES, zero_shot=3)),
    "icl": ([("icl.shots", 2)], counts(*TABLES, icl=2)),
    "a seed of icl more": ([("icl.seeds", [1, 2, 3])], counts(*TABLES, icl=1)),
    "a seed of icl less": ([("icl.seeds", [1])], counts(*TABLES)),
    "label_texts": (
        [(f"datasets.{DATASET}.label_texts", {"food": ["a meal", "a dish"]})],
        counts(*TABLES, zero_shot=3, icl=2),
    ),
    "a seed of fine-tuning more": (
        [("finetune.seeds", [1, 2, 3])],
        counts("finetune", "training_figure", *TABLES),
    ),
    # The model that is made from another one is read anew.
    "finetune": (
        [("finetune.epochs", 1)],
        counts("card", *TABLES, **TRAINED, **(OF_PAIR | {"zero_shot": 1})),
    ),
    "report_to": ([("finetune.report_to", ["tensorboard"])], counts()),
    "lora": (
        [("finetune.lora", {"rank": 2})],
        counts("card", *TABLES, **TRAINED, **(OF_PAIR | {"zero_shot": 1})),
    ),
    "the tuned model's length": (
        [(f"models.{TUNED}.max_length", 12)],
        counts("card", *TABLES, **(OF_PAIR | {"zero_shot": 1})),
    ),
    "the tuned model's seed": (
        [(f"models.{TUNED}.seed", 1)],
        # It is trained already: for the baseline.
        counts("card", *TABLES, **(OF_PAIR | {"zero_shot": 1})),
    ),
    "no baseline": ([("baselines", [])], counts(*TABLES, layer_figure=3, tradeoff_figure=3)),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_runs_exactly_what_depends_on_it(variant, name):
    changes, expected = EDITS[name]
    assert variant(*changes) == dict(sorted(expected.items()))


def test_a_model_tuned_on_one_dataset_runs_on_another(compared, tmp_path):
    """The one it is tuned on is read and nothing else; so is the model that it is made from."""
    other = tmp_path / "other.csv"
    tiny_project.write_csv(other, tiny_project.sentences(60, seed=1))
    entry = CONFIG["datasets"][DATASET]
    path = tiny_project.write_config(
        tmp_path / "edited.yaml",
        edited(
            ("datasets.first", entry | {"path": str(other)}),
            (f"models.{TUNED}.on", "first"),
            ("runs", [{"model": TUNED, "dataset": DATASET}]),
            ("baselines", ["tfidf"]),
            base=CONFIG,
        ),
    )
    found = snake.planned(compared, "--configfile", path)
    assert snake.stages(found) == counts(
        "card", "texts", "dataset", "finetune", "training_figure", *TABLES, **tail_of_pair()
    )
    of_first = {job.stage for job in found if job.wildcards.get("dataset") == "first"}
    assert of_first == {"texts", "dataset", "finetune", "training_figure"}


def tail_of_pair() -> dict[str, int]:
    """A pair's jobs without a baseline."""
    return {stage: count for stage, count in OF_PAIR.items() if stage != "sentence_embedding"}


def test_no_secret_is_written_or_printed(compared):
    assert_kept(compared)


def test_every_method_is_in_the_summary(compared):
    rows = pd.read_csv(compared / "results" / "summary.csv")
    rows = rows[rows["split"] == "test"]
    methods = {
        model: {"stc", "probe", "last-layer", "sentence-embedding", "zero-shot"} for model in MODELS
    }
    methods[MODEL] |= {"finetune"}
    methods[TUNED] |= {"finetune"}
    methods[ASKED] |= {"icl"}
    methods["tfidf"] = {"tfidf"}
    assert rows.groupby("model")["method"].agg(set).to_dict() == methods
    trained = rows[(rows["model"] == MODEL) & (rows["method"] == "finetune")]
    single = trained[trained["seed"].notna()]
    assert sorted(single["seed"]) == [1, 2]
    mean = trained[trained["seed"].isna()].iloc[0]
    assert mean["score"] == pytest.approx(single["score"].mean(), rel=1e-4)
    assert mean["std"] == pytest.approx(single["score"].std(ddof=1), rel=1e-4)
    assert mean["ci_low"] <= mean["score"] <= mean["ci_high"]


def test_every_method_is_compared(compared):
    rows = pd.read_csv(compared / "results" / "comparisons.csv")
    assert set(rows[rows["model"] == ASKED]["against"]) >= {"icl", "tfidf", "zero-shot"}
    assert set(rows[rows["model"] == MODEL]["against"]) >= {"finetune", "tfidf", "zero-shot"}
    asked = rows[rows["against"] == "icl"].iloc[0]
    assert asked["texts"] == 20 and asked["against_seeds"] == 2
    whole = rows[rows["against"] == "tfidf"].iloc[0]
    assert whole["texts"] == 30 and 0 <= whole["mcnemar_p"] <= 1


def test_a_fine_tuned_model_is_read_as_any_other(compared):
    """Its last hidden state and head give the logits that training has stored."""
    import torch
    import transformers

    folder = compared / "results" / "finetuned" / DATASET / TASK / MODEL / "7"
    stored = read_predictions(
        compared / "results" / "predictions" / DATASET / TASK / MODEL / "finetune-7.h5"
    )
    texts = pd.read_parquet(compared / "results" / "datasets" / DATASET / "texts.parquet")["text"]
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        fresh = [
            model(**tokenizer(text, return_tensors="pt", truncation=True, max_length=24)).logits[0]
            for text in texts[:10]
        ]
    assert np.allclose(stored.logits[:10], torch.stack(fresh).numpy(), atol=1e-4)
    assert [model.config.id2label[k] for k in range(3)] == stored.labels
    activations = compared / "results" / "activations" / DATASET / TUNED
    assert sorted(path.name for path in activations.glob("hidden.*.h5")) == [
        f"hidden.mean.{layer:02}.h5" for layer in range(3)
    ]


def test_only_what_is_not_trained_here_is_shared(compared, tmp_path):
    """Snakemake's cache knows a trained model by its recipe, which other machines follow to
    other weights."""
    printed = snake.run(compared, "-n")
    lines = [line for line in printed.splitlines() if "eligible for caching" in line]
    eligible = [line.split("rule ")[1].split()[0] for line in lines]
    assert [rule for rule in eligible if rule.startswith("extract")] == [
        f"extract_{DATASET}.{model}" for model in (MODEL, ASKED)
    ]
    assert not [rule for rule in eligible if rule.startswith(("finetune", "label_tokens"))]
