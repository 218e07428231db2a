"""Activations of one text at a time, computed without the library's hooks, pooling or batching."""

from __future__ import annotations

import numpy as np
import torch
from tiny_models import TINY

from probeline.models.load import LoadedModel

POOLINGS = ("first", "last", "max", "mean")
CLOSE = {"rtol": 1e-4, "atol": 2e-5}


def pool_by_loop(values: np.ndarray, pooling: str) -> np.ndarray:
    """Pool (tokens, width) in plain Python."""
    if pooling in ("first", "last"):
        return values[0 if pooling == "first" else -1]
    columns = values.T.tolist()
    if pooling == "max":
        return np.array([max(column) for column in columns])
    return np.array([sum(column) / len(column) for column in columns])


def one_at_a_time(kind: str, model: LoadedModel, texts, pairs=None, decoder=False) -> dict:
    """Each text alone, unpadded: hidden states from hooks on nothing but whole blocks, feed-forward
    activations recomputed by hand from what enters the feed-forward block."""
    result: dict = {}
    for row, text in enumerate(texts):
        encoded = model.tokenizer(
            text,
            pairs[row] if pairs else None,
            truncation=True,
            max_length=model.max_length,
            return_tensors="pt",
            return_token_type_ids=True,
        )
        if not model.family.token_types:
            encoded.pop("token_type_ids", None)
        for key, values in token_activations(kind, model, dict(encoded), decoder).items():
            for pooling in POOLINGS:
                rows = result.setdefault((*key, pooling), [])
                rows.append(pool_by_loop(values, pooling))
    return {name: np.stack(rows) for name, rows in result.items()}


def token_activations(kind, model, inputs, decoder) -> dict:
    """{(representation, layer): (tokens, width)} of one unpadded text."""
    tiny = TINY[kind]
    seen: dict = {}
    entering: dict = {}
    handles = []
    stacks = [("", tiny.blocks, tiny.ffn_input)]
    if decoder:
        stacks.append(("decoder-", "decoder.block", "layer.2.DenseReluDense"))
        inputs["decoder_input_ids"] = torch.tensor([[0]])
    for prefix, path, ffn_input in stacks:
        for number, block in enumerate(model.body.get_submodule(path), start=1):

            def keep_input(module, args, output, key=(f"{prefix}ffn", number), block=block):
                entering[key] = (block, args[0] if args[0].dim() == 3 else args[0][None])

            def keep_output(module, args, output, key=(f"{prefix}hidden", number)):
                seen[key] = (output[0] if isinstance(output, tuple) else output)[0].numpy()
                if key[1] == 1:
                    seen[(key[0], 0)] = args[0][0].numpy()

            handles.append(block.get_submodule(ffn_input).register_forward_hook(keep_input))
            handles.append(block.register_forward_hook(keep_output))
    with torch.no_grad():
        body = model.body
        if model.family.decoder is not None and not decoder:
            body = body.encoder
        body(**inputs)
    for handle in handles:
        handle.remove()
    with torch.no_grad():
        for key, (block, x) in entering.items():
            seen[key] = tiny.ffn(block, x)[0].numpy()
    return seen


def assert_same(ours: dict, theirs: dict) -> None:
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], **CLOSE, err_msg=str(name))
