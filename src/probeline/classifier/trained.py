"""A model that was fine-tuned here, whole or with labels as tokens, as a classifier."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pandas as pd
import torch

import probeline.label_tokens  # noqa: F401 - transformers then knows what it has to load
from probeline.activations.batching import tokenize
from probeline.classifier.loaded import LoadedClassifier
from probeline.classifier.training import Training, read_training
from probeline.classifier.trust import carries_code, check_trust
from probeline.errors import ProbelineError
from probeline.finetune.folder import TRAINING
from probeline.finetune.logits import logits_of
from probeline.finetune.lora import ADAPTER
from probeline.label_tokens.attention import label_attention
from probeline.label_tokens.model import LabelTokenClassifier
from probeline.label_tokens.shortlist import FIRST_STAGE, shortlist
from probeline.models.devices import BATCH_TOKENS, resolve_device
from probeline.models.families import family_of
from probeline.models.load import (
    LoadedModel,
    load_tokenizer,
    nothing_missing,
    pad_id,
    quiet,
    reason,
)
from probeline.models.reference import ModelShape, ModelSource, max_positions
from probeline.models.weights import weight_files

if TYPE_CHECKING:
    from probeline.lrsl.reranker import Reranker


class Ranking(Protocol):
    """A classifier that ranks labels before any is read."""

    labels: list[str]

    def logits(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> np.ndarray: ...


class TrainedClassifier(LoadedClassifier):
    """A trained model's folder, `results/finetuned/...`, `regular/...` or `label_tokens/...`.

    Parameters
    ----------
    folder : path
    device : 'auto', 'cpu', 'cuda' or 'mps'
    first : Ranking, optional
        What makes the shortlists of labels, for a classifier that has them.
    trust_remote_code : bool
        Whether a model with Python code of its own may run it.
    reranker : Reranker, optional
        What decides hard texts anew; that it belongs to this classifier is for the caller to check
        (`probeline.lrsl.folder.check_belongs`).

    Attributes
    ----------
    labels : list of str
    multilabel : bool
    manifest : dict
        The contents of training.json.
    reranker : Reranker or None

    Raises
    ------
    ProbelineError
        If the folder holds adapters alone, or cannot be read; if its model has code of its own,
        which is not trusted.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        device: str = "auto",
        first: Ranking | None = None,
        trust_remote_code: bool = False,
        reranker: Reranker | None = None,
    ):
        folder = Path(folder)
        training = read_training(folder)
        super().__init__(
            training.labels,
            training.multilabel,
            training.pair,
            training.threshold,
            training.manifest,
            reranker,
        )
        self._model = _load(folder, training, device, trust_remote_code)
        self._first, self._listed = first, getattr(self._model.body.config, "shortlist", None)
        if self._listed is not None and (first is None or first.labels != self.labels):
            raise ProbelineError(
                f"{folder}: the classifier that makes its shortlists of labels, in {FIRST_STAGE}/, "
                "is missing or another; copy the folder again"
            )

    def _own_logits(self, texts: list[str], pairs: list[str] | None) -> np.ndarray:
        tokens = tokenize(self._model, texts, pairs)
        lists = self._lists(texts, pairs)
        if lists is not None:
            tokens = replace(tokens, more={"candidates": lists})
        logits = logits_of(self._model, tokens, len(self.labels), "no")
        return logits - self._threshold if self.multilabel else logits

    def _lists(self, texts: list[str], pairs: list[str] | None) -> np.ndarray | None:
        """Codes of the labels that are read of each text, ascending; None where all are."""
        if self._listed is None:
            return None
        return np.sort(shortlist(self._first.logits(texts, pairs), self._listed), axis=1)

    def attention(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        rows: Sequence[int] | None = None,
        layers: str = "last",
    ) -> pd.DataFrame:
        """Attention from label tokens to the tokens of texts; see `label_attention`.

        Raises
        ------
        ProbelineError
            If the labels of this classifier are no tokens, or `layers` is neither last nor all.
        """
        if not isinstance(self._model.body, LabelTokenClassifier):
            raise ProbelineError(
                f"{self._model.path}: its labels are no tokens, so nothing attends from them; "
                "give a folder like results/label_tokens/DATASET/TASK/MODEL/INITIALIZATION/SEED"
            )
        texts, pairs = self._checked(texts, pairs)
        lists = self._lists(texts, pairs)
        model = self._model
        return label_attention(model.body, model.tokenizer, texts, pairs, rows, layers, lists)


def _load(folder: Path, training: Training, device: str, trusted: bool) -> LoadedModel:
    if not (folder / "config.json").is_file() and (folder / ADAPTER).is_dir():
        raise ProbelineError(
            f"{folder}: holds adapters alone; in Python, "
            f"probeline.finetune.lora.merge_adapter({str(folder)!r}, OUT) writes the merged model, "
            "which is used instead (finetune.lora.merge: true does so in the run)"
        )
    where = str(folder)
    weights = weight_files(folder, where)
    code = carries_code(folder)
    if code:
        check_trust(folder, where, trusted)
    on = resolve_device(device)
    body = _body(folder, where, code).to(on)
    config = getattr(body.config, "body", body.config)
    source = ModelSource("folder", where, folder, None)
    tokenizer, digest = load_tokenizer({"path": where, "trust_remote_code": code}, source)
    _check_fit(folder / TRAINING, training, body.config, tokenizer)
    max_length = training.max_length
    beside = getattr(body.config, "labels_per_pass", 0)
    family = family_of(config.model_type, where)
    return LoadedModel(
        path=where,
        body=body,
        tokenizer=tokenizer,
        family=family,
        shape=ModelShape(config.num_hidden_layers, config.model_type),
        device=on,
        dtype=torch.float32,
        max_length=max_length,
        batch_tokens=max(BATCH_TOKENS[on.type], max_length + beside),
        pad_id=pad_id(tokenizer),
        tokenizer_hash=digest,
        source=source,
        weights=weights,
        beside=beside,
    )


def _check_fit(path: Path, training: Training, config, tokenizer) -> None:
    """Refuse a training.json that is not of this model."""
    labels, length = len(training.labels), training.max_length
    if labels != config.num_labels:
        raise ProbelineError(
            f"{path}: {labels} labels, the model beside it has {config.num_labels}; copy the "
            "folder again"
        )
    most = max_positions(getattr(config, "body", config).to_dict())
    taken, special = getattr(config, "positions_taken", 0), tokenizer.num_special_tokens_to_add()
    if length <= special or (most is not None and length + taken > most):
        least, most = special + 1, "any number" if most is None else most - taken
        raise ProbelineError(
            f"{path}: max_length {length}, the model beside it has room for {least} to {most}; "
            "copy the folder again"
        )


def _body(folder: Path, where: str, code: bool) -> torch.nn.Module:
    from transformers import AutoModelForSequenceClassification

    try:
        with quiet():
            body, info = AutoModelForSequenceClassification.from_pretrained(
                folder,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                # Where nothing is said, transformers asks on standard input, which holds texts.
                trust_remote_code=code,
                output_loading_info=True,
            )
    except ProbelineError:
        raise
    except Exception as error:  # damaged weights, or code of its own that is not here
        raise ProbelineError(f"{where}: the model cannot be loaded: {reason(error)}") from error
    nothing_missing(info, where, "the classifier")
    return body.eval().requires_grad_(False)
