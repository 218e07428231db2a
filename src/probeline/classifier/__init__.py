"""The trained classifier as a folder, and what loads it."""

from __future__ import annotations

__all__ = ["Classifier", "load"]


def __getattr__(name: str):
    # The workflow writes folders without loading torch; only prediction needs it.
    if name in __all__:
        from probeline.classifier import predict

        return getattr(predict, name)
    raise AttributeError(f"module 'probeline.classifier' has no attribute {name!r}")
