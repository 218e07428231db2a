"""Tiny random models in the files that published ones consist of: names of weights, tokenizers.

Every family of the papers' matrix. The tokenizers are trained here, of the kinds that the published
ones are; what their ids must be is computed from their parts, without transformers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from tiny_models import SENTENCES, randomise
from tokenizers import (
    ByteLevelBPETokenizer,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

LAYERS, POSITIONS = 2, 160
# Known words, an unknown one, capitals, accents and punctuation.
TEXTS = (*SENTENCES, "The Café, re-opened on Monday: 1,000 guests!")
Ids = Callable[[str], list[int]]
Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Published:
    """How one repository is made.

    `body` is where the model that is read lies in the published one ("" = it is the published one),
    `rename` changes the names of its weights, `extra` are weights and `config` keys of config.json
    beside them, `parts` is the largest size of a weight file, `final_norm` says that transformers'
    last hidden state has passed a norm that is no part of the last block.
    """

    model: Callable[[int], torch.nn.Module]
    tokenizer: Callable[[Path], tuple[Ids, int]]
    body: str = ""
    rename: Callable[[str], str] = str
    extra: dict[str, tuple[int, ...]] = field(default_factory=dict)
    config: dict = field(default_factory=dict)
    pickled: bool = False
    parts: str | None = None
    final_norm: bool = False


def publish(repo: str, folder: Path) -> tuple[torch.nn.Module, Ids]:
    """Write a repository's files; return the body in memory and what its ids must be."""
    published = PUBLISHED[repo]
    folder.mkdir(parents=True)
    ids, size = published.tokenizer(folder)
    model = published.model(size).eval()
    randomise(model)
    if published.parts:
        model.save_pretrained(folder, max_shard_size=published.parts)
        assert len(list(folder.glob("model-*.safetensors"))) > 1
    else:
        _save(model, published, folder)
    (folder / "README.md").write_text("a card")
    config = json.loads((folder / "config.json").read_text())
    config.pop("dtype", None)
    (folder / "config.json").write_text(json.dumps(config | _OLD | published.config))
    return model.get_submodule(published.body), ids


def _save(model: torch.nn.Module, published: Published, folder: Path) -> None:
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    weights = {published.rename(name): value for name, value in model.state_dict().items()}
    weights |= {name: torch.rand(shape) for name, shape in published.extra.items()}
    weights = {name: value.clone().contiguous() for name, value in weights.items()}
    if published.pickled:
        torch.save(weights, folder / "pytorch_model.bin")
        # What a Trainer leaves beside it: a pickle that nobody may open.
        torch.save(Path, folder / "training_args.bin")
    else:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _settings(folder: Path, **values) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps(values))


# What transformers 4 wrote, which had a key of its own for the type of the weights.
_OLD = {"transformers_version": "4.6.1", "torch_dtype": "float32", "output_past": True}
_SST2 = {
    "finetuning_task": "sst-2",
    "id2label": {"0": "NEGATIVE", "1": "POSITIVE"},
    "label2id": {"NEGATIVE": 0, "POSITIVE": 1},
}
_GPT2 = {"n_ctx": POSITIONS, "task_specific_params": {"text-generation": {"max_length": 50}}}


# Tokenizers


def byte_bpe(special: tuple[str, ...], start: list[int], end: list[int], whole: bool = False):
    """RoBERTa's and GPT-2's kind: vocab.json and merges.txt, and (`whole`) tokenizer.json."""

    def write(folder: Path) -> tuple[Ids, int]:
        trained = ByteLevelBPETokenizer()
        trained.train_from_iterator(
            SENTENCES, vocab_size=320, special_tokens=list(special), show_progress=False
        )
        trained.save_model(str(folder))
        if whole:
            if start or end:
                first, last = trained.id_to_token(start[0]), trained.id_to_token(end[0])
                trained.post_processor = processors.RobertaProcessing(
                    (last, end[0]), (first, start[0]), add_prefix_space=False
                )
            trained.save(str(folder / "tokenizer.json"))
        _settings(folder, model_max_length=POSITIONS)

        def ids(text: str) -> list[int]:
            return [*start, *trained.encode(text, add_special_tokens=False).ids, *end]

        return ids, trained.get_vocab_size()

    return write


def word_piece(lower: bool, whole: bool = False):
    """BERT's kind: vocab.txt, and (`whole`) tokenizer.json."""
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

    def write(folder: Path) -> tuple[Ids, int]:
        backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        backend.normalizer = normalizers.BertNormalizer(lowercase=lower)
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(
            vocab_size=160, special_tokens=list(special), show_progress=False
        )
        backend.train_from_iterator(SENTENCES, trainer)
        words = sorted(backend.get_vocab().items(), key=lambda item: item[1])
        (folder / "vocab.txt").write_text("".join(f"{word}\n" for word, _ in words))
        if whole:
            backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
            backend.save(str(folder / "tokenizer.json"))
        _settings(folder, do_lower_case=lower, model_max_length=POSITIONS)

        def ids(text: str) -> list[int]:
            return [2, *backend.encode(text, add_special_tokens=False).ids, 3]

        return ids, len(words)

    return write


def unigram(folder: Path) -> tuple[Ids, int]:
    """Flan-T5's kind: a Unigram model in tokenizer.json, a hundred sentinels behind its words."""
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120,
        special_tokens=["<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    backend.train_from_iterator(SENTENCES, trainer)
    sentinels = [f"<extra_id_{number}>" for number in reversed(range(100))]
    backend.add_special_tokens(sentinels)
    backend.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    backend.save(str(folder / "tokenizer.json"))
    _settings(
        folder,
        tokenizer_class="T5Tokenizer",
        extra_ids=100,
        additional_special_tokens=sentinels[::-1],
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        model_max_length=512,
    )

    def ids(text: str) -> list[int]:
        return [*backend.encode(text, add_special_tokens=False).ids, 1]

    return ids, backend.get_vocab_size()


def llama(folder: Path) -> tuple[Ids, int]:
    """Llama's kind: BPE over letters with a fallback to bytes, a start token, no padding token."""
    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    backend.train_from_iterator(SENTENCES, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    backend.save(str(folder / "tokenizer.json"))
    _settings(
        folder,
        tokenizer_class="LlamaTokenizer",
        add_bos_token=True,
        add_eos_token=False,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        legacy=False,
        model_max_length=10**30,
    )

    def ids(text: str) -> list[int]:
        return [1, *backend.encode(text, add_special_tokens=False).ids]

    return ids, backend.get_vocab_size()


ROBERTA = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
ROBERTA_BPE = byte_bpe(ROBERTA, [0], [2])
GPT2_BPE = byte_bpe(("<|endoftext|>",), [], [], whole=True)


# Models

_T = transformers


def _bert(kind: str):
    def build(size: int) -> torch.nn.Module:
        config = _T.BertConfig(
            vocab_size=size,
            hidden_size=16,
            num_hidden_layers=LAYERS,
            num_attention_heads=2,
            intermediate_size=40,
            max_position_embeddings=POSITIONS,
        )
        return getattr(_T, kind)(config)

    return build


def _roberta(kind: str):
    def build(size: int) -> torch.nn.Module:
        config = _T.RobertaConfig(
            vocab_size=size,
            hidden_size=16,
            num_hidden_layers=LAYERS,
            num_attention_heads=2,
            intermediate_size=40,
            # As published: two positions stand before the first token.
            max_position_embeddings=POSITIONS + 2,
            type_vocab_size=1,
            pad_token_id=1,
            bos_token_id=0,
            eos_token_id=2,
        )
        return getattr(_T, kind)(config)

    return build


def _distilbert(kind: str):
    def build(size: int) -> torch.nn.Module:
        config = _T.DistilBertConfig(
            vocab_size=size,
            dim=16,
            hidden_dim=40,
            n_layers=LAYERS,
            n_heads=2,
            max_position_embeddings=POSITIONS,
        )
        return getattr(_T, kind)(config)

    return build


def _gpt2(kind: str):
    def build(size: int) -> torch.nn.Module:
        config = _T.GPT2Config(
            vocab_size=size,
            n_embd=16,
            n_layer=LAYERS,
            n_head=2,
            n_positions=POSITIONS,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0 if "Classification" in kind else None,
        )
        return getattr(_T, kind)(config)

    return build


def _flan_t5(size: int) -> torch.nn.Module:
    config = _T.T5Config(
        vocab_size=size,
        d_model=16,
        d_kv=8,
        d_ff=40,
        num_layers=LAYERS,
        num_decoder_layers=LAYERS,
        num_heads=2,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        decoder_start_token_id=0,
    )
    return _T.T5ForConditionalGeneration(config)


def _llama(size: int) -> torch.nn.Module:
    config = _T.LlamaConfig(
        vocab_size=size,
        hidden_size=16,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=40,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=False,
    )
    return _T.LlamaForCausalLM(config)


def _from_tensorflow(name: str) -> str:
    """Norms as Google's checkpoints of BERT name them."""
    name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
    return name.replace("LayerNorm.bias", "LayerNorm.beta")


_MASKS = {f"h.{layer}.attn.bias": (1, 1, POSITIONS, POSITIONS) for layer in range(LAYERS)}

PUBLISHED: dict[str, Published] = {
    "bert-base-uncased": Published(
        _bert("BertForPreTraining"), word_piece(True, True), "bert", _from_tensorflow
    ),
    "hfl/chinese-roberta-wwm-ext": Published(
        _bert("BertForMaskedLM"), word_piece(False), "bert", _from_tensorflow, pickled=True
    ),
    "roberta-base": Published(
        _roberta("RobertaForMaskedLM"),
        ROBERTA_BPE,
        "roberta",
        extra={"roberta.embeddings.position_ids": (1, POSITIONS + 2)},
    ),
    "textattack/roberta-base-SST-2": Published(
        _roberta("RobertaForSequenceClassification"),
        byte_bpe(ROBERTA, [0], [2], whole=True),
        "roberta",
        extra={"roberta.pooler.dense.weight": (16, 16), "roberta.pooler.dense.bias": (16,)},
        config=_SST2,
        pickled=True,
    ),
    "distilbert-base-uncased": Published(
        _distilbert("DistilBertForMaskedLM"), word_piece(True, True), "distilbert"
    ),
    "distilbert-base-uncased-finetuned-sst-2-english": Published(
        _distilbert("DistilBertForSequenceClassification"),
        word_piece(True),
        "distilbert",
        config=_SST2,
    ),
    # The first GPT-2 lies there as a body alone, its causal masks among the weights.
    "gpt2": Published(_gpt2("GPT2Model"), GPT2_BPE, extra=_MASKS, config=_GPT2, final_norm=True),
    "mnoukhov/gpt2-imdb-sentiment-classifier": Published(
        _gpt2("GPT2ForSequenceClassification"), GPT2_BPE, "transformer", final_norm=True
    ),
    # A language model with a head of another library beside its own.
    "edbeeching/gpt2-medium-imdb": Published(
        _gpt2("GPT2LMHeadModel"),
        byte_bpe(("<|endoftext|>",), [], []),
        "transformer",
        extra={"v_head.summary.weight": (1, 16), "v_head.summary.bias": (1,)},
        config=_GPT2,
        pickled=True,
        final_norm=True,
    ),
    "google/flan-t5-small": Published(_flan_t5, unigram, "encoder", final_norm=True),
    "google/flan-t5-xl": Published(_flan_t5, unigram, "encoder", parts="12KB", final_norm=True),
    "meta-llama/Llama-2-7b-hf": Published(
        _llama,
        llama,
        "model",
        config={"torch_dtype": "float16", "pretraining_tp": 1},
        parts="12KB",
        final_norm=True,
    ),
}
