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
from probeline.provenance import write_record
from probeline.workflow.gpus import own_gpu

# Read when the libraries of the hub are imported, by one or another of them.
_OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")


@contextmanager
def job(snakemake, online: bool = False) -> Iterator[None]:
    """Log to the rule's log file, keep to the rule's threads, report errors in one line.

    What a killed job has left half-written is removed, what this one has made is recorded beside
    the results: see `probeline.provenance`. The hub is for rules that fetch alone (`online`): to
    all others it is what these have brought. A rule that asks for a GPU has one to itself where
    there are several.
    """
    if not online:
        os.environ.update(dict.fromkeys(_OFFLINE, "1"))
    # Read by the tokenizers' pool when it starts; Snakemake sets those of OpenMP and BLAS.
    os.environ["RAYON_NUM_THREADS"] = str(snakemake.threads)
    logs.set_up(str(snakemake.log[0]) if snakemake.log else None)
    gpus = getattr(snakemake, "resources", {}).get("gpu", 0)
    with logs.reported():
        with threadpool_limits(snakemake.threads), own_gpu(gpus):
            remove_leftovers(snakemake.output)
            yield
        write_record(snakemake)
