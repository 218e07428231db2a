"""A progress bar on a terminal, plain log lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time

from tqdm import tqdm

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 15.0


class Progress:
    """Context manager that shows texts/s and the time left.

    Parameters
    ----------
    what : str
        What is being worked on.
    total : int
        Texts in all.
    done : int
        Texts that an earlier run has done; they do not count into the speed.
    """

    def __init__(self, what: str, total: int, done: int = 0):
        self._what, self._total, self._done = what, total, done
        self._initial = done
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm(
                total=total, initial=done, desc=what, unit="text", dynamic_ncols=True, leave=False
            )

    def __enter__(self) -> Progress:
        self._began = self._spoken = time.monotonic()
        return self

    def __exit__(self, kind, *_) -> None:
        if self._bar is not None:
            self._bar.close()
        if kind is None:
            self._log()

    def step(self, texts: int) -> None:
        """Count `texts` as done."""
        self._done += texts
        if self._bar is not None:
            self._bar.update(texts)
        elif time.monotonic() - self._spoken >= _SECONDS_BETWEEN_LINES:
            self._log()

    def _log(self) -> None:
        self._spoken = time.monotonic()
        speed = (self._done - self._initial) / max(self._spoken - self._began, 1e-9)
        left = (self._total - self._done) / speed if speed else float("inf")
        logger.info(
            "%s: %d of %d texts, %.1f texts/s, %.0f s left",
            self._what,
            self._done,
            self._total,
            speed,
            left,
        )
