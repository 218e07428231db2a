"""What every workflow script does around its one call of the library."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

# Before the limit: it reaches the libraries that are loaded.
import numpy as np  # noqa: F401
from threadpoolctl import threadpool_limits

from probeline import logs
from probeline.files import remove_leftovers


@contextmanager
def job(snakemake) -> Iterator[None]:
    """Log to the rule's log file, keep to the rule's threads, report errors in one line.

    What a killed job has left half-written is removed.
    """
    # Read by the tokenizers' pool when it starts; Snakemake sets those of OpenMP and BLAS.
    os.environ["RAYON_NUM_THREADS"] = str(snakemake.threads)
    logs.set_up(str(snakemake.log[0]) if snakemake.log else None)
    with logs.reported(), threadpool_limits(snakemake.threads):
        remove_leftovers(snakemake.output)
        yield
