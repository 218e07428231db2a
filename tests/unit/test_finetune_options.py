"""What options say is what the training does: each step against formulas and plain gradients."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from finetuning import write_multilabel, write_toy
from sklearn.utils.class_weight import compute_class_weight
from stepping import Recorder, check_adamw, clipped, norm, rate
from tiny_models import build
from torch.nn import functional

from probeline.data.store import read_dataset
from probeline.finetune.batches import EpochBatches
from probeline.finetune.checkpoints import Checkpoints
from probeline.finetune.options import read_options
from probeline.finetune.prepare import prepare
from probeline.finetune.stage import train
from probeline.finetune.trainer import FineTuner, Job
from probeline.probe.task import task_data

# Steps of two batches; the last batch of an epoch is smaller, as 37 and 43 rows are no fives.
SECTION = {
    "epochs": 2,
    "batch_size": 5,
    "gradient_accumulation": 2,
    "learning_rate": 3e-3,
    "warmup": 0.3,
    "weight_decay": 0.2,
    "max_grad_norm": 0.4,
}


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A body without dropout, so that gradients can be computed again."""
    return build("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toys")
    return {
        False: write_toy(folder / "single", classes=3, train=43, undefined=True),
        True: write_multilabel(folder / "multi", train=43),
    }


def prepared(data, model, section) -> Job:
    dataset = read_dataset(data)
    spec = {"path": str(model), "device": "cpu"}
    task = task_data(dataset, "label")
    return prepare(dataset, task, "tiny", spec, read_options(section), seed=1)[0]


@pytest.fixture(scope="module")
def trained(llama, toys, tmp_path_factory):
    """Train by a section; the job, and what each step did."""

    def run(multilabel: bool = False, model=llama, **section) -> tuple[Job, Recorder]:
        job, recorder = prepared(toys[multilabel], model, SECTION | section), Recorder()

        def trainer(*inputs) -> FineTuner:
            made = FineTuner(*inputs)
            made.add_callback(recorder)
            return made

        train(job, Checkpoints(tmp_path_factory.mktemp("state") / "state", {}), trainer)
        return job, recorder

    return run


def balanced(y: np.ndarray) -> np.ndarray:
    """n / (K n_k) of each class."""
    counts = np.bincount(y)
    return len(y) / (len(counts) * counts)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.25])
def test_the_learning_rate_of_each_step(trained, schedule, warmup):
    job, recorder = trained(schedule=schedule, warmup=warmup)
    steps = 2 * math.ceil(math.ceil(len(job.task.y["train"]) / 5) / 2)
    warm = math.ceil(warmup * steps)
    assert len(recorder.steps) == job.steps == steps
    expected = [rate(schedule, step, steps, warm, 3e-3) for step in range(steps)]
    assert [step.rate for step in recorder.steps] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("decay", [0.0, 0.2])
def test_weights_decay_but_biases_and_norms(trained, tmp_path, decay):
    _, recorder = trained(model=build("bert", tmp_path), weight_decay=decay)

    def decayed(name: str) -> bool:
        return not name.endswith("bias") and "LayerNorm" not in name

    names = recorder.steps[0].before
    assert len({decayed(name) for name in names}) == 2
    check_adamw(recorder.steps, decayed, decay)


def naive_losses(job: Job, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Of each row, smoothed and weighted as the options say."""
    options, y = job.options, job.task.y["train"]
    share, classes = options.label_smoothing, logits.shape[1]
    if job.task.multilabel:
        p, target = torch.sigmoid(logits), labels * (1 - share) + share / 2
        losses = -(target * p.log() + (1 - target) * (1 - p).log())
        if options.class_weight:
            weights = torch.tensor(np.array([balanced(column) for column in y.T]))
            losses = losses * weights.gather(1, labels.long().T).T
        return losses.mean(dim=1)
    target = functional.one_hot(labels, classes) * (1 - share) + share / classes
    losses = -(target * logits.log_softmax(1)).sum(dim=1)
    return losses * torch.tensor(balanced(y))[labels] if options.class_weight else losses


def naive_gradients(job: Job, weights: dict, rows: list[int]) -> dict[str, torch.Tensor]:
    """Of the mean loss of some rows, one row at a time."""
    model = copy.deepcopy(job.model.body).double().train()
    assert model.load_state_dict(weights, strict=False).unexpected_keys == []
    total = 0.0
    for row in rows:
        batch = job.train.collate([row])
        labels = batch.pop("labels")
        total = total + naive_losses(job, model(**batch).logits, labels).sum()
    (total / len(rows)).backward()
    return {name: weight.grad.float() for name, weight in model.named_parameters()}


def step_rows(job: Job) -> list[list[int]]:
    """The rows of each step, whole batches one after the other."""
    count, found = job.options.gradient_accumulation, []
    batches = EpochBatches(job.train.tokens.lengths, job.options.batch_size, True, job.seed)
    for epoch in range(2):
        batches.set_epoch(epoch)
        for number, batch in enumerate(batches):
            if number % count == 0:
                found.append([])
            found[-1].extend(batch)
    return found


@pytest.mark.parametrize(
    ("multilabel", "section"),
    [
        (False, {}),
        (False, {"max_grad_norm": None}),
        (False, {"gradient_accumulation": 1, "class_weight": "balanced", "label_smoothing": 0.2}),
        (True, {"class_weight": "balanced", "label_smoothing": 0.2}),
    ],
)
def test_the_gradient_of_each_step(trained, multilabel, section):
    """That of the mean over all rows of the step, clipped at `max_grad_norm`."""
    job, recorder = trained(multilabel, **section)
    options = job.options
    rows = step_rows(job)
    assert len({len(own) for own in rows}) > 1
    for own, step in zip(rows, recorder.steps, strict=True):
        whole = naive_gradients(job, step.before, own)
        # Else neither clipping nor its absence would show.
        assert norm(whole) > 0.5
        expected = clipped(whole, options.max_grad_norm)
        for name, found in step.gradients.items():
            torch.testing.assert_close(found, expected[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.15])
def test_the_loss_that_is_prepared(llama, toys, share):
    job = prepared(toys[False], llama, {"class_weight": "balanced", "label_smoothing": share})
    y = job.task.y["train"]
    counts = [sum(int(code) == k for code in y) for k in range(3)]
    assert len(set(counts)) > 1
    expected = [len(y) / (3 * count) for count in counts]
    assert job.loss.weights.tolist() == pytest.approx(expected)
    theirs = compute_class_weight("balanced", classes=np.arange(3), y=y)
    assert job.loss.weights.tolist() == pytest.approx(theirs.tolist())
    assert job.loss.smoothing == share and not job.loss.multilabel


def test_the_loss_that_is_prepared_of_several_labels(llama, toys):
    job = prepared(toys[True], llama, {"class_weight": "balanced", "label_smoothing": 0.1})
    y = job.task.y["train"]
    for label in range(3):
        theirs = compute_class_weight("balanced", classes=np.arange(2), y=y[:, label])
        assert job.loss.weights[:, label].tolist() == pytest.approx(theirs.tolist())
        has = sum(int(one) for one in y[:, label])
        expected = [len(y) / (2 * (len(y) - has)), len(y) / (2 * has)]
        assert job.loss.weights[:, label].tolist() == pytest.approx(expected)
    assert job.loss.smoothing == 0.1 and job.loss.multilabel


def test_no_weights_and_no_smoothing_unless_asked(llama, toys):
    for data in toys.values():
        loss = prepared(data, llama, {}).loss
        assert loss.weights is None and loss.smoothing == 0.0
