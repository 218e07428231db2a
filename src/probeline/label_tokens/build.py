"""A classifier with label tokens on a pretrained body."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from probeline.errors import ProbelineError
from probeline.label_tokens.configuration import MULTI, PREFIX, SINGLE, SUFFIX, LabelTokenConfig
from probeline.label_tokens.initial import MIX, initial_rows
from probeline.label_tokens.model import LabelTokenClassifier
from probeline.label_tokens.tokens import first_tokens, token_names
from probeline.models.reading import is_causal


@dataclass(frozen=True)
class LabelTokenOptions:
    """How labels become tokens; see `LabelTokenConfig` and `initial_rows`.

    Attributes
    ----------
    initialization : str
    position : str or None
        None: before the text, in decoders after it.
    shared_positions, labels_attend, isolated : bool
    chunk, shortlist : int or None
    dropout : float
    """

    initialization: str = MIX
    position: str | None = None
    shared_positions: bool = False
    labels_attend: bool = True
    isolated: bool = False
    chunk: int | None = None
    shortlist: int | None = None
    dropout: float = 0.1

    @property
    def series(self) -> str:
        """What it begins with and, where it is not as usual, how it reads."""
        unordered = self.shared_positions and not self.labels_attend
        reading = "-isolated" if self.isolated else "-unordered" if unordered else ""
        return f"{self.initialization}{reading}"


def build_classifier(
    body: PreTrainedModel,
    tokenizer,
    labels: Sequence[str],
    multilabel: bool,
    options: LabelTokenOptions,
    texts: Sequence[str | Sequence[str]] | None = None,
    seed: int = 0,
) -> LabelTokenClassifier:
    """Put label tokens and a new head on a body; all of it can be trained.

    Parameters
    ----------
    body : PreTrainedModel
        Without a head; an encoder-decoder's encoder alone. It becomes part of the classifier.
    tokenizer : transformers.PreTrainedTokenizerBase
        The body's; it is not changed (see `fit_tokenizer`).
    labels : sequence of str
    multilabel : bool
    options : LabelTokenOptions
    texts : sequence, optional
        What the labels' names say, or several wordings each, for "label_text" and "mix"; the names.
    seed : int
        Of the label tokens' embeddings and the head.

    Raises
    ------
    ProbelineError
        If there are too few labels or two of one name, or as `initial_rows` and
        `LabelTokenClassifier`.
    """
    labels = list(labels)
    _check_labels(labels, multilabel)
    causal = is_causal(body.config.model_type)
    config = LabelTokenConfig(
        body=body.config,
        id2label=dict(enumerate(labels)),
        label2id={label: code for code, label in enumerate(labels)},
        problem_type=MULTI if multilabel else SINGLE,
        label_tokens=token_names(labels, tokenizer.get_vocab()),
        position=options.position or (SUFFIX if causal else PREFIX),
        first=first_tokens(tokenizer),
        shared_positions=options.shared_positions,
        labels_attend=options.labels_attend,
        isolated=options.isolated,
        chunk=options.chunk,
        shortlist=options.shortlist,
        dropout=options.dropout,
        initialization=options.initialization,
        initializer_range=getattr(body.config, "initializer_range", None) or 0.02,
        pad_token_id=tokenizer.pad_token_id,
    )
    # As transformers' Trainer says, which is not there when a killed training was at its last step.
    config.use_cache = False
    vocabulary = body.get_input_embeddings().weight
    rows = initial_rows(options.initialization, vocabulary, tokenizer, texts or labels, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LabelTokenClassifier(config, body)
    with torch.no_grad():
        model.label_embeddings.weight.copy_(rows)
    return model.requires_grad_(True)


def _check_labels(labels: list[str], multilabel: bool) -> None:
    least = 1 if multilabel else 2
    if len(labels) < least:
        raise ProbelineError(f"labels: {len(labels)} of them; expected {least} or more")
    twice = [label for label in labels if labels.count(label) > 1]
    if twice:
        raise ProbelineError(f"labels: '{twice[0]}' stands there twice; expected different names")
