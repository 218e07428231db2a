"""A reranker folder: `reranker.json`, `labels.safetensors` and what the embedding needs.

labels.safetensors: vectors float32 (m, d) of the labels' texts, of length 1; owner int64 (m,), the
label each stands for. `combiner.safetensors` is there where the learned combiner was chosen, and
`embedding/` where the embedding was tuned here or lies in a local folder; one of the hub or of a
package is referred to by its identity.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import load_file, save

import probeline
from probeline.errors import ProbelineError
from probeline.files import folder_manifest, replacing_folder, write_json
from probeline.lrsl.combiner import Combiner
from probeline.lrsl.decision import Decision
from probeline.lrsl.hardness import MEASURES
from probeline.lrsl.label_vectors import LabelVectors
from probeline.lrsl.reranker import Reranker
from probeline.models.weights import inside
from probeline.versions import RERANKER_FORMAT

if TYPE_CHECKING:
    from probeline.data.store import Dataset
    from probeline.lrsl.embedding import Embedder
    from probeline.probe.task import TaskData

MANIFEST = "reranker.json"
LABELS = "labels.safetensors"
COMBINER = "combiner.safetensors"
EMBEDDING = "embedding"
# In a classifier's folder, which is then used with it.
CARRIED = "reranker"
# Other forms of the same weights, and what version control keeps.
_NOT_COPIED = shutil.ignore_patterns(".*", "onnx", "openvino", "checkpoint-*", "runs")


def write_reranker(
    folder: str | os.PathLike,
    decision: Decision,
    vectors: LabelVectors,
    embedder: Embedder,
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
        What made `vectors`. A folder's files are copied into `embedding/`.
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
    manifest = {
        "format": RERANKER_FORMAT,
        "probeline": probeline.__version__,
        "dataset": dataset.name,
        "dataset_fingerprint": dataset.fingerprint,
        "pair": dataset.pair,
        "task": task.name,
        "labels": list(task.labels),
        "multilabel": task.multilabel,
        "model": model,
        "source": source,
        "decision": decision.plain(),
        "label_similarity": vectors.how,
        "label_texts": dict(zip(task.labels, map(list, label_texts), strict=True)),
        "template": template,
        "embedder": _reference(embedder),
        "provenance": dict(provenance),
    }
    with replacing_folder(folder) as temporary:
        if embedder.source.kind == "folder":
            shutil.copytree(embedder.source.folder, temporary / EMBEDDING, ignore=_NOT_COPIED)
        _save(temporary / LABELS, {"vectors": vectors.vectors, "owner": vectors.owner})
        if decision.reranking.combiner is not None:
            _save(temporary / COMBINER, decision.reranking.combiner.arrays())
        write_json(temporary / MANIFEST, manifest)


def read_reranker_manifest(folder: str | os.PathLike) -> dict:
    """Read `reranker.json` of a folder.

    Raises
    ------
    ProbelineError
        If there is none, or it is of a version this library does not read.
    """
    return folder_manifest(
        folder,
        MANIFEST,
        "reranker",
        RERANKER_FORMAT,
        "results/lrsl/DATASET/TASK/MODEL/SOURCE/reranker/SEED",
        "make it",
    )


def load_reranker(folder: str | os.PathLike, device: str = "auto") -> Reranker:
    """Load a reranker folder.

    Parameters
    ----------
    folder : path
    device : 'auto', 'cpu', 'cuda' or 'mps'

    Raises
    ------
    ProbelineError
        If the folder is no reranker, is damaged or of another version, or its embedding is missing,
        another one, or of another width than the labels' vectors.
    """
    manifest = read_reranker_manifest(folder)
    try:
        _check_manifest(manifest)
        decision = _decision(Path(folder), manifest)
        vectors = _vectors(Path(folder), manifest)
        reference = dict(manifest["embedder"])
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise ProbelineError(
            f"{folder}: its files are damaged or do not belong together "
            f"({type(error).__name__}: {error}); copy the folder again"
        ) from None
    embedder = None if decision.idle else _embedder(Path(folder), reference, vectors, device)
    return Reranker(decision, vectors, embedder, manifest)


_NUMBER = float | int
_DECISION = {"k": int, "threshold": _NUMBER | None, "everything": bool, "offset": _NUMBER}
_DECISION |= {"multilabel": bool, "temperature": _NUMBER, "form": dict}
_DECISION |= {"taken_off": list | None}
_FORM = {"name": str, "power": _NUMBER, "weight": _NUMBER, "candidates": int | None}
_EMBEDDER = {"kind": str, "path": str, "revision": str | None, "max_length": int | None}
_EMBEDDER |= {"identity": str, "width": int}


def _check_manifest(manifest: Mapping) -> None:
    decision = manifest["decision"]
    for holder, kinds in (
        (decision, _DECISION),
        (decision["form"], _FORM),
        (manifest["embedder"], _EMBEDDER),
    ):
        for key, kind in kinds.items():
            # True is a number to Python.
            if not isinstance(holder[key], kind) or (kind is not bool and holder[key] is True):
                raise TypeError(f"'{key}' is {type(holder[key]).__name__}")
    if decision["measure"] not in MEASURES or decision["k"] < 1 or decision["temperature"] <= 0:
        raise ValueError("how hard a text is cannot be measured so")
    if decision["taken_off"] is not None:
        off = np.asarray(decision["taken_off"])
        if off.dtype.kind not in "if" or off.shape != (len(manifest["labels"]),):
            raise ValueError("'taken_off' is not a number for each label")
        if not np.isfinite(off).all():
            raise ValueError("'taken_off' is not finite")


def check_belongs(folder: str | os.PathLike, reranker: Mapping, classifier: Mapping) -> None:
    """Refuse a reranker that was not made for a classifier.

    Parameters
    ----------
    folder : path
        The reranker's, for errors.
    reranker : mapping
        The contents of reranker.json.
    classifier : mapping
        What the classifier's folder says; see `probeline.classifier.identity.identity`.

    Raises
    ------
    ProbelineError
        If their dataset, task, labels, model or source differ.
    """
    for key, expected in classifier.items():
        found = reranker.get(key)
        if found not in (expected if isinstance(expected, tuple) else (expected,)):
            raise ProbelineError(
                f"{folder}: made for another classifier: its {key.replace('_', ' ')} is "
                f"{_short(found)}, the classifier's is {_short(expected)}; give the reranker of "
                "this classifier"
            )


def attach_reranker(classifier: str | os.PathLike, reranker: str | os.PathLike) -> None:
    """Copy a reranker's folder into the classifier's folder, which is then used with it.

    Parameters
    ----------
    classifier : path
        A sparse classifier, or a fine-tuned model, its labels tokens or not.
    reranker : path

    Raises
    ------
    ProbelineError
        If the two do not belong together.
    """
    from probeline.classifier.identity import identity

    check_belongs(reranker, read_reranker_manifest(reranker), identity(classifier))
    with replacing_folder(Path(classifier) / CARRIED) as temporary:
        shutil.copytree(reranker, temporary, dirs_exist_ok=True)


def _reference(embedder: Embedder) -> dict:
    """How the embedder is found again."""
    source = embedder.source
    return {
        "kind": source.kind,
        "path": f"./{EMBEDDING}" if source.kind == "folder" else source.name,
        "revision": source.commit,
        "max_length": embedder.max_length,
        "identity": embedder.identity,
        "width": embedder.width,
    }


def _save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    # Not `save_file`: its files are the owner's alone to read, and folders are handed on.
    path.write_bytes(save({name: np.ascontiguousarray(a) for name, a in arrays.items()}))


def _load(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise ProbelineError(f"{path}: no such file; copy the folder again")
    try:
        return load_file(path)
    except Exception as error:  # beside its own kind, one for each type NumPy has not
        raise ProbelineError(f"{path}: not a complete safetensors file: {error}") from None


def _decision(folder: Path, manifest: Mapping) -> Decision:
    plain, combiner = manifest["decision"], None
    if plain["combiner"] is not None:
        combiner = Combiner.of(_load(folder / COMBINER), plain["combiner"])
    return Decision.of(plain, combiner)


def _vectors(folder: Path, manifest: Mapping) -> LabelVectors:
    arrays = _load(folder / LABELS)
    if arrays["owner"].dtype != np.int64 or not np.isfinite(arrays["vectors"]).all():
        raise ValueError("owners that are not whole numbers, or vectors that are not finite")
    vectors = LabelVectors(arrays["vectors"], arrays["owner"], manifest["label_similarity"])
    if vectors.labels != len(manifest["labels"]):
        raise ValueError(f"{vectors.labels} label vectors, {len(manifest['labels'])} labels")
    return vectors


def _embedder(folder: Path, reference: Mapping, vectors: LabelVectors, device: str) -> Embedder:
    from probeline.lrsl.embedding import load_embedder

    path = reference["path"]
    # What lies in the folder itself; a hub id or package never starts with a dot.
    spec = {
        "path": str(inside(folder.resolve(), path)) if path.startswith("./") else path,
        "revision": reference["revision"],
        "max_length": reference["max_length"],
        "device": device,
    }
    try:
        embedder = load_embedder(spec)
    except ProbelineError as error:
        raise ProbelineError(f"{folder}: its embedding: {error}") from None
    if embedder.width != vectors.vectors.shape[1]:
        raise ProbelineError(
            f"{folder}: its embedding {path} has width {embedder.width}, its label vectors have "
            f"{vectors.vectors.shape[1]}; install the embedding it was made with or make it again"
        )
    if embedder.identity != reference["identity"]:
        raise ProbelineError(
            f"{folder}: was made with embedding {path} of identity {reference['identity']}, but "
            f"{embedder.identity} is there; install that one or make the reranker again"
        )
    return embedder


def _short(value: object) -> str:
    if isinstance(value, tuple):
        return " or ".join(map(_short, value))
    if isinstance(value, list):
        few = ", ".join(map(str, value[:3]))
        return f"{len(value)} names ({few}{', ...' if len(value) > 3 else ''})"
    return f"'{value}'" if isinstance(value, str) else str(value)
