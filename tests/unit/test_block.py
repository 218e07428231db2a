"""One block of pooled values: what does not fit or did not come is named."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probeline.activations.block import Block
from probeline.activations.extract import Plan
from probeline.activations.pooling import Pooler
from probeline.errors import ProbelineError

NAMES = ("hidden.max.00.h5", "hidden.max.01.h5")


def block(storage_dtype="float16") -> Block:
    keys = [("hidden", 0), ("hidden", 1)]
    plan = Plan(dict.fromkeys(NAMES, 3), ["max"], keys, storage_dtype, rows=20, block=8)
    return Block("a/model", plan, torch.float32)


def take(into: Block, values: np.ndarray, place: slice, layers=(0, 1)) -> None:
    """One batch of texts of one token each, the same in every layer."""
    tokens = torch.from_numpy(values.astype(np.float32))[:, None, :]
    collector = into.collector()
    for layer in layers:
        collector.take(("hidden", layer), tokens, Pooler([1] * len(values), 1))
    collector.add(np.arange(place.start, place.stop)[::-1].copy())


def batch(*changes: tuple[int, int, float]) -> np.ndarray:
    values = np.arange(12.0).reshape(4, 3)
    for row, column, value in changes:
        values[row, column] = value
    return values


@pytest.mark.parametrize("storage_dtype", ["float16", "float32"])
def test_rows_go_to_their_places_and_stay_while_the_next_block_is_filled(storage_dtype):
    blocks = block(storage_dtype)
    place = blocks.begin(0, 4)
    take(blocks, batch(), place)
    first = blocks.parts(place)
    place = blocks.begin(4, 8)
    take(blocks, batch((0, 0, 77.0)), place)
    second = blocks.parts(place)
    for name in NAMES:
        assert first[name].dtype == storage_dtype
        np.testing.assert_array_equal(first[name], batch()[::-1])
        np.testing.assert_array_equal(second[name], batch((0, 0, 77.0))[::-1])


def test_two_collectors_fill_one_block():
    blocks = block()
    place = blocks.begin(0, 4)
    one, two = blocks.collector(), blocks.collector()
    values = torch.from_numpy(batch().astype(np.float32))[:, None, :]
    for layer in (0, 1):
        for collector, rows in ((one, [0, 3]), (two, [1, 2])):
            collector.take(("hidden", layer), values[rows], Pooler([1, 1], 1))
    two.add(np.array([1, 2]) + place.start)
    one.add(np.array([0, 3]) + place.start)
    for name in NAMES:
        np.testing.assert_array_equal(blocks.parts(place)[name], batch())


def test_rows_are_those_of_their_block_when_the_next_has_begun():
    blocks = block()
    blocks.begin(0, 8)
    place = blocks.begin(8, 16)
    blocks.begin(16, 20)
    with pytest.raises(ProbelineError, match="NaN or infinite value in row 14,"):
        take(blocks, np.vstack([batch((1, 2, np.nan)), batch()]), place)


def test_what_rounds_to_the_largest_float16_fits():
    blocks = block()
    place = blocks.begin(0, 4)
    take(blocks, batch((2, 1, 65519.0), (3, 1, -65510.0)), place)
    values = blocks.parts(place)[NAMES[0]]
    assert values[1, 1] == 65504 and values[0, 1] == -65504


@pytest.mark.parametrize("value", [65520.0, -1e9])
def test_what_rounds_to_infinity_is_named(value):
    blocks = block()
    place = blocks.begin(8, 12)
    with pytest.raises(ProbelineError, match=r"hidden.max.00.h5: row 9 .* too large for float16"):
        take(blocks, batch((2, 1, value)), place)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_named(value):
    for storage_dtype in ("float16", "float32"):
        blocks = block(storage_dtype)
        place = blocks.begin(8, 12)
        with pytest.raises(ProbelineError, match=r"NaN or infinite value in row 10, 'hidden' l"):
            take(blocks, batch((1, 2, value)), place)


def test_nan_is_named_before_what_is_only_too_large():
    blocks = block()
    place = blocks.begin(0, 4)
    with pytest.raises(ProbelineError, match=r"NaN or infinite value in row 3,"):
        take(blocks, batch((3, 0, 1e6), (0, 0, np.nan)), place)


def test_a_layer_that_the_pass_leaves_out_is_no_stale_memory():
    blocks = block()
    place = blocks.begin(0, 4)
    with pytest.raises(ProbelineError, match=r"a/model: .* shows nothing for hidden.max.01.h5"):
        take(blocks, batch(), place, layers=[0])
