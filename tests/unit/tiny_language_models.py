"""Tiny random causal language models, and the plainest way to ask one for a probability."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import transformers
from tiny_models import SENTENCES, TINY, randomise, tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers


def build_causal(
    kind: str,
    folder: Path,
    side: str = "right",
    positions: int = 256,
    byte_level: bool = False,
    auto: str = "AutoModelForCausalLM",
) -> Path:
    """Save a language model of `kind` with a tokenizer of words, or of bytes joined as GPT-2's."""
    tiny = TINY[kind]
    config = tiny.config()
    config.max_position_embeddings = positions
    words = byte_tokenizer(side) if byte_level else tokenizer(tiny.style, side, tiny.pad)
    config.vocab_size = len(words)
    torch.manual_seed(0)
    model = getattr(transformers, auto).from_config(config)
    randomise(model)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def byte_tokenizer(side: str):
    """A byte-level BPE without special tokens around a text: spaces belong to the next word."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=["[EOS]"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([f"Text: {s}\n\nText: {s}\nLabel: {s}" for s in SENTENCES], trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="[EOS]", bos_token="[EOS]", padding_side=side
    )


class Naive:
    """One full forward pass per question: no cache, no padding, no batch."""

    def __init__(self, folder: Path):
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32
        ).eval()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)

    @torch.no_grad()
    def of_ids(self, prompt, label) -> float:
        """Sum of the log-probabilities of the ids `label` after the ids `prompt`."""
        ids = torch.tensor([[*map(int, prompt), *map(int, label)]])
        chances = self.model(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
        return sum(
            chances[len(prompt) + place - 1, token].item() for place, token in enumerate(label)
        )

    def of_text(self, prompt: str, label: str, start=()) -> tuple[float, int]:
        """The same for strings that are tokenized as one, and the tokens of the label."""
        before = self.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        whole = self.tokenizer(prompt + label, add_special_tokens=False)["input_ids"]
        assert whole[: len(before)] == before
        own = whole[len(before) :]
        return self.of_ids([*start, *before], own), len(own)

    def scores(self, prompt: str, labels, start=(), normalize="mean") -> np.ndarray:
        """Scores (K,) of label strings."""
        found = [self.of_text(prompt, label, start) for label in labels]
        return np.array([value / (n if normalize == "mean" else 1) for value, n in found])
