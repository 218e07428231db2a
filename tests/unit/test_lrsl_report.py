"""Counts of what reranking changed, one text at a time; scores by scikit-learn."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from rerank_tasks import cosines, guesses, random_task
from sklearn.metrics import accuracy_score, f1_score, recall_score

from probeline.files import write_json
from probeline.lrsl.curve import share_curve
from probeline.lrsl.examples import COLUMNS, examples, write_examples
from probeline.lrsl.report import by_class, changes, compare
from probeline.lrsl.report_tables import write_report_tables

KINDS = ["binary", "multiclass", "multilabel"]


def case(kind: str, metric: str | None = None):
    """A task, logits before and after, and the texts that were reranked."""
    task = random_task(kind, metric)
    before = guesses(task, "test", 1)
    flagged = np.random.default_rng(2).random(len(before)) < 0.5
    after = np.where(flagged[:, None], guesses(task, "test", 3), before)
    return task, before, after, flagged


def answer(row: np.ndarray, multilabel: bool):
    return tuple(np.flatnonzero(row > 0)) if multilabel else int(row.argmax())


def truth(y: np.ndarray, multilabel: bool):
    return tuple(np.flatnonzero(y)) if multilabel else int(y)


@pytest.mark.parametrize("kind", KINDS)
def test_counts_equal_a_loop(kind):
    task, before, after, flagged = case(kind)
    counted = {"changed": 0, "fixed": 0, "broken": 0}
    for y, was, now in zip(task.y["test"], before, after, strict=True):
        true, old, new = (
            truth(y, task.multilabel),
            answer(was, task.multilabel),
            answer(now, task.multilabel),
        )
        counted["changed"] += old != new
        counted["fixed"] += old != true and new == true
        counted["broken"] += old == true and new != true
    assert all(counted.values())
    found = compare(task, "test", before, after, flagged, seed=0)
    assert {key: found[key] for key in counted} == counted == changes(task, "test", before, after)
    assert (found["texts"], found["flagged"]) == (len(before), flagged.sum())
    gain = (counted["fixed"] - counted["broken"]) / len(before)
    every = found["all"]
    assert every["accuracy_after"] - every["accuracy_before"] == pytest.approx(gain)


def test_scores_are_scikit_learns():
    task, before, after, flagged = case("multiclass", "macro-f1")
    found = compare(task, "test", before, after, flagged, seed=0)
    y = task.y["test"]
    for part, rows in (("all", np.full(len(y), True)), ("hard", flagged)):
        for name, values in (("before", before), ("after", after)):
            guessed = values[rows].argmax(axis=1)
            f1 = f1_score(y[rows], guessed, average="macro")
            assert found[part][name] == pytest.approx(f1)
            assert found[part][f"accuracy_{name}"] == accuracy_score(y[rows], guessed)
        own = found[part]
        assert own["difference"] == own["after"] - own["before"]
        assert own["ci_low"] <= own["difference"] <= own["ci_high"]
    json.dumps(found, allow_nan=False)


def test_interval_is_that_of_the_paired_bootstrap():
    """Of an accuracy, the interval is close to the normal one of the mean of +1, 0 and -1."""
    task, before, after, flagged = case("multiclass")
    y = task.y["test"]
    gains = (after.argmax(1) == y).astype(float) - (before.argmax(1) == y)
    error = gains.std() / np.sqrt(len(y))
    own = compare(task, "test", before, after, flagged, seed=0)["all"]
    assert own["ci_low"] == pytest.approx(gains.mean() - 1.96 * error, abs=0.4 * error)
    assert own["ci_high"] == pytest.approx(gains.mean() + 1.96 * error, abs=0.4 * error)


def test_nothing_flagged():
    task, before, *_ = case("multiclass")
    found = compare(task, "test", before, before, np.zeros(len(before), bool), seed=0)
    assert found["flagged"] == found["changed"] == found["fixed"] == found["broken"] == 0
    assert set(found["hard"].values()) == {None}
    every = found["all"]
    assert (every["difference"], every["ci_low"], every["ci_high"]) == (0, 0, 0)


def test_hard_texts_that_were_not_reranked():
    task, before, *_ = case("multiclass")
    hard = np.arange(len(before)) % 3 == 0
    found = compare(task, "test", before, before, np.zeros(len(before), bool), 0, hard)
    right = accuracy_score(task.y["test"][hard], before[hard].argmax(axis=1))
    assert found["flagged"] == 0
    assert found["hard"]["accuracy_before"] == found["hard"]["accuracy_after"] == right
    assert found["hard"]["before"] == pytest.approx(right) and found["hard"]["difference"] == 0


def test_a_metric_that_cannot_score_the_hard_texts():
    task, before, after, _ = case("binary", "roc-auc")
    flagged = task.y["test"] == 1
    hard = compare(task, "test", before, after, flagged, seed=0)["hard"]
    assert hard["before"] is hard["ci_low"] is None
    assert 0 < hard["accuracy_before"] < 1


@pytest.mark.parametrize("kind", KINDS)
def test_by_class(kind):
    task, before, after, flagged = case(kind)
    y = task.y["test"]
    found = by_class(task, "test", before, after, flagged)
    assert [row["label"] for row in found] == list(task.labels)
    for code, row in enumerate(found):
        if task.multilabel:
            true, was, now = y[:, code] == 1, before[:, code] > 0, after[:, code] > 0
        else:
            true, was, now = (values == code for values in (y, before.argmax(1), after.argmax(1)))
        assert row["texts"] == true.sum()
        assert row["flagged"] == (true & flagged).sum()
        assert row["fixed"] == (true & ~was & now).sum()
        assert row["broken"] == (true & was & ~now).sum()
        assert row["recall_before"] == pytest.approx(recall_score(true, was))
        assert row["recall_after"] == pytest.approx(recall_score(true, now))
    if not task.multilabel:
        counts = compare(task, "test", before, after, flagged, seed=0)
        for name in ("texts", "flagged", "fixed", "broken"):
            assert sum(row[name] for row in found) == counts[name]


def test_a_class_without_texts():
    task, before, after, flagged = case("multiclass")
    task.y["test"][task.y["test"] == 4] = 0
    last = by_class(task, "test", before, after, flagged)[4]
    assert (last["texts"], last["recall_before"], last["recall_after"]) == (0, None, None)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("kind", KINDS)
def test_examples(kind, temperature, tmp_path):
    task, before, after, flagged = case(kind)
    similarity = cosines(task, "test", 4)
    texts = [f"text, {row}" for row in range(200)]
    given = task, "test", texts, before, after, flagged, similarity[flagged]
    frame = examples(*given, temperature=temperature)
    counts = changes(task, "test", before, after)
    assert len(frame) == counts["changed"]
    outcomes = frame["outcome"].value_counts()
    assert outcomes.get("fixed", 0) == counts["fixed"]
    assert outcomes.get("broken", 0) == counts["broken"]
    order = [["fixed", "broken", "changed"].index(name) for name in frame["outcome"]]
    assert order == sorted(order)
    first = task.rows["test"][0]
    for row in frame.to_dict("records"):
        place = row["row"] - first
        assert row["text"] == texts[row["row"]]
        old = answer(before[place], task.multilabel)
        true = truth(task.y["test"][place], task.multilabel)
        if task.multilabel:
            assert row["old_label"] == " | ".join(task.labels[code] for code in old)
            numbers = " | ".join(f"{similarity[place, code]:.4f}" for code in true)
            assert row["true_similarity"] == numbers
            for name, values in (("before", before), ("after", after)):
                p = 1 / (1 + np.exp(-values[place].astype(float) / temperature))
                shown = [
                    float(value) for value in row[f"old_probability_{name}"].split(" | ") if value
                ]
                assert shown == pytest.approx(p[list(old)], abs=1e-4)
                assert name == "after" or all(value >= 0.5 for value in shown)
            continue
        new = answer(after[place], False)
        assert (row["old_label"], row["new_label"], row["true_label"]) == tuple(
            task.labels[code] for code in (old, new, true)
        )
        assert row["new_similarity"] == similarity[place, new]
        for name, values in (("before", before), ("after", after)):
            p = np.exp(values[place].astype(float) / temperature)
            p /= p.sum()
            assert row[f"old_probability_{name}"] == pytest.approx(p[old], rel=1e-5)
            assert row[f"new_probability_{name}"] == pytest.approx(p[new], rel=1e-5)
    write_examples(frame, tmp_path / "examples.csv")
    read = pd.read_csv(tmp_path / "examples.csv", keep_default_na=False)
    assert list(read.columns) == list(COLUMNS)
    assert read["text"].tolist() == frame["text"].tolist()


def test_few_examples():
    task, before, after, flagged = case("multiclass")
    similarity = cosines(task, "test", 4)[flagged]
    frame = examples(task, "test", None, before, after, flagged, similarity, limit=2)
    assert frame["outcome"].tolist() == ["fixed"] * 2 + ["broken"] * 2 + ["changed"] * 2
    assert frame["text"].isna().all()
    assert frame["row"].iloc[0] < frame["row"].iloc[1]


def test_no_examples(tmp_path):
    task, before, *_ = case("multiclass")
    nothing = np.zeros(len(before), dtype=bool)
    frame = examples(task, "test", None, before, before, nothing, np.empty((0, 5)))
    write_examples(frame, tmp_path / "none.csv")
    assert (tmp_path / "none.csv").read_text() == ",".join(COLUMNS) + "\n"


def test_the_curve_equals_reranking_so_many():
    task, before, *_ = case("multiclass")
    y, everything = task.y["test"], guesses(task, "test", 5)
    certainty = np.random.default_rng(6).permutation(len(y)) / 10
    found = share_curve(task, "test", before, everything, certainty, chosen=17, points=11)
    counts = {round(share * len(y)) for share in np.linspace(0, 1, 11)} | {17}
    assert [row["texts"] for row in found] == sorted(counts)
    for row in found:
        hard = certainty < np.sort(certainty)[row["texts"]] if row["texts"] < len(y) else True
        answers = np.where(hard, everything.argmax(1), before.argmax(1))
        assert row["score"] == accuracy_score(y, answers)
        assert row["share"] == row["texts"] / len(y)
    assert found[0]["share"] == 0 and found[-1]["share"] == 1


def test_the_curve_ends_with_what_was_embedded():
    task, before, *_ = case("multiclass")
    everything, certainty = guesses(task, "test", 5), np.arange(len(before)) / 10
    known = certainty < 2.35
    found = share_curve(task, "test", before, everything, certainty, known)
    assert found[-1]["texts"] == known.sum() == 24
    whole = share_curve(task, "test", before, everything, certainty, chosen=24)
    assert found[-1] in whole
    none = share_curve(task, "test", before, everything, certainty, np.zeros(len(known), bool))
    assert [row["texts"] for row in none] == [0]


def test_tables_of_two_seeds(tmp_path):
    task, before, after, flagged = case("multiclass")
    paths = []
    for seed, values in ((1, after), (2, before)):
        own = {"seed": seed, "metric": "accuracy", "variant": "prob, power 2"}
        hard = flagged | (np.arange(len(flagged)) < 9)
        own |= {"hard_texts": dict.fromkeys(("validation", "test"), int(hard.sum()))}
        own["by_class"] = {}
        for split in ("validation", "test"):
            # Both splits are the test texts here.
            own[split] = compare(task, "test", before, values, flagged, 0, hard)
            own["by_class"][split] = by_class(task, "test", before, values, flagged)
        paths.append(tmp_path / f"{seed}.json")
        write_json(paths[-1], own)
    files = tmp_path / "changes.csv", tmp_path / "classes.csv"
    write_report_tables(paths, *files)
    rows, classes = (pd.read_csv(path) for path in files)
    assert rows["seed"].tolist() == [1] * 4 + [2] * 4
    assert rows["of"].tolist() == ["all", "hard"] * 4
    first, second = rows.iloc[2], rows.iloc[3]
    y = task.y["test"]
    assert (first["split"], first["texts"], second["texts"]) == ("test", len(y), hard.sum())
    assert first["hard"] == hard.sum() > flagged.sum() and first["reranked"] == flagged.sum()
    assert first["after"] == pytest.approx(accuracy_score(y, after.argmax(1)), rel=1e-5)
    right = accuracy_score(y[hard], after[hard].argmax(1))
    assert second["after"] == pytest.approx(right, rel=1e-5)
    assert first["fixed"] == changes(task, "test", before, after)["fixed"]
    assert (rows["fixed"][4:] == 0).all()
    assert classes["label"].tolist() == [*task.labels] * 4
    assert classes["texts"][:5].tolist() == np.bincount(y, minlength=5).tolist()
