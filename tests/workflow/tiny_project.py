"""A project small enough to run whole in seconds: texts, a random BERT and a configuration."""

from __future__ import annotations

import copy
import csv
import itertools
import random
from collections.abc import Iterable
from pathlib import Path

import yaml

CLASSES = {
    "food": ("bread", "cheese", "apple", "soup", "kitchen", "dinner", "sweet", "cook"),
    "sport": ("goal", "match", "team", "coach", "league", "score", "race", "runner"),
    "weather": ("rain", "storm", "cloud", "wind", "snow", "sunny", "cold", "thunder"),
}
COMMON = ("the", "a", "was", "very", "today", "people", "said", "that", "it", "again", "new")
DATASET, MODEL, TASK = "notes", "tiny", "label"

CONFIG = {
    "seed": 7,
    "models": {MODEL: {"path": "./model", "max_length": 24}},
    "datasets": {
        DATASET: {
            "loader": "csv",
            "path": "notes.csv",
            "splits": {"validation": 0.25, "test": 0.25},
            "metric": "accuracy",
        }
    },
    "extract": {
        "representations": ["ffn", "hidden"],
        "poolings": ["max", "mean"],
        "storage_dtype": "float16",
        "block_texts": 32,
    },
    "probe": {"path_length": 4},
    "sparsify": {"etas": [0.2, 0.6]},
    "combinations": {"both": ["ffn.mean", "hidden.mean"]},
    "aggregate": {"path_length": 3},
    "sentence_embedding": {"penalties": [1, 100]},
}


def sentences(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Return `count` different (text, label), the classes in turn; two words in three tell it."""
    rng, found = random.Random(seed), {}
    while len(found) < count:
        label = list(CLASSES)[len(found) % len(CLASSES)]
        words = rng.choices(CLASSES[label], k=rng.randint(2, 5)) + rng.choices(COMMON, k=3)
        rng.shuffle(words)
        found.setdefault(" ".join(words), label)
    return list(found.items())


def write_csv(path: Path, rows: Iterable[tuple], header: tuple = ("text", "label")) -> None:
    """Write `rows` under `header`."""
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(header)
        writer.writerows(rows)


def write_config(path: Path, config: dict) -> Path:
    """Write a configuration in the order of its keys."""
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return path


def edited(*changes: tuple[str, object], base: dict = CONFIG) -> dict:
    """Return a copy of the configuration with ``("section.key", value)`` set; None removes it."""
    config = copy.deepcopy(base)
    for path, value in changes:
        *parents, last = path.split(".")
        place = config
        for parent in parents:
            place = place.setdefault(parent, {})
        if value is None:
            del place[last]
        else:
            place[last] = copy.deepcopy(value)
    return config


def build_model(folder: Path, seed: int = 0) -> Path:
    """Save a random BERT, two blocks 32 wide, and its WordPiece tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = sorted({*COMMON, *itertools.chain(*CLASSES.values())})
    # Without the last word of each class: those are spelt out, letter by letter.
    whole = [word for word in words if word not in {c[-1] for c in CLASSES.values()}]
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{c}" for c in letters), *whole]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]"
    ).save_pretrained(folder)
    torch.manual_seed(seed)
    BertModel(
        BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=48,
            max_position_embeddings=64,
            initializer_range=0.3,
        )
    ).save_pretrained(folder)
    return folder


def build_project(folder: Path, model: Path, config: dict = CONFIG, texts: int = 120) -> Path:
    """Make a project folder: the model linked to, notes.csv and config.yaml."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model").symlink_to(model)
    write_csv(folder / "notes.csv", sentences(texts))
    write_config(folder / "config.yaml", config)
    return folder
