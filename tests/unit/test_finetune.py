"""Fine-tuning of tiny random models on separable toy sets: they learn, and what is written."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pytest
import torch
import transformers
from finetuning import FILLERS, SIGNS, SIZES, run, write_multilabel, write_toy
from safetensors.torch import load_file
from scipy.special import softmax
from sklearn.metrics import log_loss
from tiny_models import TINY, build

from probeline.activations.batching import Tokens, padded
from probeline.data.store import read_dataset
from probeline.data.writing import write_dataset
from probeline.finetune.curve import read_curve
from probeline.finetune.kind import Regular
from probeline.finetune.stage import parameter_counts
from probeline.finetune.trainer import Job
from probeline.models.load import load_model
from probeline.models.weights import weight_files
from probeline.results.predictions import read_predictions


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return build("bert", tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return write_toy(tmp_path_factory.mktemp("toy"), classes=3)


@pytest.fixture(scope="module")
def tuned(bert, toy, tmp_path_factory):
    """The folder of one run: model/, predictions.h5, scores.json."""
    folder = tmp_path_factory.mktemp("tuned")
    run(toy, bert, folder, evaluations=2)
    return folder


def scores_of(folder) -> dict:
    return json.loads((folder / "scores.json").read_text())


def one_at_a_time(model_folder, texts, pairs=None) -> np.ndarray:
    """Logits by plain transformers, without padding."""
    auto = transformers.AutoModelForSequenceClassification
    model = auto.from_pretrained(model_folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_folder)
    found = []
    for row, text in enumerate(texts):
        inputs = tokenizer(text, pairs[row] if pairs else None, return_tensors="pt")
        with torch.no_grad():
            found.append(model(**inputs).logits[0].numpy())
    return np.array(found)


def test_bert_learns_three_classes(tuned):
    scores = scores_of(tuned)
    assert scores["metric"] == "accuracy"
    assert scores["validation_score"] == scores["test_score"] == 1.0
    assert scores["parameters_trained"] == scores["parameters"] > 0
    assert scores["train_seconds"] > 0 and scores["texts_per_second"] > 0
    assert not (tuned / "state").exists()


def test_logits_equal_a_fresh_pass_one_text_at_a_time(tuned, toy):
    dataset = read_dataset(toy)
    found = read_predictions(tuned / "predictions.h5")
    np.testing.assert_array_equal(found.rows, np.arange(dataset.rows))
    expected = one_at_a_time(tuned / "model", dataset.texts)
    np.testing.assert_allclose(found.logits, expected, atol=2e-5)
    assert (found.meta["method"], found.meta["variant"], found.meta["seed"]) == (
        "finetune",
        "full",
        1,
    )
    assert found.labels == ["label 0", "label 1", "label 2"]
    right = (found.of("test").argmax(1) == dataset.labels("label")[found.rows_of("test")]).mean()
    assert right == scores_of(tuned)["test_score"]


def test_the_folder_is_whole_and_without_pickles(tuned):
    names = {path.name for path in (tuned / "model").rglob("*")}
    assert {"model.safetensors", "config.json", "tokenizer.json", "training.json"} <= names
    assert not {name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl"))}
    config = json.loads((tuned / "model/config.json").read_text())
    assert config["id2label"] == {"0": "label 0", "1": "label 1", "2": "label 2"}
    assert config["problem_type"] == "single_label_classification"
    modes = {path.stat().st_mode for path in (tuned / "model").iterdir()}
    assert len(modes) == 1


def test_a_pipeline_names_the_labels(tuned):
    pipeline = transformers.pipeline("text-classification", model=str(tuned / "model"))
    filler, (first, _, last, _) = FILLERS[0], SIGNS
    texts = [f"{filler} {first} {first} {first}", f"{last} {last} {last} {filler} {filler}"]
    assert [found["label"] for found in pipeline(texts, batch_size=2)] == ["label 0", "label 2"]


def test_the_body_is_a_model_for_extraction(tuned):
    spec = {"path": str(tuned / "model"), "device": "cpu", "dtype": "float32"}
    model = load_model(spec)
    assert model.shape.layers == 3
    assert weight_files(tuned / "model", "tuned")
    whole = transformers.AutoModelForSequenceClassification.from_pretrained(tuned / "model")
    ids = torch.tensor([[2, 9, 10, 3]])
    with torch.no_grad():
        expected = whole.eval().bert(ids).last_hidden_state
        torch.testing.assert_close(model.body(ids).last_hidden_state, expected)


def test_the_history_says_how_it_went(tuned, toy):
    training = json.loads((tuned / "model/training.json").read_text())
    rows = read_curve(tuned / "model/learning_curve.parquet")
    assert rows == training["history"]
    evaluations = [row for row in rows if row["split"] == "validation"]
    # 48 rows in batches of 8 are 6 steps an epoch; 6 epochs with 2 evaluations each.
    assert [row["step"] for row in evaluations] == [3 * number for number in range(1, 13)]
    assert [row["epoch"] for row in evaluations[:2]] == [0.5, 1.0]
    assert evaluations[-1]["loss"] < evaluations[0]["loss"]
    best = max(evaluations, key=lambda row: (row["score"], -row["loss"]))
    assert training["found"]["step"] == best["step"]
    assert training["settings"]["seed"] == 1
    assert training["settings"]["dataset_fingerprint"] == read_dataset(toy).fingerprint
    assert training["options"]["evaluations"] == 2


def test_same_seed_same_weights_other_seed_others(bert, toy, tuned, tmp_path):
    def weights(folder):
        return (folder / "model.safetensors").read_bytes()

    first = weights(tuned / "model")
    assert weights(run(toy, bert, tmp_path / "same", evaluations=2)) == first
    assert weights(run(toy, bert, tmp_path / "other", seed=2, evaluations=2)) != first


@pytest.mark.parametrize("kind", ["gpt2", "llama", "t5"])
def test_decoders_and_encoder_decoders_learn(kind, tmp_path):
    data = write_toy(tmp_path / "data")
    folder = run(data, build(kind, tmp_path / kind, side="left"), tmp_path, epochs=12)
    assert scores_of(tmp_path)["test_score"] == 1.0
    found = read_predictions(tmp_path / "predictions.h5").logits
    texts = read_dataset(data).texts
    np.testing.assert_allclose(found, one_at_a_time(folder, texts), atol=5e-5)
    # The tokenizer that is written pads as training did, whatever it did before.
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        logits = model(**tokenizer(texts[:9], padding=True, return_tensors="pt")).logits
    np.testing.assert_allclose(found[:9], logits.numpy(), atol=5e-5)
    load_model({"path": str(folder), "device": "cpu", "dtype": "float32"})


@pytest.mark.parametrize("kind", sorted(set(TINY) - {"bert", "gpt2", "llama", "t5"}))
def test_every_family_trains_and_comes_back(kind, tmp_path):
    data = write_toy(tmp_path / "data")
    folder = run(data, build(kind, tmp_path / kind), tmp_path, epochs=1, learning_rate=1e-3)
    found = read_predictions(tmp_path / "predictions.h5").logits
    texts = read_dataset(data).texts[:20]
    np.testing.assert_allclose(found[:20], one_at_a_time(folder, texts), atol=1e-4)
    load_model({"path": str(folder), "device": "cpu", "dtype": "float32"})


def test_pairs_are_read_as_pairs(bert, tmp_path):
    data = write_toy(tmp_path / "data", pairs=True)
    folder = run(data, bert, tmp_path, epochs=10)
    assert scores_of(tmp_path)["test_score"] == 1.0
    dataset = read_dataset(data)
    expected = one_at_a_time(folder, dataset.texts, dataset.pairs)
    found = read_predictions(tmp_path / "predictions.h5").logits
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_several_labels_at_once(bert, tmp_path):
    data = write_multilabel(tmp_path / "data")
    folder = run(data, bert, tmp_path, epochs=10)
    scores = scores_of(tmp_path)
    assert scores["metric"] == "micro-f1" and scores["test_score"] == 1.0
    config = json.loads((folder / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    # The threshold chosen on validation is taken off, so that a label is predicted above 0.
    expected = one_at_a_time(folder, read_dataset(data).texts) - scores["threshold"]
    found = read_predictions(tmp_path / "predictions.h5")
    np.testing.assert_allclose(found.logits, expected, atol=2e-5)
    assert found.meta["threshold"] == scores["threshold"]


def test_rows_where_the_task_is_not_defined_get_logits_but_are_not_trained_on(bert, tmp_path):
    data = write_toy(tmp_path / "data", undefined=True)
    folder = run(data, bert, tmp_path, epochs=1)
    dataset, found = read_dataset(data), read_predictions(tmp_path / "predictions.h5")
    assert found.defined.tolist() == [row % 7 != 3 for row in range(dataset.rows)]
    np.testing.assert_allclose(found.logits, one_at_a_time(folder, dataset.texts), atol=2e-5)
    # Without those rows the training is the same.
    rows = np.flatnonzero(found.defined)
    sizes = {split: int((found.split[rows] == split).sum()) for split in dataset.offsets}
    texts = pa.table({"text": [dataset.texts[row] for row in rows]})
    codes = {"label": dataset.labels("label")[rows]}
    about = {"name": "toy", "tasks": dataset.tasks}
    write_dataset(tmp_path / "fewer", about, texts, sizes, codes)
    fewer = run(tmp_path / "fewer", bert, tmp_path / "out", epochs=1)
    first, second = (load_file(path / "model.safetensors") for path in (folder, fewer))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_accumulated_batches_are_as_good_as_one(tmp_path):
    """Rows weigh the same in a step, however it is cut: a decoder without dropout shows it.

    The last of 43 rows are a batch of 3 that is a step of its own.
    """
    data = write_toy(tmp_path / "data", train=43)
    model = build("llama", tmp_path / "llama")
    common = {"epochs": 1, "group_by_length": False, "learning_rate": 1e-3}
    whole = run(data, model, tmp_path / "whole", batch_size=10, **common)
    parts = {"batch_size": 5, "gradient_accumulation": 2, "gradient_checkpointing": True}
    cut = run(data, model, tmp_path / "cut", **parts, **common)
    first, second = (load_file(folder / "model.safetensors") for folder in (whole, cut))
    for name, weight in first.items():
        torch.testing.assert_close(second[name], weight, rtol=1e-4, atol=2e-6)


def test_the_log_has_lines_and_no_bars(bert, toy, tmp_path, caplog, capfd):
    with caplog.at_level("INFO", logger="probeline"):
        run(toy, bert, tmp_path, epochs=2)
    lines = [record.getMessage() for record in caplog.records]
    assert any(
        re.match(r"tiny on toy/label: step 6 of 12, loss \d.*, \d+ s left", line) for line in lines
    )
    assert any("step 6 of 12, validation loss" in line and "accuracy" in line for line in lines)
    out, err = capfd.readouterr()
    assert "it/s" not in err and "%|" not in err and "{'" not in out


def test_the_checkpoint_that_is_asked_for_is_kept(bert, tmp_path):
    """Of labels that texts say nothing of the first evaluation may be the best."""
    toy = read_dataset(write_toy(tmp_path / "toy"))
    codes = np.random.default_rng(4).integers(0, 2, toy.rows)
    about = {"name": "toy", "tasks": toy.tasks}
    texts = pa.table({"text": toy.texts})
    write_dataset(tmp_path / "data", about, texts, SIZES, {"label": codes})
    for keep in ("best", "last"):
        folder = run(tmp_path / "data", bert, tmp_path / keep, epochs=3, keep=keep)
        step = json.loads((folder / "training.json").read_text())["found"]["step"]
        rows = [row for row in read_curve(folder / "learning_curve.parquet") if row["score"]]
        best = max(rows, key=lambda row: (row["score"], -row["loss"]))
        assert best["step"] < rows[-1]["step"]
        kept = best if keep == "best" else rows[-1]
        found = read_predictions(tmp_path / keep / "predictions.h5")
        own = codes[found.rows_of("validation")]
        loss = log_loss(own, softmax(found.of("validation"), axis=1))
        assert (step, loss) == (kept["step"], pytest.approx(kept["loss"], rel=1e-5))


def test_texts_that_are_cut_are_counted_and_said(bert, toy, tmp_path, caplog):
    dataset = read_dataset(toy)
    # Two special tokens, and a token a word.
    longer = sum(len(text.split()) + 2 > 8 for text in dataset.texts)
    assert 0 < longer < dataset.rows
    run(toy, bert, tmp_path, spec={"max_length": 8}, epochs=1)
    assert scores_of(tmp_path)["texts_truncated"] == longer
    assert f"toy: {longer} of {dataset.rows} texts are longer than 8 tokens" in caplog.text


def test_a_checkpoint_s_old_head_is_not_kept(toy, tmp_path):
    """A head of the same shape stands for other labels."""
    from probeline.finetune.model import load_classifier
    from probeline.finetune.options import read_options
    from probeline.probe.task import task_data

    task = task_data(read_dataset(toy), "label")
    torch.manual_seed(0)
    spec = {"path": str(build("bert", tmp_path / "bert")), "device": "cpu"}
    first = load_classifier(spec, task, read_options({})).body
    first.save_pretrained(tmp_path / "bert")
    second = load_classifier(spec, task, read_options({})).body
    assert not torch.equal(first.classifier.weight, second.classifier.weight)
    assert torch.equal(first.bert.pooler.dense.weight, second.bert.pooler.dense.weight)


@dataclass(frozen=True)
class Measured(Regular):
    """Measures its logits of validation, with no word about the precision."""

    found: list = field(default_factory=list)

    def measured(self, job: Job, tokens: Tokens) -> dict:
        with torch.no_grad():
            for batch in padded(job.model, job.validation):
                self.found.append(job.model.body(**batch.inputs).logits.numpy())
        return {}


def test_half_precision_ends_with_the_training(bert, toy, tmp_path):
    """What is measured then is the same whether the training was in this process or before."""
    trained, resumed = Measured(), Measured()
    for kind in (trained, resumed):
        run(toy, bert, tmp_path, kind=kind, keep_state=True, epochs=1, mixed_precision="bf16")
    for first, again in zip(trained.found, resumed.found, strict=True):
        np.testing.assert_array_equal(first, again)


def test_weights_of_four_bits_are_counted_though_two_share_a_byte():
    packed = type("Params4bit", (torch.nn.Parameter,), {})
    body = torch.nn.Linear(8, 6)
    bytes_ = torch.zeros(24, 1, dtype=torch.uint8)
    body.weight = packed(bytes_, requires_grad=False)
    assert parameter_counts(body) == (6, 8 * 6 + 6)
