"""Every row of the ablations against reranking text by text."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow.parquet as pq
import pytest
from rerank_tasks import cosines, guesses, random_task
from scipy.special import expit, logit, softmax
from sklearn.metrics import accuracy_score, f1_score

from probeline.lrsl.ablations import Hardness, Similarities, ablations, write_ablations
from probeline.lrsl.rerank import Form

FORMS = [Form.nothing(), Form("prob", 1.0), Form("prob", 3.0), Form("mix", 1.0, 0.3)]


def given(kind: str):
    task = random_task(kind)
    logits = {split: guesses(task, split, i) for i, split in enumerate(("validation", "test"))}
    sets = [
        Similarities(
            name,
            crossfit,
            {split: cosines(task, split, 9 * seed + i) for i, split in enumerate(logits)},
        )
        for seed, (name, crossfit) in enumerate([("untuned", None), ("tuned", True)], 1)
    ]
    return task, logits, sets


def naive(row, logits, similarity, threshold):
    """Answers of single-label texts, one at a time."""
    answers, flagged = [], 0
    for z, s in zip(logits.astype(float), similarity.astype(float), strict=True):
        top = np.argsort(-z)[: row["k"]]
        answers.append(int(z.argmax()))
        if row["rerank"] == "hard" and not (threshold is not None and z[top].var() <= threshold):
            continue
        flagged += 1
        s, p = np.maximum(s[top], 0), softmax(z)[top]
        if s.max() > 0:
            scores = p * s ** row["power"]
            if row["form"] == "mix":
                scores = p ** (1 - row["weight"]) * s ** (row["weight"] * row["power"])
            answers[-1] = int(top[scores.argmax()])
    return np.array(answers), flagged


def test_every_row_equals_a_loop(tmp_path):
    task, logits, sets = given("multiclass")
    table = ablations(task, logits, sets, FORMS, [2, 3], Hardness(), seed=0)
    first, *rows = table.to_pylist()
    assert first["form"] == "nothing"
    assert first["test_flagged"] == first["difference"] == first["ci_low"] == first["ci_high"] == 0
    settings = itertools.product([2, 3], ["untuned", "tuned"], ["hard", "all"], FORMS[1:])
    assert len(rows) == len(list(settings))
    seen = {
        (r["embedding"], r["crossfit"], r["rerank"], r["k"], r["form"], r["power"]) for r in rows
    }
    assert len(seen) == len(rows)
    similarity = {s.embedding: s.of for s in sets}
    before = {split: values.argmax(1) for split, values in logits.items()}
    for row in rows:
        wrong = before["validation"] != task.y["validation"]
        variances = np.sort(logits["validation"].astype(float))[:, -row["k"] :].var(axis=1)
        threshold = variances[wrong].mean()
        if row["rerank"] == "hard":
            assert row["threshold"] == pytest.approx(threshold)
        for split, y in (("validation", task.y["validation"]), ("test", task.y["test"])):
            cosine = similarity[row["embedding"]][split]
            answers, flagged = naive(row, logits[split], cosine, threshold)
            assert row[f"{split}_score"] == accuracy_score(y, answers)
            assert row[f"{split}_flagged"] == flagged
            was, now = before[split] == y, answers == y
            assert row[f"{split}_fixed"] == (~was & now).sum()
            assert row[f"{split}_broken"] == (was & ~now).sum()
            assert row[f"{split}_changed"] == (before[split] != answers).sum()
        gain = row["test_score"] - first["test_score"]
        assert row["difference"] == pytest.approx(gain)
        assert row["ci_low"] <= gain <= row["ci_high"]
    (chosen,) = (row for row in table.to_pylist() if row["chosen"])
    assert chosen["validation_score"] == max(row["validation_score"] for row in (first, *rows))
    write_ablations(table, tmp_path / "ablations.parquet")
    assert pq.read_table(tmp_path / "ablations.parquet").equals(table)


def test_what_validation_chooses_does_not_hang_on_test_labels():
    task, logits, sets = given("multiclass")
    one = ablations(task, logits, sets, FORMS, [2, 3], Hardness(), seed=0)
    task.y["test"] = np.random.default_rng(1).permutation(task.y["test"])
    other = ablations(task, logits, sets, FORMS, [2, 3], Hardness(), seed=0)
    assert one["test_score"] != other["test_score"]
    names = [name for name in one.column_names if name.startswith("validation")]
    names += ["chosen", "threshold", "test_flagged", "test_changed"]
    assert one.select(names).equals(other.select(names))


def test_harmless_similarities_are_not_chosen():
    """Where no setting is better, doing nothing is the choice."""
    task, logits, _ = given("multiclass")
    same = Similarities("tuned", False, {s: np.full_like(v, 0.5) for s, v in logits.items()})
    table = ablations(task, logits, [same], FORMS, [3], Hardness(), seed=0)
    assert table["chosen"].to_pylist() == [True] + [False] * (len(table) - 1)
    assert set(table["difference"].to_pylist()) == {0}


def test_no_text_is_wrong():
    """Nothing is hard then."""
    task, logits, sets = given("multiclass")
    logits["validation"] = np.eye(5, dtype=np.float32)[task.y["validation"]]
    table = ablations(task, logits, sets, FORMS, [3], Hardness(), seed=0)
    for row in table.to_pylist()[1:]:
        if row["rerank"] == "hard":
            assert row["threshold"] is None
            assert row["test_flagged"] == row["validation_flagged"] == 0


def test_a_quantile_and_all_labels():
    task, logits, sets = given("multiclass")
    hardness = Hardness("margin", 0.25)
    table = ablations(task, logits, sets, [Form("prob", 2.0)], [2], hardness, seed=0, top_k=False)
    for row in table.to_pylist()[1:]:
        p = np.sort(softmax(logits["validation"].astype(float), axis=1))
        margins = p[:, -1] - p[:, -2]
        if row["rerank"] == "hard":
            assert row["threshold"] == pytest.approx(np.quantile(margins, 0.25))
            continue
        similarity = next(s.of for s in sets if s.embedding == row["embedding"])
        # Of all five labels.
        answers, _ = naive(row | {"k": 5}, logits["test"], similarity["test"], None)
        assert row["test_score"] == accuracy_score(task.y["test"], answers)


def test_multilabel_thresholds_are_chosen_on_validation():
    task, logits, sets = given("multilabel")
    table = ablations(task, logits, sets[:1], [Form("prob", 1.0)], [5], Hardness(), 0, top_k=False)
    row = next(row for row in table.to_pylist() if row["rerank"] == "all")
    scores = {}
    for split, z in logits.items():
        p = expit(z.astype(float)) * np.maximum(sets[0].of[split], 0)
        usable = sets[0].of[split].max(axis=1, keepdims=True) > 0
        scores[split] = np.where(usable, logit(np.clip(p, 1e-300, 1)), z)
    best = max(
        f1_score(task.y["validation"], scores["validation"] > at, average="micro", zero_division=0)
        for at in scores["validation"].ravel() - 1e-6
    )
    assert row["validation_score"] == pytest.approx(best, abs=0.02)
    assert row["validation_score"] > f1_score(
        task.y["validation"], scores["validation"] > 0, average="micro"
    )
