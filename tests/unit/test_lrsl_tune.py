"""Embeddings that are tuned: what is learnt and written, and what is refused."""

from __future__ import annotations

import json
import stat

import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets import Dataset
from finetuning import write_multilabel, write_toy
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from tiny_embedders import write_embedder
from tiny_models import SENTENCES
from torch.nn.modules.module import register_module_forward_hook
from tuning import run, texts_of, toy_triplets

from probeline.data.store import read_dataset
from probeline.errors import ProbelineError
from probeline.finetune.checkpoints import Checkpoints
from probeline.finetune.record import Record
from probeline.lrsl.embedding import load_embedder
from probeline.lrsl.label_vectors import LabelVectors
from probeline.lrsl.retrieval import retrieval
from probeline.lrsl.tune import fingerprint, train_rows
from probeline.lrsl.tune_options import TuneOptions, read_tune_options
from probeline.lrsl.tune_trainer import TuneJob, Tuner

# 160 triplets are 20 steps an epoch.
LEARNING = {"epochs": 6, "batch_size": 8, "learning_rate": 2e-3}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_toy(tmp_path_factory.mktemp("data"), classes=3, train=160)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_embedder(tmp_path_factory.mktemp("embedder"))


@pytest.fixture(scope="module")
def tuned(data, base, tmp_path_factory):
    return run(data, base, tmp_path_factory.mktemp("tuned"), **LEARNING)


def described(folder) -> dict:
    return json.loads((folder / "embedding.json").read_text())


def naive_accuracy(folder, data) -> float:
    """Share of validation texts whose nearest label is theirs: one text and label at a time."""
    model, dataset = SentenceTransformer(str(folder)), read_dataset(data)
    labels, y = dataset.tasks["label"]["labels"], dataset.labels("label")
    vectors = [model.encode(f"about {text}") for text in texts_of(labels).values()]
    hits = []
    for row in range(*dataset.offsets["validation"]):
        text = model.encode(dataset.texts[row])
        cosines = [text @ v / np.linalg.norm(text) / np.linalg.norm(v) for v in vectors]
        best = int(np.argmax(cosines))
        hits.append(best == y[row] if y.ndim == 1 else bool(y[row][best]))
    return float(np.mean(hits))


def test_it_learns_which_label_a_text_means(tuned, data, base):
    found = described(tuned)["found"]
    assert found["retrieval_accuracy"] > found["untuned_retrieval_accuracy"] + 0.2
    assert found["retrieval_accuracy"] == pytest.approx(naive_accuracy(tuned, data))
    assert found["untuned_retrieval_accuracy"] == pytest.approx(naive_accuracy(base, data))


def test_the_best_epoch_is_kept_and_the_curve_is_there(tuned):
    content = described(tuned)
    curve = [entry for entry in content["history"] if entry["split"] == "validation"]
    assert [entry["step"] for entry in curve] == [20, 40, 60, 80, 100, 120]
    best = max(curve, key=lambda entry: (entry["score"], -entry["loss"]))
    assert content["found"]["step"] == best["step"]
    assert content["found"]["retrieval_accuracy"] == best["score"]
    losses = [entry["loss"] for entry in content["history"] if entry["split"] == "train"]
    assert len(losses) == 120 and sum(losses[-20:]) < sum(losses[:20])


def test_weights_are_safetensors_and_nothing_is_pickled(tuned, base):
    files = [path for path in tuned.rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".pkl", ".pth")]
    stored = load_file(tuned / "model.safetensors")
    assert stored.keys() == load_file(base / "model.safetensors").keys()
    assert not (tuned / "README.md").exists()
    assert not (tuned.parent / "state").exists()
    modes = {stat.S_IMODE(path.stat().st_mode) for path in files}
    assert len(modes) == 1
    embedder = load_embedder({"path": str(tuned)})
    assert embedder.max_length == 32 and embedder.width == 16
    assert embedder.identity != load_embedder({"path": str(base)}).identity


def test_the_same_seed_gives_the_same_weights(data, base, tmp_path):
    first = run(data, base, tmp_path / "a", epochs=1)
    again = run(data, base, tmp_path / "b", epochs=1)
    other = run(data, base, tmp_path / "c", epochs=1, seed=2)
    weights = [(path / "model.safetensors").read_bytes() for path in (first, again, other)]
    assert weights[0] == weights[1] != weights[2]


def test_before_and_after_are_scored_in_one_precision(data, base, tmp_path):
    seen = set()

    def note(module, _, output):
        if isinstance(module, torch.nn.Linear):
            seen.add((module.training, output.dtype))

    handle = register_module_forward_hook(note)
    try:
        run(data, base, tmp_path, epochs=1, mixed_precision="bf16")
    finally:
        handle.remove()
    assert seen == {(True, torch.bfloat16), (False, torch.bfloat16)}


@pytest.mark.parametrize("loss", ["triplet", "cached-mnrl"])
def test_every_loss_trains(data, base, tmp_path, loss):
    folder = run(data, base, tmp_path, **LEARNING, loss=loss, mini_batch=3, keep="last")
    found = described(folder)["found"]
    assert found["step"] == found["steps"] == 120
    assert found["retrieval_accuracy"] > found["untuned_retrieval_accuracy"] + 0.2
    assert found["retrieval_accuracy"] == pytest.approx(naive_accuracy(folder, data))


def test_cached_and_uncached_training_agree_without_dropout(data, base, tmp_path):
    still = SentenceTransformer(str(base), device="cpu")
    config = still.transformers_model.config
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    still.save_pretrained(str(tmp_path / "still"), create_model_card=False)
    folders = [
        run(data, tmp_path / "still", tmp_path / loss, epochs=1, loss=loss, mini_batch=2)
        for loss in ("mnrl", "cached-mnrl")
    ]
    # Adam moves also weights whose gradient is nothing but rounding, and which change no embedding.
    one, two = (load_embedder({"path": str(folder)}).encode(SENTENCES) for folder in folders)
    np.testing.assert_allclose(one, two, atol=1e-3)
    before = load_embedder({"path": str(base)}).encode(SENTENCES)
    assert np.abs(one - before).max() > 0.05


def test_texts_are_trained_on_with_the_prompt_they_are_embedded_with(data, base, tmp_path):
    prompted = SentenceTransformer(str(base), prompts={"q": "the cat "}, default_prompt_name="q")
    prompted.save_pretrained(str(tmp_path / "prompted"), create_model_card=False)
    embedder = load_embedder({"path": str(tmp_path / "prompted"), "device": "cpu"})
    text = "sat on the mat"
    known = load_embedder({"path": str(base)}).encode([f"the cat {text}"])
    np.testing.assert_allclose(embedder.encode([text]), known, atol=1e-6)
    rows = Dataset.from_dict(
        {"anchor": [text], "positive": ["rain"], "negative": ["a"], "label": [[0, 1, 0]]}
    )
    job = TuneJob("toy", embedder, rows, None, TuneOptions(), "no", 1)
    batch = next(iter(Tuner(job, Checkpoints(tmp_path, {}), Record()).get_train_dataloader()))
    expected = embedder.model.tokenizer(f"the cat {text}")["input_ids"]
    assert batch["anchor_input_ids"].tolist() == [expected]
    assert batch["label"].tolist() == [[0, 1, 0]]


def test_several_labels_per_text(base, tmp_path):
    data = write_multilabel(tmp_path / "data", train=40)
    table = toy_triplets(data, 40)
    folder = run(data, base, tmp_path, table=table, epochs=1)
    assert described(folder)["found"]["retrieval_accuracy"] <= 1
    dataset = read_dataset(data)
    y, texts = dataset.labels("label"), texts_of("abc")
    rows = train_rows(table, y, ["a", "b", "c"], "about {label}")
    for entry, triplet in zip(rows, table.to_pylist(), strict=True):
        positive, negative, *true = entry["label"]
        assert {code for code in true if code >= 0} == set(np.flatnonzero(y[triplet["row"]]))
        assert entry["positive"] == f"about {texts['abc'[positive]]}"
        assert entry["negative"] == f"about {texts['abc'[negative]]}"
        assert positive in true and negative not in true


def test_retrieval_against_a_loop(monkeypatch):
    monkeypatch.setattr("probeline.lrsl.retrieval._NUMBERS_AT_ONCE", 30)
    rng = np.random.default_rng(0)
    owner = np.array([0, 0, 1, 2, 2, 2, 3])
    vectors = rng.standard_normal((7, 5)).astype(np.float32)
    texts = rng.standard_normal((40, 5)).astype(np.float32)
    true = rng.random((40, 4)) < 0.4
    found = retrieval(texts, LabelVectors(vectors, owner, "best"), true, 3.0)
    hits, losses = [], []
    for text, own in zip(texts, true, strict=True):
        if not own.any():
            continue
        cosines = [max(float(text @ v) for v in vectors[owner == label]) for label in range(4)]
        hits.append(own[int(np.argmax(cosines))])
        shares = np.exp(3.0 * np.array(cosines)) / np.exp(3.0 * np.array(cosines)).sum()
        losses.append(-np.log(shares[own].sum()))
    assert found.texts == len(hits) < 40
    assert found.accuracy == pytest.approx(np.mean(hits))
    assert found.loss == pytest.approx(np.mean(losses), rel=1e-5)


def test_the_fingerprint_is_that_of_what_they_say(data):
    table = toy_triplets(data)
    more = table.append_column("rank", pa.array(range(table.num_rows)))
    assert fingerprint(more.replace_schema_metadata({"a": "b"})) == fingerprint(table)
    assert fingerprint(table.slice(1)) != fingerprint(table)


def test_options_have_defaults_and_rules():
    assert read_tune_options({}) == TuneOptions()
    assert read_tune_options({"epochs": 2}).epochs == 2.0
    for section, expected in (
        ({"loss": "mnr"}, "lrsl.tune.loss: expected one of mnrl, triplet, cached-mnrl"),
        ({"batch_size": 0}, "lrsl.tune.batch_size: expected an integer of 1 or more"),
        ({"scale": 0}, "lrsl.tune.scale: expected a number above 0"),
        ({"warmups": 0}, "lrsl.tune: 'warmups' is not one of"),
    ):
        with pytest.raises(ProbelineError, match=expected):
            read_tune_options(section)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda table: table.slice(0, 0), "lrsl.triplets: there is not one"),
        ({"label": "label 7"}, "'label 7' is no label of the task"),
        ({"negative_label": "label 0", "label": "label 0"}, "the dataset's labels say otherwise"),
    ],
)
def test_triplets_of_other_labels_are_one_line(data, base, tmp_path, change, expected):
    table = toy_triplets(data)
    if callable(change):
        table = change(table)
    else:
        entries = [entry | change for entry in table.to_pylist()]
        table = pa.Table.from_pylist(entries)
    with pytest.raises(ProbelineError, match=expected) as caught:
        run(data, base, tmp_path, table=table)
    assert "\n" not in str(caught.value)


def test_fp16_without_cuda_names_its_key(data, base, tmp_path):
    with pytest.raises(ProbelineError, match=r"lrsl\.tune\.mixed_precision: fp16 needs CUDA"):
        run(data, base, tmp_path, mixed_precision="fp16")


def test_a_loss_that_is_not_finite_is_one_line(data, base, tmp_path):
    with pytest.raises(ProbelineError, match="not finite; try a learning_rate below"):
        run(data, base, tmp_path, learning_rate=1e30, warmup=0.0)
    assert not (tmp_path / "embedding").exists()
