"""Fixtures of the workflow tests; makes the helper modules beside it importable."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from fixtures import copied, finished, project, server, shared, tiny_model, variant

__all__ = ["copied", "finished", "project", "server", "shared", "tiny_model", "variant"]
