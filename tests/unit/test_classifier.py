"""The classifier's folder: it predicts what the workflow stored, anywhere, with few blocks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from pipeline import Run, classify, prepare, trained
from safetensors.numpy import load_file, save_file
from scipy.special import expit, softmax
from tiny_models import build

import probeline
from probeline.activations.shards import open_shard
from probeline.aggregate.stage import read_grid
from probeline.classifier.folder import read_head
from probeline.errors import ProbelineError
from probeline.probe.task import SPLITS
from probeline.sparsify import sparsify
from probeline.versions import CLASSIFIER_FORMAT

KINDS = ["binary", "multiclass", "multilabel", "pairs"]
CLOSE = {"rtol": 1e-3, "atol": 2e-4}


@pytest.fixture(scope="module", params=KINDS)
def run(request, tmp_path_factory) -> Run:
    return trained(request.param, tmp_path_factory)


@pytest.fixture(scope="module")
def multiclass(tmp_path_factory) -> Run:
    return trained("multiclass", tmp_path_factory)


@pytest.fixture
def copy(multiclass, tmp_path) -> Path:
    return Path(shutil.copytree(multiclass.classifier, tmp_path / "copy"))


def pairs_of(run: Run) -> tuple[list[str], list[str] | None]:
    return run.dataset.texts, run.dataset.pairs


def test_logits_are_the_stored_ones(run):
    loaded = probeline.load(run.classifier)
    stored = run.predictions()
    assert stored.labels == loaded.labels == list(run.task.labels)
    assert stored.rows.tolist() == list(range(run.dataset.rows))
    logits = loaded.logits(*pairs_of(run))
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, stored.logits, **CLOSE)


def test_it_learnt_something(run):
    scores = run.scores()["selected"]
    chance = {"binary": 0.67, "multiclass": 0.45, "multilabel": 0.5, "pairs": 0.45}
    kind = next(kind for kind in KINDS if run.folder.name.startswith(kind))
    assert scores["test_score"] > chance[kind]
    task, stored = run.task, run.predictions()
    for split in ("validation", "test"):
        assert scores[f"{split}_score"] == task.score(split, stored.of(split))


def test_predict(run):
    loaded = probeline.load(run.classifier)
    texts, pairs = pairs_of(run)
    some = slice(30, 60)
    answers = loaded.predict(texts[some], pairs[some] if pairs else None)
    logits = run.predictions().logits[some]
    assert len(answers) == 30
    if loaded.multilabel:
        threshold = loaded.manifest["step"]["threshold"]
        expected = expit(logits + threshold)
    else:
        expected = softmax(logits, axis=1)
    for answer, row, p in zip(answers, logits, expected, strict=True):
        assert list(answer["scores"]) == loaded.labels
        np.testing.assert_allclose(list(answer["scores"].values()), p, atol=2e-4)
        if loaded.multilabel:
            # Rows on the edge may fall to either side.
            sure = [k for k, z in zip(loaded.labels, row, strict=True) if abs(z) > 1e-3]
            assert [k for k in answer["labels"] if k in sure] == [
                k for k, z in zip(loaded.labels, row, strict=True) if z > 0 and k in sure
            ]
        else:
            assert answer["label"] == loaded.labels[int(row.argmax())]
            assert sum(answer["scores"].values()) == pytest.approx(1, abs=1e-5)
    json.dumps(answers)


def test_neither_order_nor_company_matters(run):
    loaded = probeline.load(run.classifier)
    texts, pairs = pairs_of(run)
    whole = loaded.logits(texts, pairs)
    order = np.random.default_rng(0).permutation(len(texts))
    shuffled = loaded.logits(
        [texts[i] for i in order], None if pairs is None else [pairs[i] for i in order]
    )
    np.testing.assert_allclose(shuffled, whole[order], **CLOSE)
    for i in (3, 77):
        alone = loaded.logits(texts[i : i + 1], pairs[i : i + 1] if pairs else None)
        np.testing.assert_allclose(alone[0], whole[i], **CLOSE)
    again = loaded.logits(texts, pairs)
    np.testing.assert_array_equal(again, whole)


def test_one_text_none_and_a_generator(multiclass):
    loaded = probeline.load(multiclass.classifier)
    text = multiclass.dataset.texts[0]
    assert loaded.predict(text) == loaded.predict([text]) == loaded.predict(t for t in [text])
    assert loaded.predict([]) == []
    assert loaded.logits([]).shape == (0, 3)


def test_what_the_folder_says(run):
    head, manifest = read_head(run.classifier)
    scores = run.scores()["selected"]
    assert manifest["scores"] == scores
    assert manifest["neurons"] == scores["neurons"] == len(head.neurons)
    assert manifest["depth"] == head.neurons.layer.max() == scores["depth"]
    assert manifest["provenance"]["dataset_fingerprint"] == run.dataset.fingerprint
    assert manifest["provenance"]["pair"] == (run.dataset.pairs is not None)
    assert manifest["provenance"]["rows"] == {s: len(run.task.rows[s]) for s in SPLITS}
    with open_shard(run.shards[0]) as shard:
        for key in ("revision", "tokenizer_hash", "dtype", "max_length"):
            assert manifest["model"][key] == shard.meta[key]
    assert not any(run.classifier.rglob("*.pkl"))
    assert not any(run.classifier.rglob("*.bin"))


def test_the_winner_of_all_grids(multiclass):
    """The classifier is the choice among all slugs, combinations included; `smallest` is the
    sparsest point of any."""
    scores, task = multiclass.scores(), multiclass.task
    every = {slug: read_grid(path)[0] for slug, path in multiclass.grids().items()}
    points = [(slug, c) for slug, found in every.items() for c in found]
    highest = max(c.step.score for _, c in points)
    n = len(task.rows["validation"])
    margin = 0.5 * (highest * (1 - highest) / n) ** 0.5
    slug, best = min(
        (p for p in points if p[1].step.score >= highest - margin), key=lambda p: p[1].step.log_loss
    )
    assert (scores["selected"]["slug"], scores["selected"]["eta"]) == (slug, best.eta)
    near = [p for p in points if p[1].step.score >= highest - 0.02 - 1e-9]
    fewest = min(c.step.neurons for _, c in near)
    assert scores["smallest"]["neurons"] == fewest
    smallest = multiclass.predictions("stc-smallest")
    assert smallest.meta["variant"].startswith("smallest: ")
    assert scores["smallest"]["test_score"] == task.score("test", smallest.of("test"))


def test_a_moved_folder_still_works(multiclass, copy, tmp_path, monkeypatch):
    moved = tmp_path / "elsewhere" / "mine"
    moved.parent.mkdir()
    copy.rename(moved)
    texts = multiclass.dataset.texts[:20]
    monkeypatch.chdir(moved.parent)
    np.testing.assert_allclose(
        probeline.load("mine").logits(texts), multiclass.predictions().logits[:20], **CLOSE
    )
    # The body is the folder's own, not the one the workflow was given.
    manifest = json.loads((moved / "classifier.json").read_text())
    assert manifest["model"]["path"] == "./model"
    assert (moved / "model/model.safetensors").is_file()


def test_only_the_blocks_up_to_its_depth_run(multiclass, tmp_path):
    shallow = Run(tmp_path, multiclass.spec)
    shutil.copytree(multiclass.folder / "results", tmp_path / "results")
    classify(shallow, depths=[2])
    loaded = probeline.load(shallow.classifier)
    assert loaded.depth == 2
    ran = []
    blocks = loaded._model.body.get_submodule("encoder.layer")
    assert len(blocks) == 3
    for number, block in enumerate(blocks, start=1):
        block.register_forward_hook(lambda *_, n=number: ran.append(n))
    texts = multiclass.dataset.texts
    logits = loaded.logits(texts)
    assert set(ran) <= {1, 2}
    assert 1 in ran
    np.testing.assert_allclose(logits, shallow.predictions().logits, **CLOSE)


def test_another_revision_is_refused(copy):
    weights = copy / "model/model.safetensors"
    arrays = load_file(weights)
    arrays["encoder.layer.0.output.dense.bias"] += 1
    save_file(arrays, weights, metadata={"format": "pt"})
    with pytest.raises(ProbelineError, match=r"was trained on \./model at revision sha256:"):
        probeline.load(copy)


def test_no_gradients_and_evaluation_mode(multiclass):
    body = probeline.load(multiclass.classifier)._model.body
    assert not body.training
    assert not any(weight.requires_grad for weight in body.parameters())
    assert torch.is_grad_enabled()


def refused(folder, *words) -> None:
    with pytest.raises(ProbelineError) as caught:
        probeline.load(folder)
    assert "\n" not in str(caught.value)
    for word in words:
        assert str(word) in str(caught.value)


def test_missing_files(copy, tmp_path):
    refused(tmp_path / "nothing", "not a classifier folder")
    refused(tmp_path, "not a classifier folder", "classifier.json")
    (copy / "head.safetensors").rename(tmp_path / "head")
    refused(copy, copy / "head.safetensors")
    (tmp_path / "head").rename(copy / "head.safetensors")
    (copy / "model/tokenizer.json").unlink()
    refused(copy, "tokenizer")
    shutil.rmtree(copy / "model")
    refused(copy, copy / "model", "no such folder")


def test_another_format(copy):
    path = copy / "classifier.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"format": CLASSIFIER_FORMAT - 1}))
    refused(copy, path, f"format {CLASSIFIER_FORMAT - 1}", "train it again")
    path.write_text(path.read_text()[:300])
    refused(copy, path, "not a complete JSON file")
    path.write_text("[1, 2]")
    refused(copy, path)
    path.write_text(json.dumps({"format": CLASSIFIER_FORMAT, "labels": ["a"]}))
    refused(copy, copy)


def test_half_a_head(copy, multiclass):
    path = copy / "head.safetensors"
    whole = path.read_bytes()
    for size in (0, 5, 200, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        refused(copy, path, "not a complete safetensors file")
    # A whole file, but of something else.
    shutil.copyfile(copy / "model/model.safetensors", path)
    refused(copy, copy, "do not belong together")
    path.write_bytes(whole)
    arrays = load_file(path)
    save_file(arrays | {"source": arrays["source"] + 99}, path)
    refused(copy, "do not belong together")
    save_file(arrays | {"coefficients": arrays["coefficients"][:, :2].copy()}, path)
    refused(copy, "do not belong together")


def test_half_a_body(copy):
    path = copy / "model/model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    refused(copy, path, "half-copied")


def test_unknown_device(copy):
    with pytest.raises(ProbelineError, match="device: 'gpu' is not one of auto, cpu, cuda, mps"):
        probeline.load(copy, device="gpu")


def test_texts_and_pairs_are_checked(multiclass, tmp_path_factory):
    single = probeline.load(multiclass.classifier)
    double = probeline.load(trained("pairs", tmp_path_factory).classifier)
    assert double.predict("a cat", "the mat") == double.predict(["a cat"], ["the mat"])
    for call, words in (
        (lambda: single.predict(["a", 3]), "every text must be a string"),
        (lambda: single.predict(["a", None]), "every text must be a string"),
        (lambda: single.predict(["a"], ["b"]), "trained on single texts"),
        (lambda: double.predict(["a"]), "trained on pairs of texts"),
        (lambda: double.predict(["a", "b"], ["c"]), "2 texts but 1 second texts"),
        (lambda: double.predict(["a"], [None]), "every text must be a string"),
        (lambda: single.predict(["fine", "broken \ud800"]), "text 1"),
    ):
        with pytest.raises(ProbelineError, match=words):
            call()


def test_a_text_without_words(multiclass):
    """Special tokens alone: an answer like any other."""
    loaded = probeline.load(multiclass.classifier)
    assert loaded.predict("")[0]["label"] in loaded.labels


def test_a_model_from_a_package(tmp_path, monkeypatch):
    """Referred to, not copied; its own tokenizer, from a folder, travels along."""
    build("bert", tmp_path / "lib/some_package/model")
    monkeypatch.syspath_prepend(tmp_path / "lib")
    tokenizer = Path(shutil.copytree(tmp_path / "lib/some_package/model", tmp_path / "tokenizer"))
    (tokenizer / "model.safetensors").unlink()
    path = "package:some_package/model"
    run = classify(prepare(tmp_path, "multiclass", path=path, tokenizer=str(tokenizer)))
    shutil.rmtree(tokenizer)
    model = json.loads((run.classifier / "classifier.json").read_text())["model"]
    assert (model["kind"], model["path"]) == ("package", path)
    assert not (run.classifier / "model").exists()
    texts = run.dataset.texts[:9]
    logits = probeline.load(run.classifier).logits(texts)
    np.testing.assert_allclose(logits, run.predictions().logits[:9], **CLOSE)
    vocabulary = run.classifier / "tokenizer/tokenizer.json"
    vocabulary.write_text(vocabulary.read_text().replace('"cat"', '"dog"'))
    refused(run.classifier, "the tokenizer's files are not those it was trained with")
    build("gpt2", tmp_path / "lib/some_package/model")
    refused(run.classifier, f"was trained on {path} at revision sha256:")
    shutil.rmtree(tmp_path / "lib/some_package")
    refused(run.classifier, "some_package")


def test_a_model_from_the_hub(tmp_path, monkeypatch):
    """By its commit: what `main` is now does not matter."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    first, second = "1" * 40, "2" * 40
    cache = tmp_path / "hub/models--org--tiny"
    build("bert", cache / "snapshots" / first)
    (cache / "refs").mkdir()
    (cache / "refs/main").write_text(first)
    run = classify(prepare(tmp_path, "multiclass", path="org/tiny"))
    build("gpt2", cache / "snapshots" / second)
    (cache / "refs/main").write_text(second)
    model = json.loads((run.classifier / "classifier.json").read_text())["model"]
    assert (model["kind"], model["path"], model["revision"]) == ("hub", "org/tiny", first)
    assert not (run.classifier / "model").exists()
    texts = run.dataset.texts[:9]
    logits = probeline.load(run.classifier).logits(texts)
    np.testing.assert_allclose(logits, run.predictions().logits[:9], **CLOSE)
    shutil.rmtree(cache / "snapshots" / first)
    refused(run.classifier, "org/tiny", "probeline fetch")


def test_a_model_with_code_of_its_own(tmp_path, monkeypatch):
    """The code travels with the body it belongs to."""
    modules = str(tmp_path / "modules")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", modules)
    body = build("bert", tmp_path / "custom")
    config = json.loads((body / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "modeling_mine.Mine"}
    (body / "config.json").write_text(json.dumps(config))
    code = "from transformers import BertModel\n\n\nclass Mine(BertModel):\n    pass\n"
    (body / "modeling_mine.py").write_text(code)
    run = classify(prepare(tmp_path, "multiclass", path=str(body), trust_remote_code=True))
    shutil.rmtree(body)
    refused(run.classifier, "runs Python code of its own", "--trust-remote-code")
    loaded = probeline.load(run.classifier, trust_remote_code=True)
    assert type(loaded._model.body).__name__ == "Mine"
    texts = run.dataset.texts[:9]
    np.testing.assert_allclose(loaded.logits(texts), run.predictions().logits[:9], **CLOSE)


def test_probes_that_are_all_zero(multiclass, tmp_path):
    """No neuron is worth a weight in any layer: a classifier all the same, of the intercept."""
    run = Run(tmp_path, multiclass.spec)
    shutil.copytree(multiclass.folder / "results", tmp_path / "results")
    for (table,) in (tables for tables in run.tables().values() if len(tables) == 1):
        sparsify([], table)
    classify(run, select="sparsest")
    loaded = probeline.load(run.classifier)
    assert loaded.manifest["neurons"] == loaded.depth == 0
    shares = np.bincount(run.task.y["train"]) / len(run.task.y["train"])
    np.testing.assert_allclose(loaded.scores(["a", "b c"]), [shares, shares], atol=1e-4)


def test_no_neuron_at_all(multiclass, tmp_path):
    """A pure L1 head under a strong penalty is zero: the majority, without a forward pass."""
    run = Run(tmp_path, multiclass.spec)
    shutil.copytree(multiclass.folder / "results", tmp_path / "results")
    classify(run, l1_ratios=[1.0], penalties=[1e-5])
    loaded = probeline.load(run.classifier)
    assert loaded.manifest["neurons"] == loaded.depth == 0
    assert run.scores()["selected"]["weights"] == 0
    np.testing.assert_allclose(
        loaded.logits(multiclass.dataset.texts), run.predictions().logits, atol=1e-6
    )


def test_the_old_folder_stays_until_the_new_one_is_whole(multiclass, tmp_path, monkeypatch):
    run = Run(tmp_path, multiclass.spec)
    shutil.copytree(multiclass.folder / "results", tmp_path / "results")
    before = {p.name: p.read_bytes() for p in run.classifier.rglob("*") if p.is_file()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("probeline.classifier.folder.write_json", full)
    with pytest.raises(ProbelineError, match="no space left on the disk"):
        classify(run)
    after = {p.name: p.read_bytes() for p in run.classifier.rglob("*") if p.is_file()}
    assert after == before
    assert [p.name for p in run.classifier.parent.iterdir()] == ["tiny"]


@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_other_families(family, tmp_path):
    run = classify(prepare(tmp_path, "multiclass", family))
    loaded = probeline.load(run.classifier)
    np.testing.assert_allclose(
        loaded.logits(run.dataset.texts), run.predictions().logits, rtol=1e-3, atol=5e-4
    )


def test_metric_of_the_config_is_used_throughout(tmp_path):
    run = classify(prepare(tmp_path, "multilabel", metric="macro-f1"), class_weight="auto")
    scores = run.scores()["selected"]
    assert scores["metric"] == "macro-f1"
    loaded = probeline.load(run.classifier)
    logits = loaded.logits(run.dataset.texts)
    rows = run.task.rows["test"]
    assert run.task.score("test", logits[rows]) == pytest.approx(scores["test_score"], abs=0.02)


def test_whoever_may_read_the_folder_may_read_all_of_it(multiclass):
    modes = {path.name: path.stat().st_mode & 0o777 for path in multiclass.classifier.iterdir()}
    assert modes["head.safetensors"] == modes["classifier.json"]
