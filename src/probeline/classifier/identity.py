"""Which classifier a folder holds, in the words that a reranker of it has, too."""

from __future__ import annotations

import os
from pathlib import Path

from probeline.classifier.folder import MANIFEST, read_head
from probeline.classifier.training import read_training
from probeline.finetune.folder import TRAINING

# File name, without its suffix, of what the sparse classifier that is saved predicts.
_SPARSE = "stc"


def is_trained(folder: str | os.PathLike) -> bool:
    """Whether it is the folder of a fine-tuned model, its labels tokens or not."""
    return not (Path(folder) / MANIFEST).is_file() and (Path(folder) / TRAINING).is_file()


def identity(folder: str | os.PathLike) -> dict:
    """What a classifier's folder says of itself.

    Returns
    -------
    dict
        dataset, dataset_fingerprint, task, multilabel, labels, model; and `source`, a tuple: file
        names, without the suffix, that its predictions may have. What is not said is None.

    Raises
    ------
    ProbelineError
        If it is no classifier's folder, is damaged, or of a version this library does not read.
    """
    return _of_trained(folder) if is_trained(folder) else _of_sparse(folder)


def _of_sparse(folder: str | os.PathLike) -> dict:
    _, manifest = read_head(folder)
    provenance = manifest["provenance"]
    return {
        "dataset": provenance.get("dataset"),
        "dataset_fingerprint": provenance.get("dataset_fingerprint"),
        "task": manifest["task"],
        "multilabel": manifest["multilabel"],
        "labels": manifest["labels"],
        "model": provenance.get("model"),
        "source": (_SPARSE,),
    }


def _of_trained(folder: str | os.PathLike) -> dict:
    training = read_training(folder)
    settings = training.manifest["settings"]
    return {
        "dataset": settings.get("dataset"),
        "dataset_fingerprint": settings.get("dataset_fingerprint"),
        "task": settings.get("task"),
        "multilabel": training.multilabel,
        "labels": training.labels,
        "model": settings.get("model_name"),
        "source": training.sources,
    }
