"""Summaries of how long texts are in tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def token_summary(
    lengths: np.ndarray, offsets: Mapping[str, Sequence[int]], max_length: int
) -> dict:
    """Summarise token counts before truncation, per split and overall.

    Parameters
    ----------
    lengths : ndarray of int, shape (rows,)
        Tokens of each text, special tokens included, before truncation.
    offsets : mapping
        {split: (first row, row after the last)}.
    max_length : int
        Tokens that are kept of a text.

    Returns
    -------
    dict
        {"max_length": int, "all": summary, "splits": {split: summary}}, JSON-like; a summary has
        texts, mean, min, max, quantiles and the share of texts that are truncated.
    """
    return {
        "max_length": int(max_length),
        "all": _summary(lengths, max_length),
        "splits": {
            name: _summary(lengths[start:stop], max_length)
            for name, (start, stop) in offsets.items()
        },
    }


def _summary(lengths: np.ndarray, max_length: int) -> dict:
    if len(lengths) == 0:
        return {"texts": 0}
    return {
        "texts": len(lengths),
        "mean": round(float(lengths.mean()), 2),
        "min": int(lengths.min()),
        "max": int(lengths.max()),
        "quantiles": {
            str(share): round(float(value), 1)
            for share, value in zip(QUANTILES, np.quantile(lengths, QUANTILES), strict=True)
        },
        "truncated": round(float((lengths > max_length).mean()), 6),
    }
