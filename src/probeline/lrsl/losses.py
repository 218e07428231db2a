"""Ranking losses of sentence-transformers that know labels: what is true is never a negative.

sentence-transformers' MultipleNegativesRankingLoss takes the documents of all other rows of a batch
for negatives (Henderson et al. 2017, section 4.4). Here documents are label texts, and those of
other rows are often this row's own label: they are masked. Its batch samplers could only keep equal
texts out of a batch, which several texts per label, several labels per text and explicit negatives
of other rows get round, and which leaves batches no larger than the number of labels.
"""

from __future__ import annotations

import torch
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)
from torch.nn.functional import cross_entropy


def false_negatives(codes: torch.Tensor) -> torch.Tensor:
    """Which documents of a batch are a true label of which row, its own positive aside.

    Parameters
    ----------
    codes : torch.Tensor of int64, shape (B, 2 + t)
        Label of the row's positive and of its negative, then all true labels of its text, filled
        up with -1.

    Returns
    -------
    torch.Tensor of bool, shape (B, 2 B)
        Columns are the positives of all rows, then the negatives of all rows.
    """
    documents = codes[:, :2].T.reshape(-1)
    found = torch.zeros(len(codes), len(documents), dtype=torch.bool, device=codes.device)
    for true in codes[:, 2:].T:
        found |= true[:, None] == documents
    own = torch.arange(len(codes), device=codes.device)
    found[own, own] = False
    return found


class RankingLoss(MultipleNegativesRankingLoss):
    """Cross-entropy of each row's positive among all documents that are not true labels of it.

    Labels are as `false_negatives` takes them; rows are anchor, positive, negative.
    """

    def compute_loss_from_embeddings(
        self, embeddings: list[torch.Tensor], labels: torch.Tensor
    ) -> torch.Tensor:
        documents = torch.cat(embeddings[1:])
        scores = self.similarity_fct(embeddings[0], documents) * self.scale
        scores = scores.masked_fill(false_negatives(labels), -torch.inf)
        return cross_entropy(scores, torch.arange(len(scores), device=scores.device))


class CachedRankingLoss(CachedMultipleNegativesRankingLoss):
    """`RankingLoss` in the memory of a part of the batch, by cached gradients (Gao et al. 2021)."""

    def calculate_loss(
        self,
        reps: list[list[torch.Tensor]],
        labels: torch.Tensor | None = None,
        *,
        with_backward: bool = False,
    ) -> torch.Tensor:
        anchors = torch.cat(reps[0])
        documents = torch.cat([part for column in reps[1:] for part in column])
        masked = false_negatives(labels)
        own = torch.arange(len(anchors), device=anchors.device)
        total = torch.zeros((), device=anchors.device)
        for start in range(0, len(anchors), self.mini_batch_size):
            rows = slice(start, start + self.mini_batch_size)
            scores = self.similarity_fct(anchors[rows], documents) * self.scale
            scores = scores.masked_fill(masked[rows], -torch.inf)
            loss = cross_entropy(scores, own[rows], reduction="sum") / len(anchors)
            if with_backward:
                loss.backward()
                loss = loss.detach()
            total = total + loss
        return total
