"""What training.json says of a fine-tuned model's folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from probeline.errors import ProbelineError
from probeline.files import read_json
from probeline.finetune.folder import TRAINING
from probeline.finetune.kind import Counterpart, Regular
from probeline.label_tokens.build import LabelTokenOptions
from probeline.label_tokens.kind import LabelTokens

_MOST_TOKENS = 2**31 - 1


@dataclass(frozen=True)
class Training:
    """What of it is needed to classify.

    Attributes
    ----------
    manifest : mapping
        All of it.
    labels : list of str
    multilabel : bool
    max_length : int
        Most tokens of a text.
    pair : bool or None
        Whether it was trained on pairs of texts; None in folders of earlier versions, which take
        any texts.
    threshold : ndarray of float32, shape () or (K,)
        Of multi-label logits.
    sources : tuple of str
        File names, without the suffix, that its predictions may have, such as finetune-42. Folders
        of earlier versions do not tell `finetune` from `regular`: two.
    """

    manifest: Mapping
    labels: list[str]
    multilabel: bool
    max_length: int
    pair: bool | None
    threshold: np.ndarray
    sources: tuple[str, ...]


def read_training(folder: str | os.PathLike) -> Training:
    """Read training.json of `folder`.

    Raises
    ------
    ProbelineError
        If there is none, or it is not that of a fine-tuned model.
    """
    path = Path(folder) / TRAINING
    manifest = read_json(path)
    try:
        return _training(manifest)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise ProbelineError(
            f"{path}: not that of a fine-tuned model ({type(error).__name__}: {error}); copy the "
            "folder again"
        ) from None


def _training(manifest: Mapping) -> Training:
    labels, settings = manifest["labels"], manifest["settings"]
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise TypeError("'labels' are not a list of texts")
    if not labels or len(set(labels)) < len(labels):
        raise ValueError("'labels' are none, or one is there twice")
    length, pair = settings["max_length"], settings.get("pair")
    for key, value, kind in (
        ("multilabel", manifest["multilabel"], bool),
        ("max_length", length, int),
        ("pair", pair, bool | None),
    ):
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise TypeError(f"'{key}' is {type(value).__name__}")
    if not 1 <= length <= _MOST_TOKENS:
        raise ValueError("'max_length' is not a number of tokens")
    threshold = _threshold(manifest["found"]["threshold"], len(labels))
    sources = _sources(manifest)
    return Training(manifest, labels, manifest["multilabel"], length, pair, threshold, sources)


def _sources(manifest: Mapping) -> tuple[str, ...]:
    settings = manifest["settings"]
    told = settings.get("label_tokens")
    if told is not None:
        known = [each.name for each in fields(LabelTokenOptions) if each.name in told]
        options = LabelTokenOptions(**{name: told[name] for name in known})
        names = (f"{LabelTokens.method}-{options.series}",)
    else:
        method = manifest.get("method")
        names = (Regular.method, Counterpart.method) if method is None else (method,)
    return tuple(f"{name}-{settings.get('seed')}" for name in names)


def _threshold(value: object, classes: int) -> np.ndarray:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(one, int | float) and not isinstance(one, bool) for one in values):
        raise TypeError("'threshold' is neither a number nor a list of numbers")
    if isinstance(value, list) and len(value) != classes:
        raise ValueError(f"'threshold' has {len(value)} numbers for {classes} labels")
    with np.errstate(over="ignore"):
        found = np.asarray(value, np.float32)
    if not np.isfinite(found).all():
        raise ValueError("'threshold' is not finite")
    return found
