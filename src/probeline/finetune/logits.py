"""Logits of a classifier, one forward pass per text."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch

from probeline.activations.batching import Tokens, fitting, padded
from probeline.activations.progress import Progress
from probeline.models.load import LoadedModel

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """The context in which a model of precision "no", "bf16" or "fp16" computes."""
    if precision == "no":
        return nullcontext()
    return torch.autocast(device.type, dtype=_DTYPES[precision])


def logits_of(
    model: LoadedModel, tokens: Tokens, classes: int, precision: str, what: str | None = None
) -> np.ndarray:
    """Return float32 logits (n, classes) in the order of `tokens`; the model is left in eval mode.

    Parameters
    ----------
    model : LoadedModel
        Its body is a sequence classifier.
    what : str, optional
        Shown with the progress; without it none is shown.

    Raises
    ------
    ProbelineError
        If a GPU's memory does not hold a batch.
    """
    found = np.empty((len(tokens.ids), classes), np.float32)
    model.body.eval()
    progress = Progress(what, len(found)) if what else None
    with torch.no_grad(), autocast(model.device, precision), progress or nullcontext():
        for batch in padded(model, tokens):
            with fitting(model, batch):
                found[batch.rows] = model.body(**batch.inputs).logits.float().cpu().numpy()
            if progress:
                progress.step(len(batch.rows))
    return found
