"""Poolings against plain loops; padding must never enter."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from probeline.activations.pooling import Pooler
from probeline.errors import ProbelineError

POOLINGS = ("first", "last", "max", "mean")
POISON = (float("nan"), float("inf"), float("-inf"), 1e30)


def by_loop(row: list[list[float]], pooling: str) -> list[float]:
    """Pool the real tokens of one text, given as a list of vectors."""
    if pooling == "first":
        return row[0]
    if pooling == "last":
        return row[-1]
    width = len(row[0])
    if pooling == "max":
        return [max(token[j] for token in row) for j in range(width)]
    return [math.fsum(token[j] for token in row) / len(row) for j in range(width)]


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    spare=st.integers(0, 3),
    side=st.sampled_from(["right", "left"]),
    masked=st.booleans(),
    poison=st.sampled_from(POISON),
    seed=st.integers(0, 1000),
)
def test_equals_a_plain_loop_whatever_stands_in_the_padding(
    lengths, spare, side, masked, poison, seed
):
    width = max(lengths) + spare
    values = torch.full((len(lengths), width, 3), poison)
    real = (
        torch.randn((len(lengths), width, 3), generator=torch.Generator().manual_seed(seed)) - 2.0
    )  # mostly negative: a padding of zeros would win every maximum
    texts = []
    for row, n in enumerate(lengths):
        where = slice(0, n) if side == "right" else slice(width - n, width)
        values[row, where] = real[row, where]
        texts.append(real[row, where].tolist())
    pooler = Pooler(lengths, width, side, masked=masked)
    for pooling in POOLINGS:
        result = pooler.pool(values, pooling)
        assert result.dtype == torch.float32
        expected = np.array([by_loop(text, pooling) for text in texts])
        np.testing.assert_allclose(result.numpy(), expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_means_of_half_precision_are_summed_in_float32(dtype, masked):
    # 4,096 ones and a 0.5: a sum in half precision stops growing long before the end.
    values = torch.ones(1, 4097, 1, dtype=dtype)
    values[0, -1] = 0.5
    mean = Pooler([4097], 4097, masked=masked).pool(values, "mean")
    np.testing.assert_allclose(mean.numpy(), [[4096.5 / 4097]], rtol=1e-6)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_nan_of_a_real_token_stays(pooling, masked):
    values = torch.zeros(2, 3, 2)
    values[1, 1, 0] = float("nan")
    result = Pooler([3, 2], 3, masked=masked).pool(values, pooling)
    assert torch.isnan(result).tolist() == [[False, False], [True, False]]


def test_both_reductions_agree_on_unsorted_lengths():
    lengths = [4, 1, 4, 7, 7, 2]
    values = torch.randn(6, 7, 5, generator=torch.Generator().manual_seed(0))
    for pooling in POOLINGS:
        torch.testing.assert_close(
            Pooler(lengths, 7, masked=False).pool(values, pooling),
            Pooler(lengths, 7, masked=True).pool(values, pooling),
        )


def test_an_accelerator_masks_a_batch_of_many_lengths_only():
    few, many = [9] * 40 + [7] * 30, list(range(20, 5, -1))
    assert not Pooler(few, 9, device="meta").masked
    assert Pooler(many, 20, device="meta").masked
    assert not Pooler(many, 20).masked
    assert Pooler(few, 9, masked=True).masked


@pytest.mark.parametrize("lengths", [[], [0, 2], [4]])
def test_impossible_lengths_are_refused(lengths):
    with pytest.raises(ValueError, match="lengths must lie in"):
        Pooler(lengths, 3)


def test_unknown_pooling_is_named():
    with pytest.raises(ProbelineError, match=r"'men' is not one of .*; did you mean 'mean'"):
        Pooler([1], 1).pool(torch.zeros(1, 1, 1), "men")
