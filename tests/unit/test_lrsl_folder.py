"""A reranker's folder answers as it did where it was made, and refuses what does not belong."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from labelled_texts import labelled
from rerankers import TEMPLATE, decide, naive_answers, texts_of, write
from safetensors.numpy import load_file, save_file
from sentence_transformers import SentenceTransformer
from tiny_embedders import write_embedder, write_static

from probeline.data.store import read_dataset
from probeline.errors import ProbelineError
from probeline.lrsl.combiner import CombinerOptions, fit_combiner
from probeline.lrsl.folder import (
    attach_reranker,
    check_belongs,
    load_reranker,
    read_reranker_manifest,
)
from probeline.lrsl.rerank import Form
from probeline.probe.task import task_data
from probeline.versions import RERANKER_FORMAT

THRESHOLD = 0.5
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def embedder(tmp_path_factory) -> str:
    return str(write_embedder(tmp_path_factory.mktemp("embedder")))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return read_dataset(labelled(tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="module")
def task(dataset):
    return task_data(dataset, "label")


@pytest.fixture(scope="module")
def logits(dataset) -> np.ndarray:
    return np.random.default_rng(3).normal(size=(dataset.rows, 4)).astype(np.float32)


@pytest.fixture
def folder(tmp_path, embedder, dataset, task) -> Path:
    return write(tmp_path / "reranker", embedder, decide(THRESHOLD), dataset, task)


def refused(call, *args) -> str:
    with pytest.raises(ProbelineError) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_it_answers_as_one_text_at_a_time_would(folder, embedder, dataset, task, logits):
    found = load_reranker(folder, "cpu")
    codes, hard = naive_answers(embedder, task, dataset.texts, logits, THRESHOLD)
    assert 5 < sum(hard) < len(hard) - 5
    assert found.decision.selects(logits).tolist() == hard
    reranked = found.rerank(dataset.texts, None, logits)
    assert reranked.argmax(1).tolist() == codes != logits.argmax(1).tolist()
    assert np.array_equal(reranked[~np.array(hard)], logits[~np.array(hard)])


def test_only_hard_texts_are_embedded(folder, dataset, logits):
    found = load_reranker(folder, "cpu")
    seen = []
    found.embedder.model.register_forward_pre_hook(
        lambda module, inputs: seen.append(len(inputs[0]["input_ids"]))
    )
    found.rerank(dataset.texts, None, logits)
    assert sum(seen) == found.decision.selects(logits).sum()
    easy = logits.copy()
    easy[:, 0] += 50
    seen.clear()
    assert found.rerank(dataset.texts, None, easy) is easy
    assert not seen


def test_pairs(tmp_path, embedder):
    dataset = read_dataset(labelled(tmp_path / "data", pairs=True))
    task = task_data(dataset, "label")
    folder = write(tmp_path / "reranker", embedder, decide(np.inf), dataset, task)
    found = load_reranker(folder, "cpu")
    assert found.manifest["pair"]
    z = np.zeros((dataset.rows, 4), np.float32)
    both = found.rerank(dataset.texts, dataset.pairs, z)
    joined = [f"{a} {b}" for a, b in zip(dataset.texts, dataset.pairs, strict=True)]
    assert np.array_equal(both, found.rerank(joined, None, z))
    assert not np.allclose(both, found.rerank(dataset.texts, None, z))


def test_the_manifest(folder, dataset, task):
    manifest = read_reranker_manifest(folder)
    assert manifest["labels"] == list(task.labels)
    assert manifest["dataset_fingerprint"] == dataset.fingerprint
    assert manifest["label_texts"]["second_half"] == ["second half"]
    assert manifest["template"] == TEMPLATE
    assert manifest["decision"]["threshold"] == THRESHOLD
    assert manifest["provenance"] == {"seed": 42, "validation_score": 0.5}
    assert manifest["embedder"]["path"] == "./embedding"
    suffixes = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert not suffixes & {".pkl", ".bin", ".joblib", ".pt"}


def test_a_moved_folder_keeps_its_embedding(tmp_path, dataset, task, logits, monkeypatch):
    own = str(write_embedder(tmp_path / "own"))
    folder = write(tmp_path / "reranker", own, decide(THRESHOLD), dataset, task)
    before = load_reranker(folder, "cpu").rerank(dataset.texts, None, logits)
    shutil.rmtree(tmp_path / "own")
    (tmp_path / "elsewhere").mkdir()
    folder.rename(tmp_path / "elsewhere/mine")
    monkeypatch.chdir(tmp_path / "elsewhere")
    after = load_reranker("mine", "cpu").rerank(dataset.texts, None, logits)
    assert np.array_equal(before, after)


def test_a_plain_transformer_keeps_its_own_length(tmp_path, dataset, task, logits):
    """RoBERTa has fewer places for tokens than its configuration says."""
    plain = write_embedder(tmp_path / "made", kind="roberta").parent / "plain"
    decision = decide(THRESHOLD)
    folder = write(tmp_path / "reranker", str(plain), decision, dataset, task, max_length=None)
    length = read_reranker_manifest(folder)["embedder"]["max_length"]
    found = load_reranker(folder, "cpu")
    assert found.embedder.max_length == length
    assert len(found.rerank(dataset.texts, None, logits)) == len(logits)


def test_static_vectors_have_no_length(tmp_path, dataset, task, logits):
    own = str(write_static(tmp_path / "own"))
    folder = write(tmp_path / "reranker", own, decide(np.inf), dataset, task, max_length=None)
    assert read_reranker_manifest(folder)["embedder"]["max_length"] is None
    found = load_reranker(folder, "cpu")
    model = SentenceTransformer(own, device="cpu")
    names = [TEMPLATE.replace("{label}", text) for (text,) in texts_of(task)]
    texts, labels = (model.encode(t, normalize_embeddings=True) for t in (dataset.texts, names))
    everything = np.ones(len(logits), dtype=bool)
    cosines = found.similarities(dataset.texts, None, everything)
    np.testing.assert_allclose(cosines, texts @ labels.T, atol=1e-5)


@pytest.mark.parametrize(
    ("form", "narrow"),
    [
        (Form("prob", 2.0), True),
        (Form("mix", 2.0, 0.5), True),
        (Form("paper-logits", 2.0), False),
        (Form("prob", 2.0, candidates=2), False),
    ],
)
def test_among_very_many_labels_only_some_can_win(
    tmp_path, embedder, dataset, task, logits, monkeypatch, form, narrow
):
    decision = decide(np.inf, form=form)
    found = load_reranker(write(tmp_path / "r", embedder, decision, dataset, task), "cpu")
    everything = np.ones(len(logits), dtype=bool)
    whole = found.similarities(dataset.texts, None, everything)
    monkeypatch.setattr("probeline.lrsl.neighbours.EXACT_BELOW", 4)
    monkeypatch.setattr("probeline.lrsl.neighbours.CANDIDATES", 1)
    cosines = whole.copy()
    if narrow:
        may = [{z.argmax(), s.argmax()} for z, s in zip(logits, whole, strict=True)]
        cosines *= [[label in own for label in range(4)] for own in may]
        assert (cosines == 0).any()
    known = decision.apply(logits, everything, cosines)
    np.testing.assert_allclose(found.rerank(dataset.texts, None, logits), known, atol=1e-4)
    # What is shown to people is every cosine.
    np.testing.assert_array_equal(found.similarities(dataset.texts, None, everything), whole)


def test_everything_is_reranked_beyond_all_certainties(tmp_path, embedder, dataset, task, logits):
    folder = write(tmp_path / "r", embedder, decide(np.inf), dataset, task)
    assert read_reranker_manifest(folder)["decision"]["everything"]
    assert load_reranker(folder, "cpu").decision.selects(100 * logits).all()


@pytest.mark.parametrize(
    "decision", [decide(None), decide(1.0, form=Form.nothing())], ids=["no threshold", "nothing"]
)
def test_doing_nothing_needs_no_embedding(tmp_path, embedder, dataset, task, logits, decision):
    folder = write(tmp_path / "r", embedder, decision, dataset, task)
    shutil.rmtree(folder / "embedding")
    found = load_reranker(folder, "cpu")
    assert found.embedder is None
    assert found.rerank(dataset.texts, None, logits) is logits


def test_a_combiner_comes_back(tmp_path, embedder, dataset, task, logits):
    cosines = np.random.default_rng(0).uniform(0, 1, logits.shape).astype(np.float32)
    y = dataset.labels("label")
    combiner = fit_combiner(logits, cosines, y, CombinerOptions(candidates=3), seed=0)
    decision = decide(THRESHOLD, form=Form.nothing(), combiner=combiner, temperature=1.5)
    folder = write(tmp_path / "r", embedder, decision, dataset, task)
    found = load_reranker(folder, "cpu")
    hard = decision.selects(logits)
    assert hard.any()
    for one, other in zip(
        combiner.arrays().values(), found.decision.reranking.combiner.arrays().values(), strict=True
    ):
        assert np.array_equal(one, other)
    assert np.array_equal(
        found.decision.apply(logits, hard, cosines[hard]),
        decision.apply(logits, hard, cosines[hard]),
    )
    (folder / "combiner.safetensors").unlink()
    assert "combiner.safetensors: no such file" in refused(load_reranker, folder)


def test_nothing_hangs_on_test_labels(tmp_path, folder, embedder, dataset, task):
    mixed = {**task.y, "test": np.random.default_rng(5).permutation(task.y["test"])}
    assert not np.array_equal(mixed["test"], task.y["test"])
    other = write(tmp_path / "other", embedder, decide(THRESHOLD), dataset, replace(task, y=mixed))
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert files == sorted(p.relative_to(other) for p in other.rglob("*") if p.is_file())
    for file in files:
        assert (folder / file).read_bytes() == (other / file).read_bytes()


def cached_model(tmp_path, monkeypatch, source: str) -> Path:
    """`source` as org/sentences in a hub cache of this test's own."""
    cache = tmp_path / "hub/models--org--sentences"
    snapshot = cache / "snapshots" / COMMIT
    shutil.copytree(source, snapshot)
    (cache / "refs").mkdir()
    (cache / "refs/main").write_text(COMMIT)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return snapshot


def test_an_embedding_of_the_hub_is_referred_to(
    tmp_path, monkeypatch, embedder, dataset, task, logits
):
    snapshot = cached_model(tmp_path, monkeypatch, embedder)
    folder = write(tmp_path / "r", "org/sentences", decide(THRESHOLD), dataset, task)
    assert not (folder / "embedding").exists()
    reference = read_reranker_manifest(folder)["embedder"]
    assert (reference["kind"], reference["revision"]) == ("hub", COMMIT)
    local = write(tmp_path / "local", embedder, decide(THRESHOLD), dataset, task)
    found, own = (load_reranker(each, "cpu") for each in (folder, local))
    assert np.array_equal(
        found.rerank(dataset.texts, None, logits), own.rerank(dataset.texts, None, logits)
    )
    weights = snapshot / "model.safetensors"
    arrays = load_file(weights)
    first = next(name for name in sorted(arrays) if arrays[name].dtype == np.float32)
    arrays[first] = arrays[first] + 1
    save_file(arrays, weights, metadata={"format": "pt"})
    message = refused(load_reranker, folder)
    assert "org/sentences" in message and reference["identity"] in message
    shutil.rmtree(snapshot)
    message = refused(load_reranker, folder)
    assert str(folder) in message and "not in the local hub cache" in message


def test_missing_files(folder, tmp_path):
    assert "not a reranker folder" in refused(load_reranker, tmp_path / "none")
    assert "reranker.json" in refused(load_reranker, tmp_path)
    labels = folder / "labels.safetensors"
    labels.rename(tmp_path / "labels")
    assert f"{labels}: no such file" in refused(load_reranker, folder)
    (tmp_path / "labels").rename(labels)
    labels.write_bytes(labels.read_bytes()[:-9])
    assert "not a complete safetensors file" in refused(load_reranker, folder)


def test_a_missing_embedding(folder):
    shutil.rmtree(folder / "embedding")
    message = refused(load_reranker, folder)
    assert str(folder) in message and "no such folder" in message


def edit(folder: Path, **more) -> None:
    path = folder / "reranker.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | more))


def test_another_format(folder):
    edit(folder, format=RERANKER_FORMAT + 1)
    assert f"format {RERANKER_FORMAT + 1}" in refused(load_reranker, folder)
    (folder / "reranker.json").write_text("[]")
    assert "not the JSON object" in refused(load_reranker, folder)
    (folder / "reranker.json").write_text('{"format"')
    assert "not a complete JSON file" in refused(load_reranker, folder)


@pytest.mark.parametrize(
    "more",
    [{"decision": {}}, {"embedder": None}, {"labels": ["a"]}],
    ids=lambda more: next(iter(more)),
)
def test_a_damaged_manifest(folder, more):
    edit(folder, **more)
    assert "copy the folder again" in refused(load_reranker, folder)


def test_label_vectors_of_another_width(folder):
    path = folder / "labels.safetensors"
    arrays = load_file(path)
    arrays["vectors"] = np.ascontiguousarray(arrays["vectors"][:, :-1])
    save_file(arrays, path)
    message = refused(load_reranker, folder)
    assert "width 16" in message and "15" in message


def classifier_of(folder: Path) -> dict:
    own = read_reranker_manifest(folder)
    keys = ("dataset", "dataset_fingerprint", "task", "multilabel", "labels", "model")
    return {key: own[key] for key in keys} | {"source": ("stc", "probe")}


@pytest.mark.parametrize(
    "key, value",
    [
        ("dataset", "other"),
        ("dataset_fingerprint", "123"),
        ("task", "level2"),
        ("labels", ["a", "b", "c", "d"]),
        ("multilabel", True),
        ("model", "other"),
        ("source", "finetune-42"),
    ],
)
def test_a_reranker_of_another_classifier(folder, key, value):
    classifier = classifier_of(folder)
    check_belongs(folder, read_reranker_manifest(folder), classifier)
    edit(folder, **{key: value})
    message = refused(check_belongs, folder, read_reranker_manifest(folder), classifier)
    assert str(folder) in message and key.replace("_", " ") in message


def test_only_its_own_classifier_carries_it(folder, tmp_path):
    (tmp_path / "classifier").mkdir()
    assert "not a classifier folder" in refused(attach_reranker, tmp_path / "classifier", folder)
    assert "not a reranker folder" in refused(attach_reranker, tmp_path / "classifier", tmp_path)
