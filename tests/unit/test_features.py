"""Features for prediction equal the shards' columns and compute no more than they need."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from naive import CLOSE, one_at_a_time
from safetensors.torch import load_file, save_file
from tiny_models import PAIRS, SENTENCES, build

from probeline.activations.features import pooled_features
from probeline.errors import ProbelineError
from probeline.models.load import load_model

WANTED = [
    ("hidden", 0, "mean", np.array([3, 1])),
    ("ffn", 2, "max", np.array([39, 0, 7])),
    ("ffn", 2, "first", np.array([5])),
    ("ffn", 2, "max", np.array([2])),
    ("hidden", 1, "last", np.array([], dtype=np.int64)),
    ("ffn", 1, "last", np.array([10, 10])),
]


@pytest.fixture(scope="module", params=["bert", "gpt2", "flan-t5", "llama"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def model(kind, tmp_path_factory):
    folder = build(kind, tmp_path_factory.mktemp(kind))
    return load_model({"path": str(folder), "dtype": "float32", "device": "cpu"})


def expected(truth: dict, wanted) -> np.ndarray:
    return np.concatenate(
        [truth[name, layer, pooling][:, columns] for name, layer, pooling, columns in wanted], 1
    )


@pytest.mark.parametrize("budget", [None, 1, 50])
def test_equals_one_text_at_a_time(kind, model, budget):
    ours = pooled_features(model, SENTENCES, None, WANTED, batch_tokens=budget)
    assert ours.dtype == np.float32
    assert ours.shape == (len(SENTENCES), 9)
    np.testing.assert_allclose(
        ours, expected(one_at_a_time(kind, model, SENTENCES), WANTED), **CLOSE
    )


def test_pairs(kind, model):
    ours = pooled_features(model, SENTENCES, PAIRS, WANTED)
    truth = one_at_a_time(kind, model, SENTENCES, PAIRS)
    np.testing.assert_allclose(ours, expected(truth, WANTED), **CLOSE)


def test_only_the_blocks_that_are_needed_run(model):
    ran = []
    blocks = model.body.get_submodule(model.family.encoder.blocks)
    handles = [
        block.register_forward_pre_hook(lambda module, args, n=number: ran.append(n))
        for number, block in enumerate(blocks, start=1)
    ]
    try:
        pooled_features(model, SENTENCES, None, WANTED)
    finally:
        for handle in handles:
            handle.remove()
    assert set(ran) == {1, 2}


def test_a_layer_that_the_models_code_leaves_out(tmp_path):
    model = load_model({"path": str(build("bert", tmp_path)), "dtype": "float32", "device": "cpu"})
    block = model.body.get_submodule(model.family.encoder.blocks)[0]
    block.forward = lambda hidden_states, *_, **__: hidden_states
    for wanted in (WANTED, [("ffn", 1, "max", np.array([0]))]):
        with pytest.raises(ProbelineError, match="its forward pass does not show every layer"):
            pooled_features(model, SENTENCES, None, wanted)


def test_many_texts_and_none(model):
    texts = [SENTENCES[number % 7] for number in range(1500)]
    ours = pooled_features(model, texts, None, WANTED)
    few = pooled_features(model, SENTENCES[:7], None, WANTED)
    np.testing.assert_allclose(ours, few[np.arange(1500) % 7], **CLOSE)
    assert pooled_features(model, [], None, WANTED).shape == (0, 9)
    assert pooled_features(model, SENTENCES, None, []).shape == (len(SENTENCES), 0)


def test_decoder(tmp_path):
    folder = build("t5", tmp_path)
    model = load_model({"path": str(folder), "dtype": "float32", "device": "cpu"}, decoder=True)
    wanted = [
        ("decoder-hidden", 1, "mean", np.array([4, 2])),
        ("hidden", 3, "mean", np.array([1])),
        ("decoder-ffn", 1, "max", np.array([9])),
    ]
    truth = one_at_a_time("t5", model, SENTENCES, decoder=True)
    ours = pooled_features(model, SENTENCES, None, wanted)
    np.testing.assert_allclose(ours, expected(truth, wanted), **CLOSE)


@pytest.mark.parametrize(
    "wanted, words",
    [
        (("hidden", 4, "mean", np.array([0])), "layer 4 of 'hidden' is out of range"),
        (("hidden", 1, "avg", np.array([0])), "'avg' is not one of"),
        (("hidden", 1, "mean", np.array([16])), "neuron 16 of 'hidden' layer 1 is asked for"),
        (("decoder-ffn", 1, "mean", np.array([0])), "no encoder-decoder|decoder"),
    ],
)
def test_what_does_not_exist(tmp_path, wanted, words):
    model = load_model({"path": str(build("bert", tmp_path)), "dtype": "float32"})
    with pytest.raises(ProbelineError, match=words):
        pooled_features(model, SENTENCES, None, [wanted])


def test_nan_names_the_text(tmp_path):
    folder = build("bert", tmp_path)
    model = load_model({"path": str(folder), "dtype": "float32", "device": "cpu"})
    weights = load_file(folder / "model.safetensors")
    word = model.tokenizer.convert_tokens_to_ids("phone")
    weights["embeddings.word_embeddings.weight"][word] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    broken = load_model({"path": str(folder), "dtype": "float32", "device": "cpu"})
    with pytest.raises(ProbelineError, match="for text 4"):
        pooled_features(broken, SENTENCES, None, [("hidden", 1, "mean", np.array([0]))])
