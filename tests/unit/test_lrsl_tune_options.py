"""What the options of tuning say is what it does: each step against formulas."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from finetuning import write_toy
from sentence_transformers import SentenceTransformer
from stepping import Recorder, check_adamw, clipped, norm, rate
from tiny_embedders import write_embedder
from tuning import texts_of, toy_triplets

from probeline.data.store import read_dataset
from probeline.finetune.batches import EpochBatches
from probeline.finetune.checkpoints import Checkpoints
from probeline.finetune.resumable import train_to_end
from probeline.lrsl.embedding import load_embedder
from probeline.lrsl.tune import train_rows
from probeline.lrsl.tune_options import read_tune_options
from probeline.lrsl.tune_trainer import TuneJob, Tuner, Validation

# 22 triplets are 6 steps an epoch, the last of two triplets.
SECTION = {"epochs": 2, "batch_size": 4, "learning_rate": 2e-3, "warmup": 0.25}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_toy(tmp_path_factory.mktemp("data"), classes=3)


@pytest.fixture(scope="module")
def still(tmp_path_factory):
    """An embedder without dropout, so that gradients can be computed again."""
    folder = tmp_path_factory.mktemp("embedder")
    model = SentenceTransformer(str(write_embedder(folder)), device="cpu")
    config = model.transformers_model.config
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    model.save_pretrained(str(folder / "still"), create_model_card=False)
    return folder / "still"


@pytest.fixture(scope="module")
def tuned(data, still, tmp_path_factory):
    """Tune by a section; the job, and what each step did."""

    def run(**section) -> tuple[TuneJob, Recorder]:
        options, dataset = read_tune_options(SECTION | section), read_dataset(data)
        embedder = load_embedder({"path": str(still), "device": "cpu"})
        labels, y = dataset.tasks["label"]["labels"], dataset.labels("label")
        rows = train_rows(toy_triplets(data, 22), y, labels, "{label}")
        texts = list(texts_of(labels).values())
        first = slice(*dataset.offsets["validation"])
        validation = Validation(
            dataset.texts[first], np.eye(3, dtype=bool)[y[first]], texts, np.arange(3), 20.0
        )
        job = TuneJob("toy", embedder, rows, validation, options, "no", 1)
        checkpoints = Checkpoints(tmp_path_factory.mktemp("state") / "state", {})
        recorder = Recorder()

        def trainer(record) -> Tuner:
            made = Tuner(job, checkpoints, record)
            made.add_callback(recorder)
            return made

        train_to_end(job, checkpoints, trainer, embedder.model)
        return job, recorder

    return run


@pytest.mark.parametrize("warmup", [0.0, 0.25, 0.3])
def test_the_learning_rate_of_each_step(tuned, warmup):
    job, recorder = tuned(warmup=warmup)
    assert len(recorder.steps) == job.steps == 12
    warm = math.ceil(12 * warmup)
    expected = [rate("linear", step, 12, warm, 2e-3) for step in range(12)]
    assert [step.rate for step in recorder.steps] == pytest.approx(expected, rel=1e-9)


def test_weights_move_by_adam_without_decay(tuned):
    _, recorder = tuned()
    check_adamw(recorder.steps, lambda name: False, 0.0)


def naive_loss(job: TuneJob, model, rows: list[int]) -> torch.Tensor:
    """The loss that the options name, a triplet and a cosine at a time."""
    options = job.options

    def embedded(text: str) -> torch.Tensor:
        return model(model.preprocess([text]))["sentence_embedding"][0]

    def cosine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a @ b / a.norm() / b.norm()

    triplets = [job.train[row] for row in rows]
    anchors, positives, negatives = (
        [embedded(one[key]) for one in triplets] for key in ("anchor", "positive", "negative")
    )
    losses = []
    for row, one in enumerate(triplets):
        own = cosine(anchors[row], positives[row])
        if options.loss == "triplet":
            other = cosine(anchors[row], negatives[row])
            losses.append(torch.relu((1 - own) - (1 - other) + options.margin))
            continue
        true = set(one["label"][2:])
        scores = [own]
        for number, theirs in enumerate(triplets):
            positive, negative, *_ = theirs["label"]
            if number != row and positive not in true:
                scores.append(cosine(anchors[row], positives[number]))
            if negative not in true:
                scores.append(cosine(anchors[row], negatives[number]))
        scores = options.scale * torch.stack(scores)
        losses.append(scores.logsumexp(0) - scores[0])
    return torch.stack(losses).mean()


@pytest.mark.parametrize(
    "section",
    [
        {"loss": "mnrl"},
        {"loss": "mnrl", "scale": 7.0},
        {"loss": "cached-mnrl", "scale": 7.0, "mini_batch": 3},
        # So small that some triplets keep it already.
        {"loss": "triplet", "margin": 0.05},
    ],
)
def test_the_gradient_of_each_step(tuned, section):
    """That of the mean over the triplets of the step, clipped at a norm of 1."""
    job, recorder = tuned(epochs=1, **section)
    batches = EpochBatches(np.zeros(len(job.train), np.int64), 4, False, job.seed)
    clips = []
    for rows, step in zip(batches, recorder.steps, strict=True):
        model = copy.deepcopy(job.embedder.model).double().train()
        weights = {name.removeprefix("model."): one for name, one in step.before.items()}
        assert model.load_state_dict(weights, strict=False).unexpected_keys == []
        naive_loss(job, model, rows).backward()
        whole = {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
        clips.append(norm(whole) > 1)
        expected = clipped(whole, 1.0)
        for name, found in step.gradients.items():
            own = expected[name.removeprefix("model.")]
            torch.testing.assert_close(found.double(), own, rtol=1e-3, atol=1e-5)
    assert any(clips)
