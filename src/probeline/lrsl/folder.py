"""A reranker folder: `reranker.json`, `labels.safetensors` and what the embedding needs.

labels.safetensors: vectors float32 (m, d) of the labels' texts, of length 1; owner int64 (m,), the
label each stands for. `combiner.safetensors` is there where the learned combiner was chosen, and
`embedding/` where the embedding was tuned here or lies in a local folder; one of the hub or of a
package is referred to by its identity.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from probeline.lrsl.decision import Decision
from probeline.lrsl.reranker import Reranker

if TYPE_CHECKING:
    from probeline.data.store import Dataset
    from probeline.lrsl.embedding import Embedder, LabelVectors
    from probeline.probe.task import TaskData


def write_reranker(
    folder: str | os.PathLike,
    decision: Decision,
    vectors: LabelVectors,
    embedder: Embedder,
    embedder_spec: Mapping,
    label_texts: Sequence[Sequence[str]],
    template: str,
    dataset: Dataset,
    task: TaskData,
    model: str,
    source: str,
    provenance: Mapping,
) -> None:
    """Write the folder whole or not at all.

    Nothing in it may depend on labels of the test split: give no test score in `provenance`.

    Parameters
    ----------
    decision : Decision
    vectors : LabelVectors
    embedder : Embedder
        What made `vectors`.
    embedder_spec : mapping
        path, revision and max_length it was loaded by.
    label_texts : sequence of sequence of str
        The texts of each label.
    template : str
    dataset, task
        Name, fingerprint and labels are written down; the texts need not have been read.
    model : str
        The model's name in the configuration.
    source : str
        File name of the predictions that are reranked, without its suffix: stc, finetune-42, ...
    provenance : mapping
        What else reranker.json shall hold: validation score, seed, stage version, ...
    """
    raise NotImplementedError


def read_reranker_manifest(folder: str | os.PathLike) -> dict:
    """Read `reranker.json` of a folder.

    Raises
    ------
    ProbelineError
        If there is none, or it is of a version this library does not read.
    """
    raise NotImplementedError


def load_reranker(folder: str | os.PathLike, device: str = "auto") -> Reranker:
    """Load a reranker folder.

    Raises
    ------
    ProbelineError
        If the folder is no reranker, is damaged or of another version, or its embedding is missing,
        another one, or of another width than the labels' vectors.
    """
    raise NotImplementedError


def check_belongs(reranker: Reranker, classifier: Mapping, where: str) -> None:
    """Refuse a reranker that was not made for a classifier.

    Parameters
    ----------
    classifier : mapping
        The contents of classifier.json.
    where : str
        The reranker's folder, for errors.

    Raises
    ------
    ProbelineError
        If their labels, dataset, task, model or source differ.
    """
    raise NotImplementedError


def attach_reranker(classifier: str | os.PathLike, reranker: str | os.PathLike) -> None:
    """Copy a reranker's folder into the classifier's folder, which is then used with it.

    Raises
    ------
    ProbelineError
        If the two do not belong together.
    """
    raise NotImplementedError
