"""What a workflow script does around its one call: the rule's threads are all that it uses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_TASKS = Path("/proc/self/task")
_SCRIPT = """
from pathlib import Path
from types import SimpleNamespace
from probeline.workflow.job import job

with job(SimpleNamespace(log=[], output=[], threads=1)):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from threadpoolctl import threadpool_info
    import numpy as np

    np.ones((200, 200)) @ np.ones((200, 200))
    assert {pool["num_threads"] for pool in threadpool_info()} == {1}
    tokenizer = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tasks = Path("/proc/self/task")
    before = len(list(tasks.iterdir()))
    tokenizer.encode_batch(["a a"] * 5000)
    print(len(list(tasks.iterdir())) - before)
"""


@pytest.mark.skipif(not _TASKS.is_dir(), reason="threads are counted through /proc")
def test_tokenizers_and_blas_keep_to_the_threads_of_the_rule():
    environment = {k: v for k, v in os.environ.items() if k != "RAYON_NUM_THREADS"}
    environment["TOKENIZERS_PARALLELISM"] = "true"
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT], env=environment, capture_output=True, text=True, check=True
    )
    # One thread of the pool beside the one that asks; without the limit one for each core.
    assert int(done.stdout) <= 1
