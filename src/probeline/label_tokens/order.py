"""What the order of the labels changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from probeline.label_tokens.model import LabelTokenClassifier


@torch.no_grad()
def order_difference(
    model: LabelTokenClassifier, batches: Iterable[Mapping[str, torch.Tensor]]
) -> dict[str, float]:
    """Read the labels of each pass in the reverse order, and say what is another then.

    Which labels share a pass stays as it is. It is rounding where labels share a position and do
    not attend to each other.

    Parameters
    ----------
    model : LabelTokenClassifier
        Is put in evaluation mode while this runs.
    batches : iterable of mapping
        Arguments of the model's `forward`.

    Returns
    -------
    dict
        `difference`, the largest of a logit, and `changed`, the share of texts whose highest label
        is another.
    """
    training, largest, changed, texts = model.training, 0.0, 0, 0
    model.eval()
    try:
        for batch in batches:
            batch = dict(batch)
            codes = batch.pop("candidates", None)
            if codes is None:
                every = torch.arange(model.config.num_labels, device=batch["input_ids"].device)
                codes = every.expand(len(batch["input_ids"]), -1)
            passes = codes.split(model.config.labels_per_pass, dim=1)
            reverse = torch.cat([part.flip(1) for part in passes], dim=1)
            forth, back = (
                model(**batch, candidates=order).logits.float() for order in (codes, reverse)
            )
            largest = max(largest, float((forth - back).abs().max()))
            changed += int((forth.argmax(1) != back.argmax(1)).sum())
            texts += len(forth)
    finally:
        model.train(training)
    return {"difference": largest, "changed": changed / max(texts, 1)}
