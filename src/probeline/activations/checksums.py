"""Checksums of a shard's rows."""

from __future__ import annotations

import zlib

import numpy as np


def blocks_crc(values: np.ndarray, block: int) -> np.ndarray:
    """CRC-32 of the bytes of every `block` rows, the last ones perhaps fewer: '<u4' (blocks,).

    One per block, and not one per file, lets a range of rows be checked without reading the rest.
    """
    whole = memoryview(np.ascontiguousarray(values)).cast("B")
    step = block * values.shape[1] * values.itemsize
    return np.array([zlib.crc32(whole[i : i + step]) for i in range(0, len(whole), step)], "<u4")
