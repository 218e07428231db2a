"""What each label's token looks at in a text."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from probeline.errors import ProbelineError, one_of
from probeline.files import replacing
from probeline.label_tokens.model import LabelTokenClassifier

COLUMNS = ("row", "layer", "label", "token", "special", "position", "weight")


@torch.no_grad()
def label_attention(
    model: LabelTokenClassifier,
    tokenizer,
    texts: Sequence[str],
    pairs: Sequence[str] | None = None,
    rows: Sequence[int] | None = None,
    layers: str = "last",
    candidates: np.ndarray | None = None,
) -> pd.DataFrame:
    """Attention from label tokens to the tokens of texts, mean over heads.

    Attention says where information may flow, not what decided: it is an aid for the eye.

    Parameters
    ----------
    model : LabelTokenClassifier
        Is in evaluation mode, and attends by plain matrix products, while this runs. With chunks
        labels are read as in its own passes.
    tokenizer : transformers.PreTrainedTokenizerBase
        The model's, as `fit_tokenizer` made it: it cuts what is too long.
    texts, pairs : sequence of str
    rows : sequence of int, optional
        Names of the texts in the table; from 0 on.
    layers : str
        "last" or "all".
    candidates : ndarray of int, shape (n, M), optional
        The labels that are read for each text; all of them.

    Returns
    -------
    pandas.DataFrame
        row int64, layer int64 (from 1 on), label str, token str (as the tokenizer has it), special
        bool (a token such as [CLS], that the tokenizer puts there), position int64 (in the text,
        special tokens included), weight float32 (0 to 1; those of a row, layer and label sum to 1
        less what goes to label tokens).

    Raises
    ------
    ProbelineError
        If `layers` is neither, or there is no text.
    """
    if layers not in ("last", "all"):
        raise ProbelineError(f"layers: {one_of(layers, ('last', 'all'))}")
    if not len(texts):
        raise ProbelineError("attention: no text; give one or more")
    labels = [model.config.id2label[code] for code in range(model.config.num_labels)]
    rows = range(len(texts)) if rows is None else rows
    parts = []
    with _eager(model):
        for number, text in enumerate(texts):
            inputs = tokenizer(
                text,
                None if pairs is None else pairs[number],
                truncation=True,
                return_special_tokens_mask=True,
                return_tensors="pt",
            ).to(model.device)
            special = inputs.pop("special_tokens_mask")[0].bool().cpu().numpy()
            tokens = tokenizer.convert_ids_to_tokens(inputs["input_ids"][0].tolist())
            own = None if candidates is None else candidates[number]
            for codes, weights in _passes(model, inputs, own):
                first = 0 if layers == "all" else len(weights) - 1
                for layer, found in enumerate(weights[first:], start=first + 1):
                    names = [labels[code] for code in codes]
                    part = _table(names, tokens, special, found)
                    parts.append(part.assign(row=np.int64(rows[number]), layer=np.int64(layer)))
    return pd.concat(parts, ignore_index=True)[list(COLUMNS)]


def _passes(
    model: LabelTokenClassifier, inputs, candidates: np.ndarray | None
) -> Iterator[tuple[list[int], list[np.ndarray]]]:
    """Of each pass the labels and, per layer, weights (labels, tokens of the text) of one text."""
    mask = inputs["attention_mask"].bool()
    every = np.arange(model.config.num_labels) if candidates is None else candidates
    codes = torch.as_tensor(every, dtype=torch.int64, device=mask.device)
    for part in codes.split(model.config.labels_per_pass):
        output = model(**inputs, candidates=part.unsqueeze(0), output_attentions=True)
        layout = model.layout(mask, len(part))
        # Where each token of the text stands among all.
        at = layout.order[0].argsort()[: mask.shape[1]]
        places = layout.places[0]
        yield (
            part.tolist(),
            [
                layer[0].float().mean(0)[places][:, at].cpu().numpy().astype(np.float32)
                for layer in output.attentions
            ],
        )


def _table(
    labels: Sequence[str], tokens: Sequence[str], special: np.ndarray, weights: np.ndarray
) -> pd.DataFrame:
    count = len(tokens)
    return pd.DataFrame(
        {
            "label": np.repeat(np.array(labels, dtype=object), count),
            "token": np.tile(np.array(tokens, dtype=object), len(labels)),
            "special": np.tile(special, len(labels)),
            "position": np.tile(np.arange(count), len(labels)),
            "weight": weights.reshape(-1),
        }
    )


@contextmanager
def _eager(model: LabelTokenClassifier) -> Iterator[None]:
    """The one attention that gives out its weights."""
    before, training = model.body.config._attn_implementation, model.training
    model.body.set_attn_implementation("eager")
    model.eval()
    try:
        yield
    finally:
        model.body.set_attn_implementation(before)
        model.train(training)


def write_attention(table: pd.DataFrame, path: str | os.PathLike) -> None:
    """Write a table as Parquet, or as CSV where `path` ends so; whole or not at all."""
    with replacing(path) as temporary:
        if Path(path).suffix == ".csv":
            table.to_csv(temporary, index=False)
        else:
            table.to_parquet(temporary, index=False)
