"""Labels as tokens for the training of `probeline.finetune`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from probeline import versions
from probeline.activations.batching import Tokens, padded
from probeline.data.label_text import label_texts
from probeline.data.store import Dataset
from probeline.errors import ProbelineError
from probeline.finetune.kind import Regular
from probeline.finetune.model import checkpoint_activations
from probeline.finetune.options import Options, checked, is_integer, is_number
from probeline.finetune.trainer import Job
from probeline.label_tokens.build import LabelTokenOptions, build_classifier
from probeline.label_tokens.chunks import chunk_difference
from probeline.label_tokens.configuration import PREFIX, SUFFIX
from probeline.label_tokens.initial import INITIALIZATIONS
from probeline.label_tokens.order import order_difference
from probeline.label_tokens.shortlist import FirstStage, recalls, with_truth
from probeline.label_tokens.tokens import fit_tokenizer, text_room
from probeline.models.load import LoadedModel, load_body, load_model, load_tokenizer
from probeline.probe.task import TaskData
from probeline.probe.threshold import CHOSEN, THRESHOLDS

AUTO = "auto"
POSITIONS = (AUTO, PREFIX, SUFFIX)
_CANDIDATES = "candidates"


@dataclass(frozen=True)
class LabelTokens(Regular):
    """A classifier whose labels are tokens that read the text.

    Attributes
    ----------
    options : LabelTokenOptions
    texts : mapping of label to text or texts
        What stands for a label in place of its name; see `label_texts`.
    thresholds : one of `THRESHOLDS`
    first : FirstStage or None
        Where `options.shortlist` is set.
    """

    options: LabelTokenOptions = field(default_factory=LabelTokenOptions)
    texts: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    thresholds: str = CHOSEN
    first: FirstStage | None = None
    method: str = "label-tokens"

    def variant(self, options: Options) -> str:
        """What it begins with and, where it is not as usual, how it reads."""
        return self.options.series

    def load(self, spec: Mapping, task: TaskData, options: Options, seed: int) -> LoadedModel:
        """Load the model that `spec` names as a body with label tokens and a head for `task`.

        Returns
        -------
        LoadedModel
            Its `max_length` is what the labels leave of the body's positions.

        Raises
        ------
        ProbelineError
            As `load_model`, `build_classifier`, `text_room` and `fit_tokenizer`; or if adapters are
            asked for.
        """
        if options.lora is not None:
            raise ProbelineError(
                "label_tokens.finetune.lora: label tokens are trained with the whole model, not "
                "with adapters; set it to null"
            )

        def loader(spec, source, family, weights, dtype, decoder):
            words, _ = load_tokenizer(spec, source)
            body = load_body(spec, source, family, weights, dtype, decoder)
            texts = label_texts(task.labels, self.texts)
            return build_classifier(
                body, words, task.labels, task.multilabel, self.options, texts, seed
            )

        model = fitted(load_model({**spec, "dtype": "float32"}, loader=loader))
        if options.gradient_checkpointing:
            checkpoint_activations(model)
        return model

    def told(self, tokens: Tokens, dataset: Dataset, task: TaskData) -> Tokens:
        """Add the labels that are read of each text, where not all are."""
        if self.first is None:
            return tokens
        lists = self.first.lists(dataset, task, self.options.shortlist)
        return replace(tokens, more={_CANDIDATES: lists})

    def taught(self, tokens: Tokens, task: TaskData) -> Tokens:
        """Put the true label on every list: one that is not read could never be learnt."""
        if self.first is None:
            return tokens
        lists = with_truth(tokens.more[_CANDIDATES], task.y["train"])
        return replace(tokens, more={_CANDIDATES: np.sort(lists, axis=1)})

    def settings(self) -> dict:
        texts = {
            label: [texts] if isinstance(texts, str) else list(texts)
            for label, texts in self.texts.items()
        }
        more = {"texts": texts, "thresholds": self.thresholds, "version": versions.LABEL_TOKENS}
        if self.first is not None:
            more["first_stage"] = self.first.digest
        return {"label_tokens": asdict(self.options) | more}

    def describe(self, model: LoadedModel, probabilities: list[float]) -> None:
        model.body.config.thresholds = probabilities

    def measured(self, job: Job, tokens: Tokens) -> dict:
        """What the order of the labels matters, and what chunks and a shortlist miss.

        `order` is of validation, see `order_difference`; `chunk_difference` too, where labels are
        read in chunks and one pass fits; `shortlist` has the number of labels, and the recall of
        each split, and `texts_per_second` is then null.
        """
        model, chunk = job.model, self.options.chunk
        found = {"order": order_difference(model.body, _inputs(model, job))}
        if self.first is not None:
            lists = tokens.more[_CANDIDATES]
            found["shortlist"] = {"labels": lists.shape[1], "recall": recalls(lists, job.task)}
            # The first stage belongs to the way from text to answer, and ran before.
            found["texts_per_second"] = None
        if chunk is not None and _fits_one_pass(job, self._read(job)):
            whole = replace(model, beside=self._read(job))
            found["chunk_difference"] = chunk_difference(model.body, _inputs(whole, job), chunk)
        return found

    def _read(self, job: Job) -> int:
        """Labels that are read of each text."""
        return min(self.options.shortlist or job.task.classes, job.task.classes)

    def write(self, folder: Path) -> None:
        """Take the first stage along."""
        if self.first is not None:
            self.first.write(folder)


def _inputs(model: LoadedModel, job: Job) -> Iterator[dict]:
    return (batch.inputs for batch in padded(model, job.validation))


def fitted(model: LoadedModel) -> LoadedModel:
    """Leave room for the labels: texts are cut to it, batches counted with it."""
    config, words = model.body.config, model.tokenizer
    special = words.num_special_tokens_to_add(pair=True)
    room = text_room(config, model.shape.max_positions, special, model.max_length)
    fit_tokenizer(words, room, model.family.token_types and config.type_vocab_size > 1)
    config.pad_token_id = words.pad_token_id
    return replace(
        model,
        max_length=room,
        pad_id=words.pad_token_id,
        beside=config.labels_per_pass,
        batch_tokens=max(model.batch_tokens, room + config.labels_per_pass),
    )


def _fits_one_pass(job: Job, labels: int) -> bool:
    most, config = job.model.shape.max_positions, job.model.body.config
    taken = 1 if config.shared_positions else labels
    return most is None or int(job.validation.lengths.max()) + taken <= most


_FLAG = ("true or false", lambda v: isinstance(v, bool))
_RULES = {
    "initialization": (
        f"one of {', '.join(INITIALIZATIONS)}",
        lambda v: v in INITIALIZATIONS,
    ),
    "position": (f"one of {', '.join(POSITIONS)}", lambda v: v in POSITIONS),
    "shared_positions": _FLAG,
    "labels_attend": _FLAG,
    "isolated": _FLAG,
    "chunk": (
        "an integer of 1 or more, or null",
        lambda v: v is None or (is_integer(v) and v >= 1),
    ),
    "shortlist": (
        "an integer of 2 or more, or null",
        lambda v: v is None or (is_integer(v) and v >= 2),
    ),
    "dropout": ("a share from 0 to 1, 1 excluded", lambda v: is_number(v) and 0 <= v < 1),
    "thresholds": (f"one of {', '.join(THRESHOLDS)}", lambda v: v in THRESHOLDS),
    "label_texts": ("a mapping of labels to texts", lambda v: isinstance(v, Mapping)),
}


def read_kind(section: Mapping, first: FirstStage | None = None) -> LabelTokens:
    """Check the options of label tokens; what is left out takes its default.

    Parameters
    ----------
    section : mapping
        initialization, position ("auto", "prefix" or "suffix"), shared_positions, labels_attend,
        isolated, chunk, shortlist, dropout, thresholds, label_texts.
    first : FirstStage, optional
        What makes the shortlists.

    Raises
    ------
    ProbelineError
        If a key is unknown or a value not allowed, or a shortlist has no first stage.
    """
    values = checked(section, _RULES, "label_tokens")
    texts, thresholds = values.pop("label_texts", {}), values.pop("thresholds", CHOSEN)
    if values.get("position") == AUTO:
        values["position"] = None
    options = LabelTokenOptions(**values)
    if options.shortlist is not None and first is None:
        raise ProbelineError(
            "label_tokens.shortlist: needs a first stage that ranks the labels; give its "
            "predictions and its classifier folder"
        )
    return LabelTokens(options, texts, thresholds, first if options.shortlist else None)
