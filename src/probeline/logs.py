"""Logging of jobs: one file per job and stderr, one line for the user's mistakes."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from probeline.errors import ProbelineError
from probeline.files import told

_FORMAT = "%(asctime)s %(levelname)s %(message)s"


def set_up(log: str | None = None) -> None:
    """Send messages of level INFO and above to stderr, and to the file `log` as well."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if log:
        Path(log).parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(log, mode="w", encoding="utf-8"))
    logging.basicConfig(level=logging.INFO, format=_FORMAT, handlers=handlers, force=True)


@contextmanager
def reported() -> Iterator[None]:
    """Turn a `ProbelineError` into one line in the log and exit status 1; log any other whole.

    What the machine refuses, such as memory, is a line too.
    """
    try:
        yield
    except ProbelineError as error:
        for line in str(error).splitlines():
            logging.error("%s", line)
        raise SystemExit(1) from None
    except Exception as error:
        reason = told(error)
        if reason is not None:
            logging.error("%s", reason)
            raise SystemExit(1) from None
        logging.exception("unexpected error; please report it with this log")
        raise SystemExit(1) from None
