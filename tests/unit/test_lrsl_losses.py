"""Masked ranking losses against numpy, sentence-transformers' own, and each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from tiny_embedders import write_embedder
from tiny_models import SENTENCES

from probeline.lrsl.embedding import load_embedder
from probeline.lrsl.losses import CachedRankingLoss, RankingLoss, false_negatives
from probeline.lrsl.tune_options import TuneOptions
from probeline.lrsl.tune_trainer import loss_of

# Rows 0 and 1 are of one label; 2's explicit negative is theirs; 3 has two labels, one of them the
# positive of 4 and the negative of 1.
CODES = [[0, 1, 0, -1], [0, 2, 0, -1], [1, 0, 1, -1], [3, 1, 3, 2], [2, 3, 2, -1]]
SCALE = 7.0


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = write_embedder(tmp_path_factory.mktemp("embedder"))
    model = load_embedder({"path": str(folder), "device": "cpu"}).model
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def by_hand(anchors, positives, negatives, codes, scale) -> float:
    """Mean over rows of minus the log of the positive's share, true labels left out, by loops."""
    losses = []
    for i, (positive, _, *true) in enumerate(codes):
        kept = []
        for j, (other, wrong, *_) in enumerate(codes):
            if j == i or other not in true:
                kept.append(scale * anchors[i] @ positives[j])
            if wrong not in true:
                kept.append(scale * anchors[i] @ negatives[j])
        assert positive in true
        losses.append(np.log(np.exp(kept).sum()) - scale * anchors[i] @ positives[i])
    return float(np.mean(losses))


def vectors(rows: int, seed: int = 0) -> list[np.ndarray]:
    X = np.random.default_rng(seed).standard_normal((3, rows, 6))
    return list(X / np.linalg.norm(X, axis=2, keepdims=True))


def test_no_true_label_is_a_negative():
    masked = false_negatives(torch.tensor(CODES)).numpy()
    documents = [row[0] for row in CODES] + [row[1] for row in CODES]
    for i, (_, _, *true) in enumerate(CODES):
        for j, label in enumerate(documents):
            assert masked[i, j] == (label in true and j != i)
    assert masked.sum() == 10


def test_the_masked_loss_by_hand(model):
    anchors, positives, negatives = vectors(len(CODES))
    loss = RankingLoss(model, SCALE)
    found = loss.compute_loss_from_embeddings(
        [torch.tensor(X) for X in (anchors, positives, negatives)], torch.tensor(CODES)
    )
    known = by_hand(anchors, positives, negatives, CODES, SCALE)
    assert found.item() == pytest.approx(known, rel=1e-6)
    unmasked = MultipleNegativesRankingLoss(model, SCALE).compute_loss_from_embeddings(
        [torch.tensor(X) for X in (anchors, positives, negatives)], None
    )
    assert unmasked.item() > known + 0.05


def test_without_equal_labels_it_is_the_librarys_loss(model):
    given = [torch.tensor(X) for X in vectors(4)]
    codes = torch.tensor([[i, 10 + i, i] for i in range(4)])
    found = RankingLoss(model, SCALE).compute_loss_from_embeddings(given, codes)
    known = MultipleNegativesRankingLoss(model, SCALE).compute_loss_from_embeddings(given, None)
    assert found.item() == pytest.approx(known.item(), rel=1e-9)


def features(model):
    """Tokens of five anchors, positives and negatives, of varied length."""
    columns = SENTENCES[:5], ("rain", "rain", "door", "cat", "phone"), SENTENCES[5:]
    return [model.preprocess(list(column)) for column in columns]


def gradients(model, loss) -> tuple[float, list[torch.Tensor]]:
    model.zero_grad()
    model.train()
    value = loss(features(model), torch.tensor(CODES))
    value.backward()
    return value.item(), [
        weight.grad.clone() for weight in model.parameters() if weight.grad is not None
    ]


@pytest.mark.parametrize("mini_batch", [1, 2, 3, 5, 8])
def test_the_cached_loss_equals_the_uncached(model, mini_batch):
    value, grads = gradients(model, RankingLoss(model, SCALE))
    cached, other = gradients(model, CachedRankingLoss(model, SCALE, mini_batch_size=mini_batch))
    assert cached == pytest.approx(value, rel=1e-5)
    assert len(grads) == len(other) > 10
    for one, two in zip(grads, other, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5)
    with torch.no_grad():
        loss = CachedRankingLoss(model, SCALE, mini_batch_size=mini_batch)
        assert loss(features(model), torch.tensor(CODES)).item() == pytest.approx(value, rel=1e-5)


def test_the_triplet_loss_by_hand(model):
    anchors, positives, negatives = vectors(6)
    loss = loss_of(model, TuneOptions(loss="triplet", margin=0.3))
    found = loss.compute_loss_from_embeddings(
        [torch.tensor(X) for X in (anchors, positives, negatives)], None
    )
    rows = [
        max(0.0, (1 - a @ p) - (1 - a @ n) + 0.3)
        for a, p, n in zip(anchors, positives, negatives, strict=True)
    ]
    assert found.item() == pytest.approx(np.mean(rows), rel=1e-6)


def test_the_options_name_the_loss(model):
    cached = loss_of(model, TuneOptions(loss="cached-mnrl", mini_batch=3, scale=11.0))
    assert (type(cached), cached.mini_batch_size, cached.scale) == (CachedRankingLoss, 3, 11.0)
    plain = loss_of(model, TuneOptions(scale=11.0))
    assert (type(plain), plain.scale) == (RankingLoss, 11.0)
