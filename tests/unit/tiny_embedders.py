"""Tiny random sentence embeddings as sentence-transformers folders."""

from __future__ import annotations

from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import (
    Dense,
    Normalize,
    Pooling,
    Router,
    StaticEmbedding,
    Transformer,
)
from tiny_models import build
from tokenizers import Tokenizer


def write_embedder(folder: Path, pooling: str = "mean", kind: str = "bert") -> Path:
    """Save a transformer into `folder`/st, over a plain one in `folder`/plain."""
    body = Transformer(str(build(kind, folder / "plain")), max_seq_length=32)
    pooled = Pooling(body.get_embedding_dimension(), pooling_mode=pooling)
    return _saved(folder, [body, pooled, Normalize()])


def write_static(folder: Path, width: int = 12) -> Path:
    """Save a table of token vectors, whose mean is the embedding."""
    return _saved(folder, [_static(folder, width)])


def write_router(folder: Path, width: int = 12) -> Path:
    """Save tables of their own for queries and documents, then a layer for both."""
    routes = Router.for_query_document(
        [_static(folder, width)], [_static(folder, width)], default_route="document"
    )
    return _saved(folder, [routes, Dense(width, 8)])


def _static(folder: Path, width: int) -> StaticEmbedding:
    tokenizer = Tokenizer.from_file(str(build("bert", folder / "plain") / "tokenizer.json"))
    torch.manual_seed(0)
    return StaticEmbedding(tokenizer, embedding_dim=width)


def _saved(folder: Path, modules: list) -> Path:
    model = SentenceTransformer(modules=modules, device="cpu")
    model.save_pretrained(str(folder / "st"), create_model_card=False)
    return folder / "st"
