"""Training and prediction with a shortlist of labels for each text, from the sparse classifier."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from finetuning import run as finetuned
from pipeline import Run, trained
from sklearn.metrics import top_k_accuracy_score

import probeline
from probeline.errors import ProbelineError
from probeline.finetune import trainer
from probeline.label_tokens import shortlist as module
from probeline.label_tokens.kind import read_kind
from probeline.label_tokens.model import LabelTokenClassifier
from probeline.label_tokens.shortlist import FirstStage, shortlist
from probeline.label_tokens.stage_attention import attention, spread
from probeline.lrsl.crossfit import write_crossfit
from probeline.results.predictions import read_predictions

SECTION = {"shortlist": 2, "isolated": True, "initialization": "random"}
TRAINING = {"epochs": 2, "spec": {"max_length": 16}}


def first_stage(run: Run, crossfit: Path | None = None) -> FirstStage:
    return FirstStage(run.place("predictions") / "stc.h5", run.classifier, crossfit)


def train(run: Run, folder: Path, crossfit: Path | None = None, section=SECTION, **options) -> Path:
    kind = read_kind(section, first_stage(run, crossfit))
    return finetuned(run.data, run.folder / "model", folder, kind=kind, **{**TRAINING, **options})


@pytest.fixture(scope="module", params=["multiclass", "multilabel", "pairs"])
def made(request, tmp_path_factory) -> tuple[Run, Path, Path]:
    """A run, the folder of what was trained on its data, and its first stage's unseen logits."""
    run, folder = trained(request.param, tmp_path_factory), tmp_path_factory.mktemp("listed")
    task = run.task
    rows = len(task.rows["train"])
    logits = np.random.default_rng(0).normal(size=(rows, task.classes)).astype(np.float32)
    crossfit = folder / "crossfit.h5"
    write_crossfit(crossfit, run.dataset, task, np.zeros(rows, np.int8), logits, {})
    return run, train(run, folder, crossfit), crossfit


def expected_lists(run: Run, crossfit: Path | None) -> np.ndarray:
    """The two labels with the highest logits of every text, one text at a time."""
    from probeline.lrsl.crossfit import read_crossfit

    logits = run.predictions().logits.copy()
    if crossfit:
        found = read_crossfit(crossfit, run.dataset, run.task)
        logits[found.rows] = found.logits
    return np.array([sorted(np.argsort(-row, kind="stable")[:2]) for row in logits])


def test_only_listed_labels_have_a_score_of_their_own(made):
    run, model, crossfit = made
    stored = read_predictions(model.parent / "predictions.h5").logits
    lists = expected_lists(run, crossfit)
    listed = np.zeros(stored.shape, bool)
    np.put_along_axis(listed, lists, True, axis=1)
    lowest = np.where(listed, stored, np.inf).min(axis=1)
    highest_unread = np.where(listed, -np.inf, stored).max(axis=1)
    assert (highest_unread < lowest - 9.9).all()
    if not run.task.multilabel:
        p = np.exp(stored - stored.max(1, keepdims=True))
        assert (p / p.sum(1, keepdims=True))[~listed].max() < 1e-4
    else:
        assert (stored[~listed] < 0).all()


def test_scores_tell_what_is_on_the_lists(made):
    run, model, crossfit = made
    scores = json.loads((model.parent / "scores.json").read_text())
    # The first stage ran before.
    assert scores["texts_per_second"] is None
    found = scores["shortlist"]
    assert found["labels"] == 2
    lists, task = expected_lists(run, crossfit), run.task
    for split, rows in task.rows.items():
        if task.multilabel:
            hit = np.take_along_axis(task.y[split], lists[rows], axis=1).sum()
            expected = hit / task.y[split].sum()
        else:
            logits = np.zeros((len(rows), task.classes))
            np.put_along_axis(logits, lists[rows], 1.0, axis=1)
            expected = top_k_accuracy_score(task.y[split], logits, k=2, labels=range(task.classes))
        assert found["recall"][split] == pytest.approx(expected)


def test_the_folder_answers_alone(made, tmp_path):
    """From a copy that is far from the run, as the stored logits say."""
    run, model, _ = made
    copy = Path(shutil.copytree(model, tmp_path / "copy"))
    loaded = probeline.load(copy, device="cpu")
    texts, pairs = run.dataset.texts, run.dataset.pairs
    stored = read_predictions(model.parent / "predictions.h5")
    # Of training texts the lists were those of classifiers that had not seen them.
    rows = np.flatnonzero(stored.split != "train")
    found = loaded.logits(
        [texts[row] for row in rows], None if pairs is None else [pairs[row] for row in rows]
    )
    np.testing.assert_allclose(found, stored.logits[rows], atol=1e-4)
    answers = loaded.predict(
        [texts[row] for row in rows[:5]], pairs and [pairs[row] for row in rows[:5]]
    )
    for answer, row in zip(answers, stored.logits[rows[:5]], strict=True):
        if run.task.multilabel:
            assert answer["labels"] == [run.task.labels[code] for code in np.flatnonzero(row > 0)]
        else:
            assert answer["label"] == run.task.labels[row.argmax()]


def test_the_code_of_a_first_stage_does_not_run_unasked(made, tmp_path):
    run, model, _ = made
    copy = Path(shutil.copytree(model, tmp_path / "copy"))
    manifest = copy / module.FIRST_STAGE / "classifier.json"
    said = json.loads(manifest.read_text(encoding="utf-8"))
    said["model"]["trust_remote_code"] = True
    manifest.write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(ProbelineError, match=r"runs Python code of its own.*--trust-remote-code"):
        probeline.load(copy, device="cpu")
    assert probeline.load(copy, device="cpu", trust_remote_code=True).labels == list(
        run.task.labels
    )


def test_listed_labels_have_the_logits_of_a_pass_over_all(made):
    """Isolated, whatever else is read; and a pipeline reads all."""
    run, model, _ = made
    loaded = probeline.load(model, device="cpu")
    body, words = loaded._model.body, loaded._model.tokenizer
    rows = run.dataset.split("test")
    texts = run.dataset.texts[rows][:8]
    pairs = None if run.dataset.pairs is None else run.dataset.pairs[rows][:8]
    inputs = words(texts, pairs, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        whole = body(**inputs).logits.numpy() - loaded._threshold * run.task.multilabel
    found, lists = loaded.logits(texts, pairs), loaded._lists(texts, pairs)
    np.testing.assert_allclose(
        np.take_along_axis(found, lists, axis=1),
        np.take_along_axis(whole, lists, axis=1),
        atol=1e-4,
    )


def test_the_true_label_is_read_in_training_and_the_first_stage_alone_elsewhere(
    made, tmp_path, monkeypatch
):
    run, _, crossfit = made
    seen, task = {True: [], False: []}, run.task
    forward = LabelTokenClassifier.forward

    def watched(self, *args, candidates=None, **more):
        seen[self.training].append(candidates)
        return forward(self, *args, candidates=candidates, **more)

    jobs = []
    begin = trainer.FineTuner.__init__

    def begun(self, job, *rest):
        jobs.append(job)
        begin(self, job, *rest)

    monkeypatch.setattr(LabelTokenClassifier, "forward", watched)
    monkeypatch.setattr(trainer.FineTuner, "__init__", begun)
    train(run, tmp_path, crossfit, epochs=1)
    every = torch.cat(seen[True])
    assert len(every) == len(task.rows["train"]) and (every.diff(dim=1) > 0).all()
    lists = jobs[0].train.tokens.more["candidates"]
    given = expected_lists(run, crossfit)
    for own, first, truth in zip(lists, given[task.rows["train"]], task.y["train"], strict=True):
        true = set(np.flatnonzero(truth)) if task.multilabel else {truth}
        assert len(true & set(own)) == min(len(true), 2)
        assert set(own) <= true | set(first)
    np.testing.assert_array_equal(
        jobs[0].validation.more["candidates"], given[task.rows["validation"]]
    )
    assert seen[False] and all(batch is not None for batch in seen[False])


def test_search_and_resumed_runs_know_their_first_stage(tmp_path_factory, tmp_path):
    run = trained("multiclass", tmp_path_factory)
    one = read_kind(SECTION, first_stage(run)).settings()
    path = tmp_path / "crossfit.h5"
    rows = len(run.task.rows["train"])
    write_crossfit(
        path, run.dataset, run.task, np.zeros(rows, np.int8), np.zeros((rows, 3), np.float32), {}
    )
    assert one != read_kind(SECTION, first_stage(run, path)).settings()
    assert one == read_kind(SECTION, first_stage(run)).settings()
    assert "first_stage" not in read_kind({}).settings()["label_tokens"]


def test_a_shortlist_longer_than_the_labels_reads_all(tmp_path_factory, tmp_path):
    run = trained("multiclass", tmp_path_factory)
    some = train(run, tmp_path / "some", section={**SECTION, "shortlist": 50}, epochs=1)
    section = {key: value for key, value in SECTION.items() if key != "shortlist"}
    every = finetuned(
        run.data,
        run.folder / "model",
        tmp_path / "all",
        kind=read_kind(section),
        **{**TRAINING, "epochs": 1},
    )
    stored = [read_predictions(model.parent / "predictions.h5").logits for model in (some, every)]
    # What is the same for all labels changes no probability, and is rounding that training drives.
    centred = [logits - logits.mean(axis=1, keepdims=True) for logits in stored]
    np.testing.assert_allclose(centred[0], centred[1], atol=1e-3)
    scores = json.loads((tmp_path / "some" / "scores.json").read_text())
    assert scores["shortlist"]["recall"] == dict.fromkeys(scores["shortlist"]["recall"], 1.0)


def test_attention_of_some_test_texts(made, tmp_path):
    run, model, _ = made
    table, page = tmp_path / "attention.parquet", tmp_path / "attention.html"
    predictions = model.parent / "predictions.h5"
    attention(model, run.data, "label", predictions, table, page, 4, "texts & labels", "cpu")
    found = pd.read_parquet(table)
    test = run.task.rows["test"]
    rows = test[[0, round((len(test) - 1) / 3), round(2 * (len(test) - 1) / 3), -1]]
    assert sorted(set(found["row"])) == rows.tolist()
    loaded = probeline.load(model, device="cpu")
    text, pair = run.dataset.texts[rows[1]], run.dataset.pairs and run.dataset.pairs[rows[1]]
    own = found[found["row"] == rows[1]]
    again = loaded.attention([text], None if pair is None else [pair], [int(rows[1])])
    pd.testing.assert_frame_equal(own.reset_index(drop=True), again, atol=1e-5)
    words = loaded._model.tokenizer
    tokens = words.convert_ids_to_tokens(words(text, pair, truncation=True)["input_ids"])
    for label in set(own["label"]):
        assert list(own[own["label"] == label]["token"]) == tokens
    shown = page.read_text()
    assert "<title>texts &amp; labels</title>" in shown and shown.count("<h2>") == 4
    truth = run.task.y["test"][-1]
    names = [run.task.labels[c] for c in (np.flatnonzero(truth) if truth.ndim else [truth])]
    assert f"Text {rows[-1]}: true {', '.join(names) or 'none'}, predicted " in shown


def test_texts_are_spread():
    assert spread(10, 4).tolist() == [0, 3, 6, 9]
    assert spread(3, 20).tolist() == [0, 1, 2] and spread(5, 1).tolist() == [0]


def test_mistakes_are_one_line(tmp_path_factory, made, tmp_path):
    run, model, _ = made
    with pytest.raises(ProbelineError, match=r"label_tokens\.shortlist: needs a first stage"):
        read_kind({"shortlist": 3})
    with pytest.raises(ProbelineError, match=r"label_tokens\.shortlist: expected an integer of 2"):
        read_kind({"shortlist": 1}, first_stage(run))
    copy = Path(shutil.copytree(model, tmp_path / "copy"))
    shutil.rmtree(copy / module.FIRST_STAGE)
    with pytest.raises(ProbelineError, match="in first_stage/, is missing or another; copy"):
        probeline.load(copy, device="cpu")
    regular = finetuned(run.data, run.folder / "model", tmp_path / "regular", epochs=0.1)
    with pytest.raises(ProbelineError, match="its labels are no tokens, so nothing attends"):
        probeline.load(regular, device="cpu").attention(["x"])


def test_the_first_stage_ranks_as_it_did_in_the_run(made):
    run, _, _ = made
    stored = run.predictions()
    rows = np.flatnonzero(stored.split != "train")
    loaded = probeline.load(run.classifier, device="cpu")
    texts, pairs = run.dataset.texts, run.dataset.pairs
    found = loaded.logits(
        [texts[row] for row in rows], None if pairs is None else [pairs[row] for row in rows]
    )
    same = np.sort(shortlist(found, 2)) == np.sort(shortlist(stored.logits[rows], 2))
    assert same.all(axis=1).mean() > 0.99
