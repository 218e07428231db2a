"""Tidy tables of results, as CSV for people and Parquet for programs."""

from __future__ import annotations

import os

import pandas as pd

from probeline.files import replacing


def write_frame(frame: pd.DataFrame, csv: str | os.PathLike, parquet: str | os.PathLike) -> None:
    """Write `frame` as CSV (six significant digits) and Parquet, each whole or not at all."""
    with replacing(csv) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
    with replacing(parquet) as temporary:
        frame.to_parquet(temporary, index=False)
