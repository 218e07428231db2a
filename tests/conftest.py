"""Shared helpers of all tests: tests/unit is importable, so `import tiny_models` works anywhere."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hypothesis import settings

# Nothing here may look for a network, or keep both cores busy beside other test workers.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

sys.path.insert(0, str(Path(__file__).parent / "unit"))

# How long an example takes is the machine's business.
settings.register_profile("probeline", deadline=None)
settings.load_profile("probeline")
