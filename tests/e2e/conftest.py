"""Fixtures of the end-to-end tests: those of the workflow tests, whose helpers are importable."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from fixtures import server, shared, tiny_model

__all__ = ["server", "shared", "tiny_model"]
