"""What each label's token looks at in a text."""

from __future__ import annotations

import html
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from probeline.errors import ProbelineError, one_of
from probeline.files import replacing, write_text
from probeline.label_tokens.model import LabelTokenClassifier

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body {{ font: 15px/1.9 sans-serif; max-width: 60em; margin: 2em auto; }}
b {{ display: inline-block; min-width: 9em; }} span {{ padding: 2px; }}</style>
<h1>{title}</h1>
<p>Attention from each label's token to the tokens of the text, mean over heads; the darkest token
of a line has the most. What is missing to 1 goes to other label tokens.</p>
{body}
</html>
"""


@torch.no_grad()
def label_attention(
    model: LabelTokenClassifier,
    tokenizer,
    texts: Sequence[str],
    pairs: Sequence[str] | None = None,
    rows: Sequence[int] | None = None,
    layers: str = "last",
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

    Returns
    -------
    pandas.DataFrame
        row int64, layer int64 (from 1 on), label str, token str (as the tokenizer has it), position
        int64 (in the text, special tokens included), weight float32 (0 to 1; those of a row, layer
        and label sum to 1 less what goes to label tokens).

    Raises
    ------
    ProbelineError
        If `layers` is neither.
    """
    if layers not in ("last", "all"):
        raise ProbelineError(f"layers: {one_of(layers, ('last', 'all'))}")
    labels = [model.config.id2label[code] for code in range(model.config.num_labels)]
    rows = range(len(texts)) if rows is None else rows
    parts = []
    with _eager(model):
        for number, text in enumerate(texts):
            inputs = tokenizer(
                text,
                None if pairs is None else pairs[number],
                truncation=True,
                return_tensors="pt",
            ).to(model.device)
            tokens = tokenizer.convert_ids_to_tokens(inputs["input_ids"][0].tolist())
            for codes, weights in _passes(model, inputs):
                first = 0 if layers == "all" else len(weights) - 1
                for layer, found in enumerate(weights[first:], start=first + 1):
                    names = [labels[code] for code in codes]
                    parts.append(_table(int(rows[number]), layer, names, tokens, found))
    return pd.concat(parts, ignore_index=True)


def _passes(model: LabelTokenClassifier, inputs) -> Iterator[tuple[list[int], list[np.ndarray]]]:
    """Of each pass the labels and, per layer, weights (labels, tokens of the text) of one text."""
    mask = inputs["attention_mask"].bool()
    codes = torch.arange(model.config.num_labels, device=mask.device)
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
    row: int, layer: int, labels: Sequence[str], tokens: Sequence[str], weights: np.ndarray
) -> pd.DataFrame:
    count = len(tokens)
    return pd.DataFrame(
        {
            "row": np.full(weights.size, row, np.int64),
            "layer": np.full(weights.size, layer, np.int64),
            "label": np.repeat(np.array(labels, dtype=object), count),
            "token": np.tile(np.array(tokens, dtype=object), len(labels)),
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


def attention_page(
    table: pd.DataFrame, title: str, path: str | os.PathLike, labels: int = 5
) -> None:
    """Write an HTML page: each text once per label, its tokens the darker the more is looked at.

    Parameters
    ----------
    table : pandas.DataFrame
        As `label_attention` makes it; of several layers the last is shown.
    labels : int
        Labels per text, those that look at the text most.
    """
    body = []
    for row, own in table[table["layer"] == table["layer"].max()].groupby("row"):
        body.append(f"<h2>Text {row}</h2>")
        totals = own.groupby("label")["weight"].sum().sort_values(ascending=False, kind="stable")
        body += [_line(name, own[own["label"] == name]) for name in totals.index[:labels]]
    write_text(path, _PAGE.format(title=html.escape(title), body="\n".join(body)))


def _line(label: str, own: pd.DataFrame) -> str:
    most = max(float(own["weight"].max()), 1e-12)
    words = " ".join(
        f'<span style="background:rgba(0,114,178,{weight / most:.2f})">{html.escape(token)}</span>'
        for token, weight in zip(own["token"], own["weight"], strict=True)
    )
    return f"<p><b>{html.escape(label)}</b> {words}</p>"
