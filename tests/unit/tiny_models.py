"""Tiny random models of every supported family, with tokenizers built on the spot, offline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

SENTENCES = (
    "the cat sat on the mat",
    "stock markets fell sharply on monday after the bank raised rates",
    "yes",
    "she scored twice in the second half and the crowd went wild",
    "a new phone",
    "parliament will vote on the bill next week said the minister for trade in a long speech "
    "about growth and jobs and the price of bread",
    "the film is a slow but moving portrait of a family",
    "rain",
    "it was the best of times it was the worst of times",
    "open the door please",
)
PAIRS = tuple(reversed(SENTENCES))

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[EOS]")
WORDS = sorted({word for sentence in SENTENCES for word in sentence.split()})
VOCABULARY = {word: number for number, word in enumerate((*SPECIAL, *WORDS))}
LAYERS = 3


def tokenizer(style: str, side: str = "right", pad: bool = True):
    """A word tokenizer that adds special tokens like BERT, T5, Llama or (none) GPT-2."""
    backend = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    single, pair = {
        "bert": ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"),
        "t5": ("$A [EOS]", "$A [EOS] $B [EOS]"),
        "llama": ("[CLS] $A", "[CLS] $A [CLS] $B"),
        "gpt2": ("$A", "$A $B"),
    }[style]
    names = [name for name in SPECIAL if name in single]
    if names:
        backend.post_processor = processors.TemplateProcessing(
            single=single, pair=pair, special_tokens=[(name, VOCABULARY[name]) for name in names]
        )
    extra = {"pad_token": "[PAD]"} if pad else {}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="[UNK]",
        eos_token="[EOS]",
        padding_side=side,
        **extra,
    )


@dataclass(frozen=True)
class Tiny:
    """How to build a family's tiny model, and its blocks' insides, written out independently.

    `ffn_input` is the path, from a block, of the module whose input enters the feed-forward block;
    `ffn` computes the activation from that input with the block's own sub-modules.
    """

    config: Callable[[], transformers.PretrainedConfig]
    blocks: str
    ffn_input: str
    ffn: Callable[[torch.nn.Module, torch.Tensor], torch.Tensor]
    style: str = "bert"
    final_norm: str | None = None
    model: str = "AutoModel"
    head: str = "AutoModelForSequenceClassification"
    pad: bool = True
    extra: dict = field(default_factory=dict)


def _common(**more) -> dict:
    return {
        "vocab_size": len(VOCABULARY),
        "hidden_size": 16,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "intermediate_size": 40,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        "initializer_range": 0.2,
        "tie_word_embeddings": False,
        **more,
    }


def _bert_ffn(block, x):
    return torch.nn.functional.gelu(block.intermediate.dense(x))


def _gated_ffn(act):
    def ffn(block, x):
        return act(block.mlp.gate_proj(x)) * block.mlp.up_proj(x)

    return ffn


def _gelu_tanh(x):
    return torch.nn.functional.gelu(x, approximate="tanh")


def _modernbert_ffn(block, x):
    first, second = block.mlp.Wi(x).split(40, dim=-1)
    return torch.nn.functional.gelu(first) * second


def _t5_ffn(block, x):
    return torch.relu(block.layer[-1].DenseReluDense.wi(x))


def _flan_ffn(block, x):
    dense = block.layer[-1].DenseReluDense
    return _gelu_tanh(dense.wi_0(x)) * dense.wi_1(x)


def _t5_config(kind, act):
    def config():
        return kind(
            vocab_size=len(VOCABULARY),
            d_model=16,
            d_kv=4,
            d_ff=40,
            num_layers=LAYERS,
            num_decoder_layers=2,
            num_heads=4,
            feed_forward_proj=act,
            decoder_start_token_id=0,
            pad_token_id=0,
            eos_token_id=VOCABULARY["[EOS]"],
        )

    return config


def _encoder(kind, **more) -> Tiny:
    return Tiny(lambda: kind(**_common(**more)), "encoder.layer", "intermediate.dense", _bert_ffn)


def _decoder(kind, act=torch.nn.functional.silu, **more) -> Tiny:
    return Tiny(
        lambda: kind(**_common(num_key_value_heads=2, head_dim=4, **more)),
        "layers",
        "mlp",
        _gated_ffn(act),
        style="llama",
        final_norm="norm",
    )


_T = transformers
_GPT2 = {
    "vocab_size": len(VOCABULARY),
    "n_embd": 16,
    "n_layer": LAYERS,
    "n_head": 4,
    "n_positions": 64,
    "initializer_range": 0.2,
    "bos_token_id": VOCABULARY["[EOS]"],
    "eos_token_id": VOCABULARY["[EOS]"],
}

TINY: dict[str, Tiny] = {
    "bert": _encoder(_T.BertConfig),
    "roberta": _encoder(_T.RobertaConfig, type_vocab_size=1),
    "xlm-roberta": _encoder(_T.XLMRobertaConfig, type_vocab_size=1),
    "camembert": _encoder(_T.CamembertConfig, type_vocab_size=1),
    "electra": _encoder(_T.ElectraConfig, embedding_size=12),
    "mpnet": _encoder(_T.MPNetConfig),
    "deberta-v2": _encoder(
        _T.DebertaV2Config,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        position_buckets=8,
        type_vocab_size=0,
        position_biased_input=False,
    ),
    "distilbert": Tiny(
        lambda: _T.DistilBertConfig(
            vocab_size=len(VOCABULARY),
            dim=16,
            hidden_dim=40,
            n_layers=LAYERS,
            n_heads=4,
            max_position_embeddings=64,
            pad_token_id=0,
        ),
        "transformer.layer",
        "ffn.lin1",
        lambda block, x: torch.nn.functional.gelu(block.ffn.lin1(x)),
    ),
    "modernbert": Tiny(
        lambda: _T.ModernBertConfig(
            **_common(
                global_attn_every_n_layers=2,
                local_attention=8,
                cls_token_id=VOCABULARY["[CLS]"],
                sep_token_id=VOCABULARY["[SEP]"],
                bos_token_id=VOCABULARY["[CLS]"],
                eos_token_id=VOCABULARY["[SEP]"],
            )
        ),
        "layers",
        "mlp",
        _modernbert_ffn,
        final_norm="final_norm",
    ),
    "gpt2": Tiny(
        lambda: _T.GPT2Config(**_GPT2),
        "h",
        "mlp",
        lambda block, x: _gelu_tanh(
            torch.addmm(block.mlp.c_fc.bias, x.flatten(0, 1), block.mlp.c_fc.weight)
        ).unflatten(0, x.shape[:2]),
        style="gpt2",
        final_norm="ln_f",
        pad=False,
    ),
    "gpt_neo": Tiny(
        lambda: _T.GPTNeoConfig(
            vocab_size=len(VOCABULARY),
            hidden_size=16,
            num_layers=LAYERS,
            attention_types=[[["global", "local", "global"], 1]],
            num_heads=4,
            window_size=8,
            max_position_embeddings=64,
            initializer_range=0.2,
        ),
        "h",
        "mlp",
        lambda block, x: _gelu_tanh(block.mlp.c_fc(x)),
        style="gpt2",
        final_norm="ln_f",
        pad=False,
    ),
    "gpt_neox": Tiny(
        lambda: _T.GPTNeoXConfig(**_common()),
        "layers",
        "mlp",
        lambda block, x: torch.nn.functional.gelu(block.mlp.dense_h_to_4h(x)),
        style="gpt2",
        final_norm="final_layer_norm",
        pad=False,
    ),
    "opt": Tiny(
        lambda: _T.OPTConfig(
            vocab_size=len(VOCABULARY),
            hidden_size=16,
            ffn_dim=40,
            num_hidden_layers=LAYERS,
            num_attention_heads=4,
            max_position_embeddings=64,
            word_embed_proj_dim=12,
            init_std=0.2,
            pad_token_id=0,
        ),
        "decoder.layers",
        "fc1",
        lambda block, x: torch.relu(block.fc1(x)),
        style="bert",
    ),
    "phi": Tiny(
        lambda: _T.PhiConfig(**_common()),
        "layers",
        "mlp",
        lambda block, x: _gelu_tanh(block.mlp.fc1(x)),
        style="gpt2",
        final_norm="final_layernorm",
    ),
    "llama": _decoder(_T.LlamaConfig),
    "mistral": _decoder(_T.MistralConfig, sliding_window=8),
    "qwen2": _decoder(_T.Qwen2Config),
    "qwen3": _decoder(_T.Qwen3Config),
    "gemma": _decoder(_T.GemmaConfig, _gelu_tanh),
    "gemma2": _decoder(_T.Gemma2Config, _gelu_tanh, sliding_window=8),
    "t5": Tiny(
        _t5_config(_T.T5Config, "relu"),
        "encoder.block",
        "layer.1.DenseReluDense",
        _t5_ffn,
        style="t5",
        final_norm="encoder.final_layer_norm",
    ),
    "flan-t5": Tiny(
        _t5_config(_T.T5Config, "gated-gelu"),
        "encoder.block",
        "layer.1.DenseReluDense",
        _flan_ffn,
        style="t5",
        final_norm="encoder.final_layer_norm",
    ),
    "mt5": Tiny(
        _t5_config(_T.MT5Config, "gated-gelu"),
        "encoder.block",
        "layer.1.DenseReluDense",
        _flan_ffn,
        style="t5",
        final_norm="encoder.final_layer_norm",
    ),
}


def randomise(model: torch.nn.Module, seed: int = 0) -> None:
    """Give every weight, biases and norms included, a value that makes layers differ clearly."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.dim() > 1:
                weight.copy_(0.3 * noise)
            else:
                weight.add_(0.1 * noise)


def build(kind: str, folder: Path, head: bool = False, side: str = "right") -> Path:
    """Save a tiny random model of `kind` with its tokenizer into `folder`."""
    tiny = TINY[kind]
    auto = getattr(transformers, tiny.head if head else tiny.model)
    model = auto.from_config(tiny.config())
    randomise(model)
    model.save_pretrained(folder)
    tokenizer(tiny.style, side, tiny.pad).save_pretrained(folder)
    return folder
