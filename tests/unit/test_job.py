"""What a workflow script does around its one call: the rule's threads are all that it uses."""

from __future__ import annotations

import json
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


_OFFLINE = """
import json
import sys
from types import SimpleNamespace
from probeline.workflow.job import job

with job(SimpleNamespace(log=[], output=[], threads=1), online=json.loads(sys.argv[1])):
    import datasets.config
    import huggingface_hub.constants
    import transformers.utils.hub as hub

    found = datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE
    print(json.dumps([*found, hub.is_offline_mode()]))
"""


@pytest.mark.parametrize("online", [False, True])
def test_only_what_fetches_knows_a_network(online):
    """By the libraries' own words, in an environment that has one."""
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_OFFLINE")}
    line = [sys.executable, "-c", _OFFLINE, json.dumps(online)]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [not online] * 3


@pytest.mark.skipif(not _TASKS.is_dir(), reason="threads are counted through /proc")
def test_tokenizers_and_blas_keep_to_the_threads_of_the_rule():
    environment = {k: v for k, v in os.environ.items() if k != "RAYON_NUM_THREADS"}
    environment["TOKENIZERS_PARALLELISM"] = "true"
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT], env=environment, capture_output=True, text=True, check=True
    )
    # One thread of the pool beside the one that asks; without the limit one for each core.
    assert int(done.stdout) <= 1
