"""Every row of the ablations against reranking text by text."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from rerank_tasks import cosines, guesses, random_task
from scipy.special import expit, logit, softmax
from sklearn.metrics import accuracy_score, f1_score

from probeline.lrsl.ablation_settings import setting_of
from probeline.lrsl.ablations import (
    Hardness,
    Similarities,
    ablations,
    write_ablations,
)
from probeline.lrsl.combiner import CombinerOptions, cross_validated, fit_combiner
from probeline.lrsl.decision import Decision
from probeline.lrsl.rerank import Form
from probeline.lrsl.reranking import Reranking

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
    (best,) = (row for row in table.to_pylist() if row["best_on_validation"])
    assert best["validation_score"] == max(row["validation_score"] for row in (first, *rows))
    assert not any(row["chosen"] for row in (first, *rows))
    files = tmp_path / "ablations.parquet", tmp_path / "ablations.csv"
    write_ablations(table, *files)
    assert pq.read_table(files[0]).equals(table)
    read = pd.read_csv(files[1])
    assert list(read.columns) == table.column_names
    assert read["test_score"].tolist() == pytest.approx(table["test_score"].to_pylist(), rel=1e-5)
    assert files[1].read_text().splitlines()[1].startswith(",,,,nothing,,,,")


def test_what_the_reranker_does_is_marked():
    task, logits, sets = given("multiclass")
    plain = ablations(task, logits, sets, FORMS, [2, 3], Hardness(), seed=0).to_pylist()
    wrong = logits["validation"].argmax(axis=1) != task.y["validation"]
    threshold = np.sort(logits["validation"].astype(float))[:, -3:].var(axis=1)[wrong].mean()

    def table(reranking, k=3):
        chosen = setting_of(Decision(reranking, "variance", k).plain(), sets[1])
        rows = ablations(task, logits, sets, FORMS, [2, 3], Hardness(), 0, chosen=chosen)
        marked = [row for row in rows.to_pylist() if row["chosen"]]
        assert len(marked) == 1
        return len(rows) - len(plain), marked[0] | {"chosen": False}

    added, row = table(Reranking(Form("prob", 3.0, candidates=3), float(threshold)))
    assert added == 0 and row in plain
    assert (row["embedding"], row["rerank"], row["k"], row["power"]) == ("tuned", "hard", 3, 3.0)
    added, row = table(Reranking(Form.nothing(), None))
    assert added == 0 and row == plain[0]
    # As the rule 'validation' has it: a threshold of its own.
    added, row = table(Reranking(Form("prob", 3.0, candidates=3), float(threshold) / 2))
    assert added == 1 and row["threshold"] == threshold / 2
    cosine = sets[1].of["test"]
    answers, flagged = naive(row, logits["test"], cosine, threshold / 2)
    assert row["test_score"] == accuracy_score(task.y["test"], answers)
    assert row["test_flagged"] == flagged


def test_the_learned_form_is_judged_by_texts_it_was_not_fitted_on():
    task, logits, sets = given("multiclass")
    table = ablations(task, logits, sets[:1], [], [3], Hardness(), 5, combiner=True)
    row = next(row for row in table.to_pylist() if row["rerank"] == "all")
    assert row["form"] == "mlp" and row["power"] is row["weight"] is None
    own = logits["validation"], sets[0].of["validation"], task.y["validation"]
    options = CombinerOptions(candidates=3)
    wrong = own[0].argmax(axis=1) != own[2]
    unseen = cross_validated(*own, options, 5, wrong)
    assert row["validation_score"] == accuracy_score(own[2], unseen.argmax(axis=1))
    fitted = fit_combiner(*own, options, 5).scores(logits["test"], sets[0].of["test"])
    assert row["test_score"] == accuracy_score(task.y["test"], fitted.argmax(axis=1))


def test_a_threshold_alone_is_what_forms_are_compared_with():
    """Of several labels; it is the best one on validation, and reads no similarities."""
    task, logits, sets = given("multilabel")
    # They are predicted too often, so that another threshold is a gain.
    logits = {split: values + 1 for split, values in logits.items()}
    table = ablations(task, logits, sets[:1], FORMS, [5], Hardness(), 0, top_k=False).to_pylist()
    alone = {row["rerank"]: row for row in table if row["form"] == "threshold"}
    assert set(alone) == {"hard", "all"}
    z, y = logits["validation"].astype(float), task.y["validation"]
    every = np.unique(z)
    scores = {
        at: f1_score(y, z > at, average="micro", zero_division=0)
        for at in (every[:-1] + every[1:]) / 2
    }
    row = alone["all"]
    assert row["validation_score"] == pytest.approx(max(scores.values()), abs=0.01)
    assert row["validation_score"] > table[0]["validation_score"] + 0.02
    assert row["embedding"] is row["crossfit"] is row["power"] is None
    assert row["test_score"] > table[0]["test_score"] and row["test_flagged"] == len(logits["test"])
    assert alone["hard"]["test_flagged"] < len(logits["test"])
    single = ablations(*given("multiclass"), FORMS, [3], Hardness(), 0)
    assert "threshold" not in single["form"].to_pylist()


def test_what_validation_chooses_does_not_hang_on_test_labels():
    task, logits, sets = given("multiclass")
    one = ablations(task, logits, sets, FORMS, [2, 3], Hardness(), seed=0)
    task.y["test"] = np.random.default_rng(1).permutation(task.y["test"])
    other = ablations(task, logits, sets, FORMS, [2, 3], Hardness(), seed=0)
    assert one["test_score"] != other["test_score"]
    names = [name for name in one.column_names if name.startswith("validation")]
    names += ["best_on_validation", "threshold", "test_flagged", "test_changed"]
    assert one.select(names).equals(other.select(names))


def test_harmless_similarities_are_not_chosen():
    """Where no setting is better, doing nothing is the choice."""
    task, logits, _ = given("multiclass")
    same = Similarities("tuned", False, {s: np.full_like(v, 0.5) for s, v in logits.items()})
    table = ablations(task, logits, [same], FORMS, [3], Hardness(), seed=0)
    assert table["best_on_validation"].to_pylist() == [True] + [False] * (len(table) - 1)
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


def test_multilabel_probabilities_are_those_before_thresholds_were_taken_off():
    task, logits, sets = given("multilabel")
    off = np.linspace(-1.5, 1.0, 5).astype(np.float32)
    hardness = Hardness(taken_off=tuple(off.tolist()))
    table = ablations(task, logits, sets[:1], [Form("prob", 2.0)], [5], hardness, 0, top_k=False)
    rows = table.to_pylist()
    row = next(row for row in rows if (row["rerank"], row["form"]) == ("all", "prob"))
    found = {}
    for split, z in logits.items():
        z = z.astype(float)
        p = expit(z + off) * np.maximum(sets[0].of[split], 0) ** 2
        usable = sets[0].of[split].max(axis=1, keepdims=True) > 0
        found[split] = usable, logit(np.clip(p, 1e-300, 1)) - off, z

    def scored(split: str, at: float) -> float:
        usable, new, z = found[split]
        predicted = np.where(usable, new > at, z > 0)
        return f1_score(task.y[split], predicted, average="micro", zero_division=0)

    before = [f1_score(task.y[s], logits[s] > 0, average="micro") for s in ("validation", "test")]
    assert [rows[0]["validation_score"], rows[0]["test_score"]] == pytest.approx(before)
    tried = np.unique(found["validation"][1]) - 1e-6
    scores = np.array([scored("validation", at) for at in tried])
    assert row["validation_score"] == pytest.approx(scores.max(), abs=0.01)
    # At whichever of the best it is, test has one of these scores.
    good = tried[scores >= row["validation_score"] - 1e-9]
    reached = [scored("test", at) for at in good]
    assert min(reached) - 0.02 <= row["test_score"] <= max(reached) + 0.02
