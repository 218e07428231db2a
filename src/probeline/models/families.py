"""Where the blocks and the feed-forward output projections of each architecture are.

Pure data: no torch, no transformers, so that a workflow can read it while it is parsed. Checked
against transformers 5.23; every family here is compared with `output_hidden_states=True` and with
a computation by hand on tiny random models in the tests.
"""

from __future__ import annotations

from dataclasses import dataclass

from probeline.errors import ProbelineError, one_of


@dataclass(frozen=True)
class Stack:
    """A stack of transformer blocks inside a model body.

    Attributes
    ----------
    blocks : str
        Path of the list of blocks, from the body.
    ffn_out : str
        Path, from a block, of the linear map whose *input* is the feed-forward activation.
    """

    blocks: str
    ffn_out: str


@dataclass(frozen=True)
class Family:
    """What the library must know about one `model_type`.

    Attributes
    ----------
    encoder : Stack
        The only stack of encoders and decoders, the encoder of encoder-decoders.
    decoder : Stack or None
        The decoder of an encoder-decoder.
    layers, width, ffn_width, positions : tuple of str
        Keys of config.json, the first one present counts.
    decoder_layers : tuple of str
        The same for the decoder's number of blocks.
    ffn_factor : int or None
        Feed-forward width as a multiple of the width where config.json leaves it empty.
    pooler : bool
        The body has a pooler, which is left out (`add_pooling_layer=False`).
    token_types : bool
        Segment ids of sentence pairs are an input.
    padded_positions : bool
        Position numbers start after the padding id, so that many fewer positions are usable.
    encoder_class : str or None
        Class of transformers that is the encoder alone.
    """

    encoder: Stack
    decoder: Stack | None = None
    layers: tuple[str, ...] = ("num_hidden_layers",)
    width: tuple[str, ...] = ("hidden_size",)
    ffn_width: tuple[str, ...] = ("intermediate_size",)
    positions: tuple[str, ...] = ("max_position_embeddings",)
    decoder_layers: tuple[str, ...] = ()
    ffn_factor: int | None = None
    pooler: bool = False
    token_types: bool = False
    padded_positions: bool = False
    encoder_class: str | None = None


_BERT = Stack("encoder.layer", "output.dense")
_LLAMA = Stack("layers", "mlp.down_proj")
_BERT_LIKE = Family(_BERT, pooler=True, token_types=True)
_ROBERTA_LIKE = Family(_BERT, pooler=True, padded_positions=True)
_LLAMA_LIKE = Family(_LLAMA)


def _t5(encoder_class: str) -> Family:
    return Family(
        encoder=Stack("encoder.block", "layer.1.DenseReluDense.wo"),
        decoder=Stack("decoder.block", "layer.2.DenseReluDense.wo"),
        layers=("num_layers",),
        width=("d_model",),
        ffn_width=("d_ff",),
        positions=(),
        decoder_layers=("num_decoder_layers", "num_layers"),
        encoder_class=encoder_class,
    )


FAMILIES: dict[str, Family] = {
    "bert": _BERT_LIKE,
    "camembert": _ROBERTA_LIKE,
    "deberta-v2": Family(_BERT, token_types=True),
    "distilbert": Family(
        Stack("transformer.layer", "ffn.lin2"),
        layers=("n_layers",),
        width=("dim",),
        ffn_width=("hidden_dim",),
    ),
    "electra": Family(_BERT, token_types=True),
    "gemma": _LLAMA_LIKE,
    "gemma2": _LLAMA_LIKE,
    "gpt2": Family(
        Stack("h", "mlp.c_proj"),
        layers=("n_layer", "num_hidden_layers"),
        width=("n_embd", "hidden_size"),
        ffn_width=("n_inner",),
        positions=("n_positions", "max_position_embeddings", "n_ctx"),
        ffn_factor=4,
    ),
    "gpt_neo": Family(Stack("h", "mlp.c_proj"), layers=("num_layers",), ffn_factor=4),
    "gpt_neox": Family(Stack("layers", "mlp.dense_4h_to_h")),
    "llama": _LLAMA_LIKE,
    "mistral": _LLAMA_LIKE,
    "modernbert": Family(Stack("layers", "mlp.Wo")),
    "mpnet": Family(_BERT, pooler=True, padded_positions=True),
    "mt5": _t5("MT5EncoderModel"),
    "opt": Family(Stack("decoder.layers", "fc2"), ffn_width=("ffn_dim",)),
    "phi": Family(Stack("layers", "mlp.fc2")),
    "qwen2": _LLAMA_LIKE,
    "qwen3": _LLAMA_LIKE,
    "roberta": _ROBERTA_LIKE,
    "t5": _t5("T5EncoderModel"),
    "xlm-roberta": _ROBERTA_LIKE,
}


def family_of(model_type: str | None, where: str) -> Family:
    """Return the family of `model_type`; `where` names the model in the error.

    Raises
    ------
    ProbelineError
        If the architecture is not in the table, with the list of those that are.
    """
    if isinstance(model_type, str) and model_type in FAMILIES:
        return FAMILIES[model_type]
    if model_type is None:
        raise ProbelineError(
            f"{where}: its config.json names no model_type, so the architecture is unknown; "
            f"expected one of {', '.join(FAMILIES)}"
        )
    raise ProbelineError(
        f"{where}: no hooks for this architecture: model_type {one_of(model_type, FAMILIES)}"
    )
