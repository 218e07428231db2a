"""Are artifacts about the texts and the model that are here now?"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from probeline import hdf5
from probeline.activations.shards import FORMAT, INDEX, PART
from probeline.errors import ProbelineError
from probeline.files import read_json
from probeline.models.reference import resolve
from probeline.models.weights import files_hash, weight_files
from probeline.sealed import reading

_MANIFESTS = ("classifier.json", "reranker.json")


class Origins:
    """Compares artifacts of one folder with the datasets and models they name.

    Parameters
    ----------
    folder : Path
        Where `results/` lies.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        # Both are asked for by every shard.
        self._fingerprint, self._weights = cache(self._fingerprint), cache(self._weights)

    def other(self, path: Path) -> str | None:
        """Of what else an artifact is than it should be; None if of nothing else."""
        about = _about(path)
        dataset, fingerprint = about.get("dataset"), about.get("dataset_fingerprint")
        known = self._fingerprint(dataset) if isinstance(dataset, str) and fingerprint else None
        if known not in (None, fingerprint):
            return f"about other texts than dataset '{dataset}' has now"
        model, revision = about.get("model"), str(about.get("revision"))
        # Others name a model as the configuration does.
        shard = about.get("format") in (FORMAT, PART, INDEX) and isinstance(model, str)
        if (
            shard
            and revision.startswith("sha256:")
            and self._weights(model) not in (None, revision)
        ):
            return f"made by other weights than {model} has now"
        return None

    def _fingerprint(self, dataset: str) -> str | None:
        try:
            path = self._folder / "results" / "datasets" / dataset / "texts.json"
            return read_json(path).get("fingerprint")
        except (ProbelineError, AttributeError):
            return None

    def _weights(self, model: str) -> str | None:
        """As `LoadedModel.revision`; None if the model is not here."""
        own = self._folder / model
        path = os.fspath(own) if not model.startswith("package:") and own.is_dir() else model
        try:
            source = resolve(path)
            if source.folder is None or source.commit:
                return None
            return f"sha256:{files_hash(weight_files(source.folder, path))}"
        except (ProbelineError, OSError):
            return None


def _about(path: Path) -> dict:
    """What an artifact says of itself; nothing if it says nothing, or cannot be read."""
    try:
        if path.suffix == ".h5":
            with reading(path, "a readable file") as file:
                return hdf5.attributes(file)
        if path.name in _MANIFESTS:
            manifest = read_json(path)
            return manifest | (manifest.get("provenance") or {})
    except (ProbelineError, AttributeError):
        pass
    return {}
