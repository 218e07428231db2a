"""A classifier folder: `classifier.json`, `head.safetensors`, and the model's body where no one
else could find it again.

head.safetensors: coefficients float32 (p, K) in scaled space, intercept (K,), mean and scale (p,),
layer and neuron int64 (p,), source int64 (p,) indexing the JSON's `sources`, a list of
[representation, pooling].
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save

import probeline
from probeline.aggregate.grid import Candidate
from probeline.aggregate.head import Head
from probeline.aggregate.neurons import Neurons
from probeline.errors import ProbelineError
from probeline.files import folder_manifest, replacing_folder, write_json
from probeline.models.reference import ModelSource, resolve
from probeline.models.weights import tokenizer_files, weight_files
from probeline.probe.matrix import Scaler
from probeline.probe.path import Step
from probeline.probe.task import TaskData
from probeline.versions import CLASSIFIER_FORMAT

MANIFEST = "classifier.json"
HEAD = "head.safetensors"
BODY = "model"
TOKENIZER = "tokenizer"


def write_classifier(
    folder: str | os.PathLike,
    head: Head,
    task: TaskData,
    model_spec: Mapping,
    shard_meta: Mapping,
    scores: Mapping,
    provenance: Mapping,
) -> None:
    """Write the folder whole or not at all.

    A hub or package model is referred to by its revision; the body of a model in a local folder is
    copied into `model/`, so that the folder can be handed on.

    Parameters
    ----------
    model_spec : mapping
        The entry of `models:`.
    shard_meta : mapping
        Attributes of a shard the head was trained on: revision, resolved dtype, max_length.
    scores : mapping
        validation, test, metric, ...
    """
    source = resolve(model_spec["path"], model_spec.get("revision"))
    pairs = list(
        zip(head.neurons.representation.tolist(), head.neurons.pooling.tolist(), strict=True)
    )
    sources = list(dict.fromkeys(pairs))
    model = {
        "kind": source.kind,
        "path": f"./{BODY}" if source.kind == "folder" else model_spec["path"],
        "revision": shard_meta["revision"],
        "tokenizer": _tokenizer_reference(source, model_spec.get("tokenizer")),
        "tokenizer_hash": shard_meta["tokenizer_hash"],
        "dtype": shard_meta["dtype"],
        "max_length": int(shard_meta["max_length"]),
        "trust_remote_code": bool(model_spec.get("trust_remote_code", False)),
    }
    manifest = {
        "format": CLASSIFIER_FORMAT,
        "probeline": probeline.__version__,
        "model": model,
        "task": task.name,
        "labels": list(task.labels),
        "multilabel": task.multilabel,
        "sources": [list(pair) for pair in sources],
        "depth": head.depth,
        "neurons": len(head.neurons),
        "eta": head.candidate.eta,
        "step": asdict(head.step),
        "scores": dict(scores),
        "provenance": dict(provenance),
    }
    with replacing_folder(folder) as temporary:
        if source.kind == "folder":
            _copy_body(source, model_spec, temporary / BODY)
        elif model["tokenizer"] == f"./{TOKENIZER}":
            _copy_tokenizer(model_spec["tokenizer"], temporary / TOKENIZER)
        arrays = {
            "coefficients": head.coefficients,
            "intercept": head.intercept,
            "mean": head.scaler.mean,
            "scale": head.scaler.scale,
            "layer": head.neurons.layer,
            "neuron": head.neurons.neuron,
            "source": np.array([sources.index(pair) for pair in pairs], np.int64),
        }
        # Not `save_file`: its files are the owner's alone to read, and folders are handed on.
        whole = {name: np.ascontiguousarray(values) for name, values in arrays.items()}
        (temporary / HEAD).write_bytes(save(whole))
        write_json(temporary / MANIFEST, manifest)


def _tokenizer_reference(source: ModelSource, tokenizer: str | None) -> str | None:
    """How the folder names the tokenizer: with the body, in a folder of its own, or elsewhere."""
    if tokenizer is None or source.kind == "folder":
        return None
    return f"./{TOKENIZER}" if resolve(tokenizer).kind == "folder" else tokenizer


def _copy_tokenizer(path: str, target: Path) -> None:
    target.mkdir()
    folder = resolve(path).folder
    for file in (*tokenizer_files(folder, path), folder / "config.json"):
        if file.is_file():
            shutil.copyfile(file, target / file.name)


def _copy_body(source: ModelSource, model_spec: Mapping, target: Path) -> None:
    target.mkdir()
    where = f"models: {model_spec['path']}"
    other = model_spec.get("tokenizer")
    tokenizer = resolve(other).folder if other else source.folder
    files = [source.folder / "config.json", *weight_files(source.folder, where)]
    files += source.folder.glob("*.index.json")
    if model_spec.get("trust_remote_code"):
        files += source.folder.glob("*.py")
    for file in {*files, *tokenizer_files(tokenizer, where)}:
        shutil.copyfile(file, target / file.name)


def read_manifest(folder: str | os.PathLike) -> dict:
    """Read `classifier.json` of a folder.

    Raises
    ------
    ProbelineError
        If there is none, or it is of a version this library does not read.
    """
    return folder_manifest(
        folder,
        MANIFEST,
        "classifier",
        CLASSIFIER_FORMAT,
        "results/classifiers/DATASET/TASK/MODEL",
        "train it",
    )


def read_head(folder: str | os.PathLike) -> tuple[Head, dict]:
    """Read a classifier's head and manifest; see `read_manifest` for what is raised."""
    manifest = read_manifest(folder)
    path = Path(folder) / HEAD
    try:
        arrays = load_file(path)
    except Exception as error:  # beside its own kind, one for each type NumPy has not
        raise ProbelineError(f"{path}: not a complete safetensors file: {error}") from None
    try:
        return _head(arrays, manifest), manifest
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ProbelineError(
            f"{folder}: {HEAD} and {MANIFEST} are damaged or do not belong together "
            f"({type(error).__name__}: {error}); copy the folder again"
        ) from None


_MODEL = {
    "kind": str,
    "path": str,
    "revision": str,
    "tokenizer": str | None,
    "tokenizer_hash": str,
    "dtype": str,
    "max_length": int,
    "trust_remote_code": bool,
}
_PLAIN = {"model": dict, "task": str, "labels": list, "multilabel": bool, "provenance": dict}
_PLAIN |= {"depth": int, "eta": float | int, "step": dict, "sources": list}
_STEP = {"class_weight": str | None, "converged": bool}


def _check_manifest(manifest: Mapping) -> None:
    for holder, kinds in ((manifest, _PLAIN), (manifest["model"], _MODEL)):
        for key, kind in kinds.items():
            if not isinstance(holder[key], kind) or (kind is int and holder[key] is True):
                raise TypeError(f"'{key}' is {type(holder[key]).__name__}")
    labels = manifest["labels"]
    if len(labels) < 2 or not all(isinstance(label, str) for label in labels):
        raise ValueError("'labels' are not two texts or more")
    for key, value in manifest["step"].items():
        if not isinstance(value, _STEP.get(key, float | int)):
            raise TypeError(f"step: '{key}' is {type(value).__name__}")


def _head(arrays: Mapping[str, np.ndarray], manifest: Mapping) -> Head:
    _check_manifest(manifest)
    sources = np.array(manifest["sources"], dtype=str).reshape(-1, 2)[arrays["source"]]
    p = len(arrays["neuron"])
    for name, values in arrays.items():
        whole = name in ("source", "layer", "neuron")
        if values.dtype != (np.int64 if whole else np.float32) or not np.isfinite(values).all():
            raise ValueError(f"'{name}' holds {values.dtype} or numbers that are not finite")
        if name not in ("coefficients", "intercept") and values.shape != (p,):
            raise ValueError(f"'{name}' is of shape {values.shape}, expected {(p,)}")
    if p and arrays["source"].min() < 0:
        raise ValueError("'source' is below 0")
    neurons = Neurons(
        sources[:, 0], sources[:, 1], arrays["layer"], arrays["neuron"], np.zeros(p, np.int64)
    )
    binary = len(manifest["labels"]) == 2 and not manifest["multilabel"]
    expected = (p, 1 if binary else len(manifest["labels"]))
    if arrays["coefficients"].shape != expected or arrays["intercept"].shape != expected[1:]:
        raise ValueError(f"weights of shape {arrays['coefficients'].shape}, expected {expected}")
    return Head(
        neurons,
        Scaler(arrays["mean"], arrays["scale"], np.ones(p, bool)),
        arrays["coefficients"],
        arrays["intercept"],
        Candidate(manifest["eta"], manifest["depth"], p, Step(**manifest["step"])),
    )
