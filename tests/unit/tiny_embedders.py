"""A tiny random BERT as a sentence-transformers folder."""

from __future__ import annotations

from pathlib import Path

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from tiny_models import build


def write_embedder(folder: Path, pooling: str = "mean", kind: str = "bert") -> Path:
    """Save it into `folder`/st, over a plain transformer in `folder`/plain."""
    body = Transformer(str(build(kind, folder / "plain")), max_seq_length=32)
    modules = [body, Pooling(body.get_embedding_dimension(), pooling_mode=pooling), Normalize()]
    model = SentenceTransformer(modules=modules, device="cpu")
    model.save_pretrained(str(folder / "st"), create_model_card=False)
    return folder / "st"
