"""The table of labels as tokens beside the regular classifier, from tables made by hand."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

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
