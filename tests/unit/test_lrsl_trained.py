"""Fine-tuned classifiers and those with labels as tokens, each with a reranker of its own."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from finetuning import run, write_multilabel, write_toy
from scipy.special import expit, softmax
from test_cli import answers, call
from test_lrsl_stages import FILES, LRSL
from tiny_embedders import write_embedder
from tiny_models import build

import probeline
from probeline.classifier.identity import identity
from probeline.data.store import Dataset, read_dataset
from probeline.errors import ProbelineError
from probeline.finetune.kind import REGULAR, Counterpart
from probeline.label_tokens.kind import read_kind
from probeline.lrsl.folder import attach_reranker, read_reranker_manifest
from probeline.lrsl.stage_rerank import rerank_predictions
from probeline.results.predictions import read_predictions

SEED = 7
# Reranks many texts whatever validation says of it, and not all of them.
ALWAYS = {"fixed": True, "forms": ["prob"], "powers": [30.0], "threshold": 0.9}
SEVERAL = "thresholds of several labels"
ISOLATED = {"initialization": "cls", "isolated": True, "shared_positions": True}
KINDS = {
    "finetune": REGULAR,
    "regular": Counterpart(),
    "label-tokens-mix": read_kind({}),
    "label-tokens-cls-isolated": read_kind({**ISOLATED, "labels_attend": False}),
    SEVERAL: Counterpart("per-label"),
}


@dataclass(frozen=True)
class Made:
    """A trained classifier, its reranker, and what both predicted."""

    data: Path
    model: Path
    source: str

    @property
    def dataset(self) -> Dataset:
        return read_dataset(self.data)

    @property
    def reranker(self) -> Path:
        return self.model.parent / "reranker"

    def logits(self, name: str) -> np.ndarray:
        """Those of validation and test that are stored: before (predictions), or reranked."""
        return read_predictions(self.model.parent / f"{name}.h5").logits[self.later]

    @property
    def later(self) -> slice:
        return slice(self.dataset.offsets["validation"][0], None)

    @property
    def texts(self) -> list[str]:
        return self.dataset.texts[self.later]


def rerank(made: Made, embedder: str) -> None:
    folder = made.model.parent
    outputs = {name: str(folder / f"{name}.out") for name in FILES}
    outputs |= {"folder": str(made.reranker), "predictions": str(folder / "reranked.h5")}
    names = {"task": "label", "model": "tiny", "source": made.source, "seed": "3"}
    settings = {"options": LRSL | ALWAYS, "label_texts": {}, "template": "about {label}"}
    rerank_predictions(
        made.data,
        names,
        folder / "predictions.h5",
        {"path": embedder},
        None,
        outputs,
        settings | {"metric": None},
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A classifier of the kind that is asked for; each is trained once."""
    embedder = str(write_embedder(tmp_path_factory.mktemp("embedder")))
    bert = build("bert", tmp_path_factory.mktemp("bert"))
    single = write_toy(tmp_path_factory.mktemp("single"), classes=3)
    several = write_multilabel(tmp_path_factory.mktemp("several"), train=64)
    known: dict[str, Made] = {}

    def make(kind: str) -> Made:
        if kind not in known:
            data = several if kind == SEVERAL else single
            folder = tmp_path_factory.mktemp("made")
            model = run(data, bert, folder, SEED, kind=KINDS[kind], epochs=1)
            name = "regular" if kind == SEVERAL else kind
            known[kind] = Made(data, model, f"{name}-{SEED}")
            rerank(known[kind], embedder)
        return known[kind]

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_it_answers_as_the_stored_reranked_predictions_say(made, kind):
    own = made(kind)
    loaded = probeline.load(own.model, "cpu", own.reranker)
    before, after = own.logits("predictions"), own.logits("reranked")
    hard = loaded.reranker.decision.selects(before)
    assert 3 < hard.sum() < len(hard) - 3
    assert not np.allclose(before[hard], after[hard], atol=1e-2)
    np.testing.assert_allclose(loaded.logits(own.texts), after, atol=1e-4)
    temperature = read_reranker_manifest(own.reranker)["decision"]["temperature"]
    whole = after
    if loaded.multilabel:
        whole = after + json.loads((own.model / "training.json").read_text())["found"]["threshold"]
    scores = (expit if loaded.multilabel else lambda z: softmax(z, axis=1))(whole / temperature)
    np.testing.assert_allclose(loaded.scores(own.texts), scores, atol=1e-4)
    found = loaded.predict(own.texts)
    assert [answer["reranked"] for answer in found] == hard.tolist()
    labels = np.array(loaded.labels)
    for answer, row in zip(found, after, strict=True):
        if np.abs(np.sort(row)[-1] - np.sort(row)[-2]) < 1e-3 or np.abs(row).min() < 1e-3:
            continue  # rounding decides
        if loaded.multilabel:
            assert answer["labels"] == labels[row > 0].tolist()
        else:
            assert answer["label"] == labels[row.argmax()]


@pytest.mark.parametrize("kind", ["finetune", "label-tokens-mix"])
def test_a_folder_carries_it(made, kind, tmp_path):
    own = made(kind)
    carrying = Path(shutil.copytree(own.model, tmp_path / "mine"))
    attach_reranker(carrying, own.reranker)
    command = ("predict", "--device", "cpu", "--classifier")
    given = answers(call(*command, own.model, "--rerank", own.reranker, *own.texts))
    assert answers(call(*command, carrying, *own.texts)) == given
    plain = answers(call(*command, own.model, *own.texts))
    assert "reranked" not in plain[0]
    assert answers(call(*command, carrying, "--no-rerank", *own.texts)) == plain
    assert sum(answer["reranked"] for answer in given) > 3
    assert probeline.load(carrying, "cpu", rerank=False).reranker is None


def refused(call, *args) -> str:
    with pytest.raises(ProbelineError) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_reranker_of_another_method_with_the_same_seed(made, tmp_path):
    """Dataset, task, labels and model are the same."""
    kinds = [kind for kind in KINDS if kind != SEVERAL]
    for kind in kinds:
        own = made(kind)
        assert identity(own.model)["source"] == (own.source,)
        for other in kinds:
            if other != kind:
                message = refused(probeline.load, own.model, "cpu", made(other).reranker)
                found = f"its source is '{made(other).source}', the classifier's is '{own.source}'"
                assert f"made for another classifier: {found}" in message
                assert str(made(other).reranker) in message
    carrying = Path(shutil.copytree(made("regular").model, tmp_path / "mine"))
    other = made("finetune").reranker
    assert "made for another classifier" in refused(attach_reranker, carrying, other)
    assert not (carrying / "reranker").exists()
    shutil.copytree(other, carrying / "reranker")
    assert "made for another classifier" in refused(probeline.load, carrying, "cpu")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dataset", "other"),
        ("dataset_fingerprint", "123"),
        ("task", "level2"),
        ("labels", ["label 2", "label 1", "label 0"]),
        ("multilabel", True),
        ("model", "other"),
        ("source", "stc"),
        ("source", f"finetune-{SEED + 1}"),
    ],
)
def test_a_reranker_of_another_classifier(made, tmp_path, key, value):
    own = made("finetune")
    other = Path(shutil.copytree(own.reranker, tmp_path / "other"))
    manifest = json.loads((other / "reranker.json").read_text()) | {key: value}
    (other / "reranker.json").write_text(json.dumps(manifest))
    message = refused(probeline.load, own.model, "cpu", other)
    assert f"{other}: made for another classifier: its {key.replace('_', ' ')} is" in message


def test_folders_of_earlier_versions_do_not_say_their_method(made, tmp_path):
    own = made("regular")
    older = Path(shutil.copytree(own.model, tmp_path / "older"))
    training = json.loads((older / "training.json").read_text())
    del training["method"]
    (older / "training.json").write_text(json.dumps(training))
    for kind in ("finetune", "regular"):
        assert probeline.load(older, "cpu", made(kind).reranker).reranker is not None
    message = refused(probeline.load, older, "cpu", made("label-tokens-mix").reranker)
    assert f"the classifier's is 'finetune-{SEED}' or 'regular-{SEED}'" in message
