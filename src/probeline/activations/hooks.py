"""Watch every block of one forward pass: feed-forward activations and hidden states.

The feed-forward activation of block l is the input of its output projection (after the gate, for
gated blocks). Hidden state l is the output of block l as the block returns it; 0 is the input of
the first block. Unlike `output_hidden_states`, no final norm is applied to the last one.

Each tensor (texts, tokens, width) is handed on while the pass runs and dropped, so at most one is
alive beside the model's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from probeline.activations.batching import Batch
from probeline.activations.names import layers_of
from probeline.activations.pooling import Pooler
from probeline.errors import ProbelineError
from probeline.models.load import LoadedModel

Key = tuple[str, int]
Sink = Callable[[Key, torch.Tensor, Pooler], None]


class _Done(Exception):
    """Raised inside the forward pass after the last activation that is wanted."""


class Watch:
    """Context manager that runs batches and hands each wanted activation to `sink`.

    Parameters
    ----------
    model : LoadedModel
    wanted : iterable of (representation, layer)
    sink : callable
        Called as `sink((representation, layer), values, pooler)` with `values` (texts, tokens,
        width) on the model's device, in the order of computation. It must not keep `values`.

    Raises
    ------
    ProbelineError
        If a representation or layer is not one of the model's.

    Notes
    -----
    The pass stops after the last wanted activation: later blocks, final norms and poolers are not
    computed.
    """

    def __init__(self, model: LoadedModel, wanted: Iterable[Key], sink: Sink):
        self._model = model
        self._sink = sink
        self._keys = sorted(set(wanted), key=_order)
        if not self._keys:
            raise ValueError("nothing is wanted")
        for representation, layer in self._keys:
            layers = layers_of(model.shape, representation)
            if layer not in layers:
                raise ProbelineError(
                    f"{model.path}: layer {layer} of '{representation}' is out of range; the model "
                    f"has {layers[0]} to {layers[-1]}"
                )
        self._decoding = any(name.startswith("decoder-") for name, _ in self._keys)
        self._handles: list = []
        self._poolers: dict[bool, Pooler] = {}

    def __enter__(self) -> Watch:
        try:
            for key in self._keys:
                self._handles.append(self._hook(key))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    @torch.inference_mode()
    def run(self, batch: Batch) -> None:
        """Run one forward pass over `batch`."""
        model, inputs = self._model, dict(batch.inputs)
        rows, width = inputs["input_ids"].shape
        self._poolers[False] = Pooler(batch.lengths, width, device=model.device)
        body = model.body
        if self._decoding:
            start = _start_token(model)
            inputs["decoder_input_ids"] = torch.full((rows, 1), start, device=model.device)
            self._poolers[True] = Pooler([1] * rows, 1, device=model.device)
        elif model.family.decoder is not None:
            body = body.get_encoder()
        try:
            body(**inputs)
        except _Done:
            pass
        finally:
            self._poolers.clear()

    def _hook(self, key: Key):
        representation, layer = key
        decoder = representation.startswith("decoder-")
        stack = self._model.family.decoder if decoder else self._model.family.encoder
        blocks = self._model.body.get_submodule(stack.blocks)
        if representation.endswith("ffn"):
            module = blocks[layer - 1].get_submodule(stack.ffn_out)
            return module.register_forward_pre_hook(self._before(key), with_kwargs=True)
        if layer == 0:
            return blocks[0].register_forward_pre_hook(self._before(key), with_kwargs=True)
        return blocks[layer - 1].register_forward_hook(self._after(key))

    def _before(self, key: Key):
        def hook(module, args, kwargs):
            self._take(key, args[0] if args else kwargs["hidden_states"])

        return hook

    def _after(self, key: Key):
        def hook(module, args, output):
            self._take(key, output[0] if isinstance(output, tuple) else output)

        return hook

    def _take(self, key: Key, values: torch.Tensor) -> None:
        pooler = self._poolers[key[0].startswith("decoder-")]
        if values.dim() == 2:  # OPT flattens texts and tokens before its feed-forward block
            values = values.view(pooler.rows, -1, values.shape[-1])
        self._sink(key, values, pooler)
        if key == self._keys[-1]:
            raise _Done


def _order(key: Key) -> tuple[bool, int]:
    """Order of computation: the encoder before the decoder, ffn l before hidden l."""
    representation, layer = key
    return representation.startswith("decoder-"), 2 * layer - representation.endswith("ffn")


def _start_token(model: LoadedModel) -> int:
    start = model.body.config.decoder_start_token_id
    if start is None:
        raise ProbelineError(
            f"{model.path}: its config.json has no decoder_start_token_id, so its decoder cannot "
            "be started; extract ffn and hidden only"
        )
    return start
