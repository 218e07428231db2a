"""Zero-shot scores equal cosines computed one text at a time with the model itself."""

from __future__ import annotations

import numpy as np
import pytest
from labelled_texts import LABELS, labelled
from naive import one_at_a_time
from sklearn.metrics import f1_score
from tiny_models import LAYERS, build

from probeline.activations.shards import write_shard
from probeline.baselines.report import score_threshold
from probeline.baselines.zero_shot import label_embeddings, zero_shot
from probeline.data.store import read_dataset
from probeline.errors import ProbelineError
from probeline.files import read_json
from probeline.models.load import load_model
from probeline.probe.task import task_data
from probeline.results.predictions import read_predictions

TEXTS = ["second half", "stock markets", "rain", "long speech"]


@pytest.fixture(scope="module", params=["bert", "gpt2"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def spec(kind, tmp_path_factory):
    folder = build(kind, tmp_path_factory.mktemp(kind))
    return {"path": str(folder), "dtype": "float32", "device": "cpu"}


@pytest.fixture(scope="module")
def model(spec):
    return load_model(spec)


def naive(kind, model, texts, pairs=None) -> np.ndarray:
    values = one_at_a_time(kind, model, texts, pairs)["hidden", LAYERS, "mean"]
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def make(folder, kind, model, task="multiclass", pairs=False, **more):
    """A dataset, and the shard of its texts by the naive computation."""
    data = labelled(folder / "d", task, pairs)
    dataset = read_dataset(data)
    meta = {
        "dataset_fingerprint": dataset.fingerprint,
        "tokenizer_hash": model.tokenizer_hash,
        "representation": "hidden",
        "pooling": "mean",
        "layer": LAYERS,
    } | more
    values = one_at_a_time(kind, model, dataset.texts, dataset.pairs)["hidden", LAYERS, "mean"]
    write_shard(folder / "s.h5", values.astype(np.float32), meta)
    return data, dataset


def run(folder, data, spec, **options):
    files = folder / "p.h5", folder / "s.json"
    zero_shot(folder / "s.h5", data, "label", spec, "tiny", *files, options)
    return read_predictions(files[0]), read_json(files[1])


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
@pytest.mark.parametrize("template", ["{label}", "the film is {label}"])
def test_equals_one_at_a_time(tmp_path, kind, spec, model, task, template):
    data, dataset = make(tmp_path, kind, model, task)
    found, report = run(tmp_path, data, spec, template=template, temperature=0.1)
    classes = 2 if task == "binary" else 4
    labels = naive(kind, model, [template.replace("{label}", t) for t in TEXTS[:classes]])
    truth = naive(kind, model, dataset.texts) @ labels.T / 0.1
    if task == "binary":
        assert np.array_equal(found.logits.argmax(1), truth.argmax(1))
        truth = truth - truth.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(found.logits, truth - report["threshold"], atol=2e-3)
    assert (found.thresholds == np.float32(report["threshold"])).all()
    assert report["parameters_trained"] == 0
    assert report["texts_per_second"] > 0
    assert report["seconds"] > report["train_seconds"] == 0
    assert found.meta["method"] == "zero-shot"


def test_pairs(tmp_path, kind, spec, model):
    data, dataset = make(tmp_path, kind, model, pairs=True)
    found, _ = run(tmp_path, data, spec, temperature=1.0)
    truth = naive(kind, model, dataset.texts, dataset.pairs) @ naive(kind, model, TEXTS).T
    np.testing.assert_allclose(found.logits, truth, atol=1e-4)


def test_several_texts_of_a_label_are_averaged(kind, model):
    ours = label_embeddings(model, LAYERS, [("rain", "the cat"), ("bread",)])
    one, two, three = naive(kind, model, ["rain", "the cat", "bread"])
    mean = (one + two) / 2
    np.testing.assert_allclose(ours, [mean / np.linalg.norm(mean), three], atol=1e-5)


def test_threshold_is_the_best_of_validation(tmp_path, kind, spec, model):
    data, dataset = make(tmp_path, kind, model, "multilabel")
    found, report = run(tmp_path, data, spec)
    part = dataset.split("validation")
    true, logits = dataset.labels("label")[part], found.logits[part]
    best = max(
        f1_score(true, logits > at, average="micro", zero_division=0)
        for at in np.concatenate([logits.ravel() - 1e-4, [0.0]])
    )
    assert report["validation_score"] == pytest.approx(best)


def test_a_ranking_metric_still_gets_a_threshold(tmp_path, kind, model):
    _, dataset = make(tmp_path, kind, model, "multilabel")
    task = task_data(dataset, "label", "roc-auc")
    logits = np.random.default_rng(0).normal(5, 1, (12, 4))
    plain = task_data(dataset, "label", "micro-f1")
    assert score_threshold(task, logits) == score_threshold(plain, logits) != 0


@pytest.mark.parametrize(
    "options, message",
    [
        ({"template": "about"}, "has no {label}"),
        ({"temperature": 0}, "not above 0"),
        ({"label_texts": {"wind": "x"}}, "not one of"),
    ],
)
def test_mistakes_are_one_line(tmp_path, kind, spec, model, options, message):
    data, _ = make(tmp_path, kind, model)
    with pytest.raises(ProbelineError, match=message) as error:
        run(tmp_path, data, spec, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["tokenizer_hash", "pooling"])
def test_a_shard_of_another_model_or_pooling_is_refused(tmp_path, kind, spec, model, name):
    data, _ = make(tmp_path, kind, model, **{name: "other"})
    with pytest.raises(ProbelineError, match=name):
        run(tmp_path, data, spec)


def test_labels_are_read_as_words():
    assert [t.replace(" ", "") for t in TEXTS] == [
        name.replace("_", "").replace("-", "").lower() for name in LABELS
    ]
