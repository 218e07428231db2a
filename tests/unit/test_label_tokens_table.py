"""The table of labels as tokens beside the regular classifier, from tables made by hand."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from probeline.finetune.metrics import multilabel_metrics
from probeline.results.label_tokens import COLUMNS, label_tokens_table, write_label_tokens

CELL = {"dataset": "d", "task": "label", "model": "m"}


def scored(method: str, variant: str, seeds: int, test: float, **more) -> list[dict]:
    row = CELL | {"method": method, "variant": variant, "seeds": seeds, "metric": "accuracy"} | more
    intervals = {"ci_low": test - 0.1, "ci_high": test + 0.1, "std": 0.01 if seeds > 1 else None}
    return [
        row | intervals | {"split": split, "score": score}
        for split, score in (("validation", test + 0.05), ("test", test))
    ]


@pytest.fixture
def given(tmp_path):
    """A summary, comparisons and entries of a regular classifier and two series, two seeds each."""
    summary = [
        *scored("stc", "selected", 1, 0.99),
        *scored("regular", "full", 1, 0.4),
        *scored("regular", "mean of 2 seeds", 2, 0.5),
        *scored("label-tokens", "mix", 1, 0.1),
        *scored("label-tokens", "mix: mean of 2 seeds", 2, 0.6),
        *scored("label-tokens", "mix-isolated: mean of 2 seeds", 2, 0.7),
    ]
    other = [row | {"model": "other", "score": 0.0} for row in summary]
    against = CELL | {"method": "regular", "against": "label-tokens", "p_holm": 0.03}
    against |= {"against_variant": "mix: mean of 2 seeds", "difference": -0.1}
    against |= {"ci_low": -0.15, "ci_high": 0.02}
    stc = against | {"method": "stc", "difference": 0.9}
    entries = []
    for method, series in (
        ("regular", None),
        ("label-tokens", "mix"),
        ("label-tokens", "mix-isolated"),
    ):
        paths = []
        for seed in (1, 2):
            scores = {"seconds_per_epoch": 10.0 * seed}
            if series:
                scores["order"] = {"changed": 0.25 * seed, "difference": 1.0}
            if series == "mix":
                scores["chunk_difference"] = float(seed)
            if series == "mix-isolated":
                scores["shortlist"] = {"labels": 20, "recall": {"test": 0.8 + 0.1 * seed}}
            paths.append(tmp_path / f"{method}-{series}-{seed}.json")
            paths[-1].write_text(json.dumps(scores))
        entries.append(CELL | {"method": method, "series": series, "scores": paths})
    return pd.DataFrame(summary + other), pd.DataFrame([stc, against]), entries


def test_a_row_for_each_series(given):
    table = label_tokens_table(*given)
    assert tuple(table.columns) == COLUMNS
    assert list(table["variant"]) == ["", "mix", "mix-isolated"] and set(table["seeds"]) == {2}
    assert list(table["test"]) == [0.5, 0.6, 0.7] and list(table["std"]) == [0.01] * 3
    assert table["validation"].tolist() == pytest.approx([0.55, 0.65, 0.75])
    assert list(table["seconds_per_epoch"]) == [15.0] * 3


def test_differences_are_turned_round(given):
    table = label_tokens_table(*given)
    row = table.iloc[1]
    assert row["minus_regular"] == pytest.approx(0.1) and row["p_holm"] == 0.03
    assert (row["difference_low"], row["difference_high"]) == (-0.02, 0.15)
    # Of the regular one itself, and where nothing was compared.
    assert table["minus_regular"].isna().tolist() == [True, False, True]


def test_what_scores_files_tell_and_do_not(given):
    table = label_tokens_table(*given)
    np.testing.assert_array_equal(table["order_changes"], [np.nan, 0.375, 0.375])
    np.testing.assert_array_equal(table["chunk_difference"], [np.nan, 1.5, np.nan])
    np.testing.assert_allclose(table["recall_test"].astype(float), [np.nan, np.nan, 0.95])
    assert table["labels_read"][2] == 20


MULTILABEL = ["micro_f1", "macro_f1", "roc_auc_micro", "subset_accuracy"]


def with_labels(entry: dict, labels: list[np.ndarray], logits: list[np.ndarray]) -> None:
    """Enter in the scores file of each seed what it tells of a multi-label test split."""
    for path, y, z in zip(entry["scores"], labels, logits, strict=True):
        found = multilabel_metrics(y, z, 0.3)
        other = dict.fromkeys(found, 9.0)
        scores = {"multilabel": {"validation": other, "test": found}}
        path.write_text(json.dumps(json.loads(path.read_text()) | scores))


def naive(y: np.ndarray, logits: np.ndarray) -> list[float]:
    """scikit-learn's scores of probabilities, in the order of `MULTILABEL`."""
    p = 1 / (1 + np.exp(-logits))
    decided = p > 1 / (1 + np.exp(-0.3))
    return [
        metrics.f1_score(y, decided, average="micro"),
        metrics.f1_score(y, decided, average="macro"),
        metrics.roc_auc_score(y, p, average="micro"),
        metrics.accuracy_score(y, decided),
    ]


def test_scores_of_several_labels_are_means_over_seeds_of_test(given):
    rng = np.random.default_rng(0)
    summary, comparisons, entries = given
    expected = []
    for entry in entries[:2]:
        logits = list(rng.standard_normal((2, 40, 3)))
        labels = [z + 1.5 * rng.standard_normal(z.shape) > 0.5 for z in logits]
        with_labels(entry, labels, logits)
        expected.append(np.mean([naive(*one) for one in zip(labels, logits, strict=True)], axis=0))
    table = label_tokens_table(summary, comparisons, entries)
    np.testing.assert_allclose(table[MULTILABEL][:2].astype(float), expected, rtol=1e-6)
    assert len(np.unique(np.round(expected, 6))) == 8
    # The third row is of one label per text: its scores files know nothing of the kind.
    assert table[MULTILABEL][2:].isna().all(axis=None)
    assert table["test"].tolist() == [0.5, 0.6, 0.7]


def test_scores_of_several_labels_that_do_not_exist_are_empty(given, tmp_path):
    """ROC-AUC where no label holds, and all of them where no seed tells any."""
    summary, comparisons, entries = given
    none = np.zeros((5, 3), int)
    with_labels(entries[1], [none, none], [np.ones((5, 3))] * 2)
    summary.to_parquet(tmp_path / "summary.parquet")
    comparisons.to_parquet(tmp_path / "comparisons.parquet")
    out = tmp_path / "label_tokens.csv"
    paths = tmp_path / "summary.parquet", tmp_path / "comparisons.parquet"
    write_label_tokens(*paths, entries, out)
    lines = [line.split(",") for line in out.read_text().splitlines()]
    places = [lines[0].index(name) for name in MULTILABEL]
    assert [[line[place] for place in places] for line in lines[1:]] == [
        ["", "", "", ""],
        ["0", "0", "", "0"],
        ["", "", "", ""],
    ]


def test_one_seed_and_no_comparison(given, tmp_path):
    summary, comparisons, entries = given
    one = entries[1] | {"scores": entries[1]["scores"][:1]}
    summary.to_parquet(tmp_path / "summary.parquet")
    comparisons[:1].to_parquet(tmp_path / "comparisons.parquet")
    out = tmp_path / "label_tokens.csv"
    write_label_tokens(tmp_path / "summary.parquet", tmp_path / "comparisons.parquet", [one], out)
    row = pd.read_csv(out).iloc[0]
    assert (row["variant"], row["seeds"], row["test"]) == ("mix", 1, 0.1)
    assert np.isnan(row["std"]) and np.isnan(row["minus_regular"]) and row["order_changes"] == 0.25
