"""probeline: probes on every layer of a transformer, and the sparse classifiers they lead to."""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["__version__", "load"]

if TYPE_CHECKING:
    from probeline.classifier import load


def __getattr__(name: str):
    # `import probeline` must stay cheap: every workflow job pays for it.
    if name == "load":
        from probeline.classifier import load

        return load
    raise AttributeError(f"module 'probeline' has no attribute {name!r}")
