"""Load a classifier folder and classify texts, computing only the blocks it needs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from probeline.activations.features import pooled_features
from probeline.classifier.answers import answers, check_texts
from probeline.classifier.folder import MANIFEST, read_head
from probeline.classifier.trained import TrainedClassifier
from probeline.classifier.trust import check_trust
from probeline.errors import ProbelineError
from probeline.finetune.output import TRAINING
from probeline.label_tokens.shortlist import FIRST_STAGE
from probeline.lrsl.folder import CARRIED, check_belongs, load_reranker, read_reranker_manifest
from probeline.lrsl.reranker import Reranker
from probeline.models.load import load_model
from probeline.models.weights import inside
from probeline.probe.losses import sigmoid, softmax
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
    if _is_trained(folder):
        if not isinstance(rerank, bool):
            raise ProbelineError(
                f"{folder}: is a fine-tuned model, and rerankers go with folders like "
                "results/classifiers/DATASET/TASK/MODEL; leave the reranker out"
            )
        first = Path(folder) / FIRST_STAGE
        ranking = Classifier(first, device, False, trust_remote_code) if first.is_dir() else None
        return TrainedClassifier(folder, device, ranking, trust_remote_code)
    return Classifier(folder, device, rerank, trust_remote_code)


def _is_trained(folder: str | os.PathLike) -> bool:
    return not (Path(folder) / MANIFEST).is_file() and (Path(folder) / TRAINING).is_file()


class Classifier:
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
        self._head, self.manifest = read_head(folder)
        self.reranker = _reranker(folder, self.manifest, rerank, device)
        self.labels: list[str] = self.manifest["labels"]
        self.multilabel: bool = self.manifest["multilabel"]
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

    def logits(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> np.ndarray:
        """Logits, float32 (texts, labels); a multi-label threshold is already taken off.

        Those of hard texts are reranked, where there is a reranker.

        Parameters
        ----------
        texts : sequence of str
        pairs : sequence of str, optional
            The second texts, for a classifier of text pairs.
        """
        return self._decided(texts, pairs)[0]

    def _decided(
        self, texts: Sequence[str], pairs: Sequence[str] | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The logits, and bool (texts,): which of them are reranked."""
        texts, pairs = list(texts), None if pairs is None else list(pairs)
        check_texts(texts, pairs, bool(self.manifest["provenance"].get("pair")))
        activations = pooled_features(self._model, texts, pairs, self._wanted)
        logits = self._head.logits(activations[:, self._order])
        if not self.multilabel:
            logits = two_columns(logits)
        if self.reranker is None:
            return logits, np.zeros(len(logits), dtype=bool)
        reranked = self.reranker.decision.selects(logits)
        return self.reranker.rerank(texts, pairs, logits, reranked), reranked

    def scores(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> np.ndarray:
        """Probabilities, float32 (texts, labels): softmax, or a sigmoid per label.

        Of several labels those above one and the same probability are predicted, of reranked texts
        and others alike.
        """
        return self._probabilities(self._decided(texts, pairs)[0])

    def _probabilities(self, logits: np.ndarray) -> np.ndarray:
        if self.multilabel:
            logits = logits + np.float32(self._head.step.threshold)
        if self.reranker is not None:
            logits = logits / np.float32(self.reranker.decision.reranking.temperature)
        return sigmoid(logits) if self.multilabel else softmax(logits)

    def predict(
        self, texts: str | Sequence[str], pairs: str | Sequence[str] | None = None
    ) -> list[dict]:
        """Classify texts.

        Returns
        -------
        list of dict
            One per text: ``label`` (str) or, for multi-label, ``labels`` (list of str);
            ``scores`` {label: probability}; with a reranker ``reranked`` (bool).
        """
        if isinstance(texts, str):
            texts, pairs = [texts], None if pairs is None else [pairs]
        return list(self._answers(*self._decided(texts, pairs)))

    def _answers(self, logits: np.ndarray, reranked: np.ndarray) -> Iterator[dict]:
        found = answers(self.labels, self.multilabel, logits, self._probabilities(logits))
        for answer, hard in zip(found, reranked.tolist(), strict=True):
            yield answer if self.reranker is None else answer | {"reranked": hard}


def _reranker(
    folder: str | os.PathLike, manifest: dict, rerank: str | os.PathLike | bool, device: str
) -> Reranker | None:
    if rerank is False:
        return None
    if rerank is True:
        rerank = Path(folder) / CARRIED
        if not rerank.is_dir():
            return None
    check_belongs(rerank, read_reranker_manifest(rerank), manifest)
    return load_reranker(rerank, device)
