"""What reading the labels in several passes changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from probeline.label_tokens.model import LabelTokenClassifier


@torch.no_grad()
def chunk_difference(
    model: LabelTokenClassifier, batches: Iterable[Mapping[str, torch.Tensor]], chunk: int
) -> float:
    """The largest difference of a logit between `chunk` labels per pass and all in one.

    It is rounding in isolated mode, where a label's logit depends on the text alone. In other modes
    the labels of other passes are missed; one pass must fit the body's window.

    Parameters
    ----------
    model : LabelTokenClassifier
        Is put in evaluation mode while this runs.
    batches : iterable of mapping
        Arguments of the model's `forward`.
    chunk : int
    """
    training, before = model.training, model.config.chunk
    model.eval()
    largest = 0.0
    try:
        for batch in batches:
            model.config.chunk = chunk
            parts = model(**batch).logits.float()
            model.config.chunk = None
            whole = model(**batch).logits.float()
            largest = max(largest, float((parts - whole).abs().max()))
    finally:
        model.config.chunk = before
        model.train(training)
    return largest
