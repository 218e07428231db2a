"""The figure of the score against the share of texts that are reranked."""

from __future__ import annotations

import os
from collections.abc import Sequence


def reranked_figure(
    reports: Sequence[str | os.PathLike], title: str, outputs: Sequence[str | os.PathLike]
) -> None:
    """Draw the score on validation and test, by the share of texts reranked, least certain first.

    Parameters
    ----------
    reports : sequence of path
        report.json with `metric`, `curve` (see `probeline.lrsl.report.share_curve`) and
        `chosen_share` {split: share of texts that the chosen threshold reranks}; one per seed.
    title : str
    outputs : sequence of path
        `.svg` or `.png`.

    Raises
    ------
    ProbelineError
        If a report is missing, unreadable or not one, or an output has another suffix.
    """
    raise NotImplementedError
