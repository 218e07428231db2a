"""Load a classifier folder and classify texts, computing only the blocks it needs."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from probeline.activations.features import pooled_features
from probeline.classifier.folder import read_head
from probeline.classifier.identity import identity, is_trained
from probeline.classifier.loaded import LoadedClassifier
from probeline.classifier.trained import TrainedClassifier
from probeline.classifier.trust import check_trust
from probeline.errors import ProbelineError
from probeline.label_tokens.shortlist import FIRST_STAGE
from probeline.lrsl.folder import CARRIED, check_belongs, load_reranker, read_reranker_manifest
from probeline.lrsl.reranker import Reranker
from probeline.models.load import load_model
from probeline.models.weights import inside
from probeline.results.predictions import two_columns


def load(
    folder: str | os.PathLike,
    device: str = "auto",
    rerank: str | os.PathLike | bool = True,
    trust_remote_code: bool = False,
) -> Classifier | TrainedClassifier:
    """Load a classifier folder written by the workflow, or that of a fine-tuned model.

    Parameters
    ----------
    folder : path
    device : 'auto', 'cpu', 'cuda' or 'mps'
    rerank : path or bool
        A reranker folder to use with it. True: the one in the classifier's folder, if there is
        one; False: none.
    trust_remote_code : bool
        Whether a model with Python code of its own may run it. Set it only for folders of people
        whose programs you would run.

    Raises
    ------
    ProbelineError
        If the folder is no classifier, or the model it refers to is missing or another revision;
        if its model has code of its own, which is not trusted; if the reranker is none, or was
        made for another classifier.
    """
    if not is_trained(folder):
        return Classifier(folder, device, rerank, trust_remote_code)
    reranker = _reranker(folder, rerank, device)
    first = Path(folder) / FIRST_STAGE
    ranking = Classifier(first, device, False, trust_remote_code) if first.is_dir() else None
    return TrainedClassifier(folder, device, ranking, trust_remote_code, reranker)


class Classifier(LoadedClassifier):
    """A sparse linear classifier over neurons of a frozen transformer.

    Attributes
    ----------
    labels : list of str
    multilabel : bool
    depth : int
        Blocks that are computed.
    manifest : dict
        The contents of classifier.json.
    reranker : Reranker or None
        What decides hard texts anew.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        device: str = "auto",
        rerank: str | os.PathLike | bool = True,
        trust_remote_code: bool = False,
    ):
        self._head, manifest = read_head(folder)
        super().__init__(
            manifest["labels"],
            manifest["multilabel"],
            bool(manifest["provenance"].get("pair")),
            self._head.step.threshold,
            manifest,
            _reranker(folder, rerank, device),
        )
        self.depth: int = self._head.depth
        model = dict(self.manifest["model"])
        if model["trust_remote_code"]:
            check_trust(folder, model["path"], trust_remote_code)
        for key in ("path", "tokenizer"):
            # What lies in the folder itself; a hub id or package never starts with a dot.
            if (model[key] or "").startswith("./"):
                model[key] = str(inside(Path(folder).resolve(), model[key]))
        spec = model | {
            "device": device,
            "revision": model["revision"] if model["kind"] == "hub" else None,
        }
        decoder = any(name.startswith("decoder-") for name in self._head.neurons.representation)
        self._model = load_model(spec, decoder=decoder)
        self._check_revision(folder)
        groups = self._head.neurons.groups()
        self._wanted = [(r, layer, p, self._head.neurons.neuron[i]) for r, p, layer, i in groups]
        self._order = np.argsort(np.concatenate([i for *_, i in groups] or [[]])).astype(np.int64)

    def _check_revision(self, folder) -> None:
        wanted = self.manifest["model"]["revision"]
        if self._model.revision != wanted:
            raise ProbelineError(
                f"{folder}: was trained on {self.manifest['model']['path']} at revision {wanted}, "
                f"but {self._model.revision} is installed; install that one or train again"
            )
        if self._model.tokenizer_hash != self.manifest["model"]["tokenizer_hash"]:
            raise ProbelineError(
                f"{folder}: the tokenizer's files are not those it was trained with; install the "
                "tokenizer of that time or train again"
            )

    def _own_logits(self, texts: list[str], pairs: list[str] | None) -> np.ndarray:
        activations = pooled_features(self._model, texts, pairs, self._wanted)
        logits = self._head.logits(activations[:, self._order])
        return logits if self.multilabel else two_columns(logits)


def _reranker(
    folder: str | os.PathLike, rerank: str | os.PathLike | bool, device: str
) -> Reranker | None:
    """The reranker that is asked for, or that the classifier's folder carries, if any."""
    if rerank is False:
        return None
    if rerank is True:
        rerank = Path(folder) / CARRIED
        if not rerank.is_dir():
            return None
    check_belongs(rerank, read_reranker_manifest(rerank), identity(folder))
    return load_reranker(rerank, device)
