"""sentence-transformers' Trainer with losses that know labels, our batches and checkpoints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import TripletDistanceMetric, TripletLoss

from probeline.finetune.batches import EpochBatches, EpochLoader
from probeline.finetune.checkpoints import Checkpoints
from probeline.finetune.record import Record
from probeline.finetune.resumable import ARGUMENTS, Resumable, Schedule, not_finite
from probeline.lrsl.embedding import Embedder
from probeline.lrsl.label_vectors import LabelVectors
from probeline.lrsl.losses import CachedRankingLoss, RankingLoss
from probeline.lrsl.retrieval import Retrieval, retrieval
from probeline.lrsl.tune_options import TuneOptions
from probeline.probe.threshold import Evaluation

METRIC = "retrieval accuracy"


@dataclass(frozen=True)
class Validation:
    """Texts whose nearest label text is looked for.

    Attributes
    ----------
    texts : list of str, n of them
    true : ndarray of bool, shape (n, K)
    label_texts : list of str, m of them
        All texts of all labels, as they are embedded.
    owner : ndarray of int64, shape (m,)
        Label of each.
    scale : float
        Of the loss that breaks ties.
    """

    texts: list[str]
    true: np.ndarray
    label_texts: list[str]
    owner: np.ndarray
    scale: float

    def score(self, embedder: Embedder) -> Retrieval:
        """Embed texts and labels as the embedder is now, and look."""
        labels = LabelVectors(embedder.encode(self.label_texts), self.owner, "best")
        return retrieval(embedder.encode(self.texts), labels, self.true, self.scale)


@dataclass(frozen=True)
class TuneJob(Schedule):
    """What is tuned.

    Attributes
    ----------
    name : str
        Shown in log lines.
    embedder : Embedder
    train : datasets.Dataset
        Columns anchor, positive, negative and label, which is as `losses.false_negatives` takes it.
    validation : Validation
    options : TuneOptions
    precision : str
        "no", "bf16" or "fp16".
    seed : int
    """

    name: str
    embedder: Embedder
    train: Dataset
    validation: Validation
    options: TuneOptions
    precision: str
    seed: int


class Tuner(Resumable, SentenceTransformerTrainer):
    """One run of a `TuneJob`.

    Parameters
    ----------
    job : TuneJob
    checkpoints : Checkpoints
    record : Record
        That of the checkpoint to go on from, or an empty one.
    """

    def __init__(self, job: TuneJob, checkpoints: Checkpoints, record: Record):
        self.begin(job, checkpoints, record)
        super().__init__(
            model=job.embedder.model,
            args=_arguments(job, checkpoints.folder),
            train_dataset=job.train,
            loss=loss_of(job.embedder.model, job.options),
        )
        self.flow()

    def add_model_card_callback(self, *_) -> None:
        """No model card: it would quote training texts."""

    def get_train_dataloader(self) -> EpochLoader:
        options = self.job.options
        lengths = np.zeros(len(self.job.train), dtype=np.int64)
        batches = EpochBatches(lengths, options.batch_size, False, self.job.seed)
        return EpochLoader(_Rows(self.job.train, self.data_collator), batches)

    def evaluate(self, *_, **__) -> dict[str, float]:
        """Score validation by retrieval."""
        found = self.job.validation.score(self.job.embedder)
        if not math.isfinite(found.loss):
            step = self.state.global_step
            raise not_finite(f"validation embeddings after step {step} are not", self.job)
        error = math.sqrt(found.accuracy * (1 - found.accuracy) / max(found.texts, 1))
        evaluation = Evaluation(found.accuracy, error, found.loss, 0.0)
        return self.evaluated(METRIC, found.loss, evaluation)


@dataclass
class _Rows(torch.utils.data.Dataset):
    """Row numbers of triplets, which become tensors a batch at a time."""

    triplets: Dataset
    collator: object

    def __len__(self) -> int:
        return len(self.triplets)

    def __getitem__(self, row: int) -> int:
        return row

    def collate(self, rows: Sequence[int]) -> dict[str, torch.Tensor]:
        return self.collator(self.triplets.select(rows).to_list())


def loss_of(model, options: TuneOptions) -> torch.nn.Module:
    """The loss that the options name."""
    if options.loss == "triplet":
        return TripletLoss(model, TripletDistanceMetric.COSINE, options.margin)
    if options.loss == "cached-mnrl":
        return CachedRankingLoss(model, options.scale, mini_batch_size=options.mini_batch)
    return RankingLoss(model, options.scale)


def _arguments(job: TuneJob, folder: Path) -> SentenceTransformerTrainingArguments:
    options, model = job.options, job.embedder.model
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder),
        num_train_epochs=options.epochs,
        learning_rate=options.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=math.ceil(options.warmup * job.steps),
        per_device_train_batch_size=options.batch_size,
        max_grad_norm=options.max_grad_norm,
        bf16=job.precision == "bf16",
        fp16=job.precision == "fp16",
        use_cpu=model.device.type == "cpu",
        seed=job.seed,
        report_to=[],
        run_name=job.name,
        # Texts are trained on as they are embedded.
        prompts=model.prompts.get(model.default_prompt_name),
        **ARGUMENTS,
    )
    # Several cards would be used as one, with other batches.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments
