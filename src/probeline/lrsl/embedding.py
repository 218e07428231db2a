"""Sentence embeddings of texts and labels by sentence-transformers (Reimers and Gurevych 2019)."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from probeline.errors import ProbelineError
from probeline.lrsl.label_vectors import HOW, LabelVectors, label_vectors
from probeline.models.reference import ModelSource, read_config, resolve
from probeline.models.weights import (
    MODULES,
    check_safetensors,
    embedder_files,
    embedder_modules,
    files_hash,
    weight_files,
)

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from probeline.data.store import Dataset

__all__ = [
    "HOW",
    "Embedder",
    "LabelVectors",
    "joined",
    "label_vectors",
    "load_embedder",
    "texts_to_embed",
]

logger = logging.getLogger(__name__)

OWN_CODE = "sentence_transformers."
# Texts per forward pass; a CPU is no faster with more.
_BATCH = {"cpu": 32, "mps": 64, "cuda": 256}


@dataclass(frozen=True)
class Embedder:
    """A sentence-transformers model on its device.

    Attributes
    ----------
    path : str
        The model as the user wrote it.
    source : ModelSource
    model : sentence_transformers.SentenceTransformer
        Weights are float32.
    """

    path: str
    source: ModelSource
    model: SentenceTransformer

    @property
    def width(self) -> int:
        """Columns of an embedding."""
        return int(self.model.get_embedding_dimension())

    @property
    def max_length(self) -> int | None:
        """Tokens per text, special tokens included; None where texts are read whole."""
        length = self.model.max_seq_length
        return int(length) if length is not None and math.isfinite(length) else None

    @cached_property
    def identity(self) -> str:
        """`{hash}-{max_length}`: 16 hexadecimal digits of the SHA-256 over all files that decide an
        embedding, the same wherever these lie, and the tokens per text.

        The files are read when it is first asked for.
        """
        return files_hash(embedder_files(self.source.folder)) + f"-{self.max_length}"

    def encode(self, texts: Sequence[str], what: str | None = None) -> np.ndarray:
        """Embed texts, those of similar length together.

        Parameters
        ----------
        texts : sequence of str
        what : str, optional
            Shown with the progress; none is shown without it.

        Returns
        -------
        ndarray of float32, shape (n, width)
            Rows of length 1.
        """
        from probeline.activations.progress import Progress

        found = np.zeros((len(texts), self.width), dtype=np.float32)
        order = np.argsort([-len(text) for text in texts], kind="stable")
        size = _BATCH[self.model.device.type]
        with Progress(what, len(texts)) if what else nullcontext() as progress:
            for start in range(0, len(order), size):
                rows = order[start : start + size]
                found[rows] = self.model.encode(
                    [texts[row] for row in rows],
                    batch_size=size,
                    show_progress_bar=False,
                    normalize_embeddings=True,
                )
                if progress is not None:
                    progress.step(len(rows))
        return found


def load_embedder(spec: Mapping) -> Embedder:
    """Load a sentence-transformers model, or a plain transformer with mean pooling.

    Parameters
    ----------
    spec : mapping
        `path`: a folder, `package:<import name>/<path>`, or a hub id that is in the local cache;
        `revision`, `max_length`, `device`, all optional.

    Raises
    ------
    ProbelineError
        If there is no model, it is half-copied or cannot be loaded, its parts are other code than
        sentence-transformers' own, or `max_length` is above its positions.
    """
    from sentence_transformers import SentenceTransformer

    from probeline.models.devices import resolve_device
    from probeline.models.load import quiet, reason

    path = spec["path"]
    source = _source(path, spec.get("revision"))
    _check_files(source.folder, path)
    device = resolve_device(spec.get("device") or "auto")
    try:
        with quiet():
            model = SentenceTransformer(
                str(source.folder),
                device=device.type,
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs={"dtype": "float32"},
            )
    except Exception as error:  # modules fail in as many ways as there are modules
        shown = ProbelineError(
            f"{path} cannot be loaded: {reason(error)}; expected a folder written by "
            "sentence-transformers' save_pretrained, or a transformer's"
        )
        raise _blamed(path, shown) from error
    if not (source.folder / MODULES).is_file():
        # In the hub's cache it may be that only the body was ever downloaded.
        level = logging.WARNING if source.kind == "hub" else logging.INFO
        logger.log(level, "%s: no %s there, so tokens are mean-pooled", path, MODULES)
    _set_max_length(model, spec.get("max_length"), path)
    return Embedder(path, source, model)


def texts_to_embed(dataset: Dataset, rows: Iterable[int]) -> list[str]:
    """What is embedded of rows of a dataset that was read with its texts; see `joined`."""
    return joined(dataset.texts, dataset.pairs, rows)


def joined(
    texts: Sequence[str], pairs: Sequence[str] | None, rows: Iterable[int] | None = None
) -> list[str]:
    """One text to embed for each text or pair: of a pair, both with a space between.

    Parameters
    ----------
    texts : sequence of str
    pairs : sequence of str or None
        The second texts.
    rows : iterable of int, optional
        Which of them; default all.
    """
    rows = range(len(texts)) if rows is None else rows
    if pairs is None:
        return [texts[row] for row in rows]
    return [f"{texts[row]} {pairs[row]}" for row in rows]


def _source(path: str, revision: str | None) -> ModelSource:
    try:
        source = resolve(path, revision)
    except ProbelineError as error:
        raise _blamed(path, error) from None
    if source.folder is None:
        raise ProbelineError(
            f"lrsl.embedder: {path}{f' at {revision}' if revision else ''} is not in the local hub "
            "cache; download it where there is a network, or give the path of a folder"
        )
    return source


def _check_files(folder: Path, path: str) -> None:
    """Refuse folders without a model, and half-copied weights, by name."""
    try:
        if not (folder / MODULES).is_file():
            read_config(folder, path)
            weight_files(folder, path)
        _check_modules(folder)
        for file in embedder_files(folder):
            if file.suffix == ".safetensors":
                check_safetensors(file)
    except ProbelineError as error:
        raise _blamed(path, error) from None


def _blamed(path: str, error: ProbelineError) -> ProbelineError:
    """The error with the key it comes from, or what makes the tuned embedding again."""
    # Beside the folder of a tuned one, as the embedding stage writes it.
    made = Path(f"{path}.json")
    if made.is_file():
        return ProbelineError(
            f"{error}; {made} says that an embedding was tuned there: delete that file and run "
            "again"
        )
    return ProbelineError(f"lrsl.embedder: {error}")


def _check_modules(folder: Path) -> None:
    for _, kind in embedder_modules(folder):
        if not kind.startswith(OWN_CODE):
            raise ProbelineError(
                f"{folder / MODULES}: its module '{kind}' is code from elsewhere, which "
                f"is never run; expected modules of {OWN_CODE}*"
            )


def _set_max_length(model: SentenceTransformer, asked: int | None, path: str) -> None:
    most = _most_tokens(model)
    if asked is None:
        # Tokenizers without a limit would let texts run over the last position.
        if most is not None and (model.max_seq_length is None or model.max_seq_length > most):
            model.max_seq_length = most
        return
    if most is not None and asked > most:
        raise ProbelineError(
            f"lrsl.max_length: {asked} is above the {most} positions of {path}; set it to at most "
            f"{most}"
        )
    special = _special_tokens(model, path)
    if asked <= special:
        raise ProbelineError(
            f"lrsl.max_length: {asked} leaves no room for text beside {special} special tokens; "
            f"set it to {special + 1} or more"
        )
    model.max_seq_length = int(asked)


def _special_tokens(model: SentenceTransformer, path: str) -> int:
    """How many tokens every text is given."""
    from transformers import PreTrainedTokenizerBase

    if not isinstance(model.tokenizer, PreTrainedTokenizerBase):
        raise ProbelineError(
            f"lrsl.max_length: {path} is no transformer and cuts no text; set it to null"
        )
    return model.tokenizer.num_special_tokens_to_add(pair=False)


def _most_tokens(model: SentenceTransformer) -> int | None:
    """Positions of the transformer; None where it has no such limit, or is of unknown shape."""
    from probeline.models.reference import max_positions

    body = model.transformers_model
    return None if body is None else max_positions(body.config.to_dict())
