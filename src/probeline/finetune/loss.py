"""The training loss: cross-entropy, or binary cross-entropy per label; weighted, smoothed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from probeline.probe.losses import make_loss
from probeline.probe.task import TaskData


@dataclass(frozen=True)
class ClassificationLoss:
    """Row losses, so that batches of unequal size weigh every row the same.

    A row's loss is multiplied by its weight and the sum divided by the number of rows, as the
    probes do; torch's own weighted mean would divide by the weights of the batch.

    Attributes
    ----------
    multilabel : bool
    weights : torch.Tensor or None
        float32, (K,) per class; (2, K) for multi-label: of a label's absence and presence.
    smoothing : float
    """

    multilabel: bool
    weights: torch.Tensor | None
    smoothing: float

    def rows(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Weighted losses (n,) of logits (n, K); labels are int64 (n,), or (n, K) of 0 and 1."""
        logits = logits.float()
        weights = None if self.weights is None else self.weights.to(logits.device)
        if not self.multilabel:
            losses = functional.cross_entropy(
                logits, labels, reduction="none", label_smoothing=self.smoothing
            )
            return losses if weights is None else losses * weights[labels]
        target = labels.float()
        smooth = target * (1 - self.smoothing) + self.smoothing / 2
        losses = functional.binary_cross_entropy_with_logits(logits, smooth, reduction="none")
        if weights is not None:
            losses = losses * torch.where(target > 0, weights[1], weights[0])
        return losses.mean(dim=1)

    def mean(self, logits: np.ndarray, labels: np.ndarray) -> float:
        """Mean over the rows of a split: logits (n, K), labels as `TaskData` has them."""
        kind = torch.float32 if self.multilabel else torch.int64
        each = self.rows(torch.from_numpy(logits), torch.as_tensor(labels, dtype=kind))
        return float(each.double().mean())


def classification_loss(
    task: TaskData, class_weight: str | None, smoothing: float
) -> ClassificationLoss:
    """Build the loss of a task; "balanced" gives the weights of the probes' loss."""
    weights = None
    if class_weight is not None:
        y = task.y["train"]
        each = make_loss(y, task.classes, class_weight=class_weight).weights * len(y)
        shape = (2, task.classes) if task.multilabel else (task.classes,)
        weights = np.zeros(shape, np.float32)
        if task.multilabel:
            has = y > 0
            for label in range(task.classes):
                for present in (0, 1):
                    found = each[has[:, label] == present, label]
                    weights[present, label] = found[0] if len(found) else 0.0
        else:
            # A class that train lacks weighs nothing, and no row asks for it.
            weights[y] = each[:, 0]
        weights = torch.from_numpy(weights)
    return ClassificationLoss(task.multilabel, weights, smoothing)
