"""Labels as tokens that read the text."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from probeline.config.comparing import Below1, Finetune, Models, Seeds
from probeline.config.kinds import Closed, distinct, whole

LABEL_TOKENS = "label-tokens"
REGULAR = "regular"
Initialization = Literal["random", "mean", "label_text", "cls", "mix"]
INITIALIZATIONS: tuple[str, ...] = get_args(Initialization)
Reading = Literal["joint", "unordered", "isolated"]
JOINT, UNORDERED, ISOLATED = READINGS = get_args(Reading)
# Those that what labels are read as has a part in.
READS_TEXTS = ("label_text", "mix")


def series_of(initialization: str, reading: str) -> str:
    """Name of the runs with one kind of first embeddings that read in one way."""
    return initialization if reading == JOINT else f"{initialization}-{reading}"


# By the name of its runs, what it begins with and how it reads.
SERIES = {
    series_of(one, reading): (one, reading) for one in INITIALIZATIONS for reading in READINGS
}


class LabelTokens(Closed):
    """Every label a token that reads the text, trained through the code of `finetune`.

    What it is compared with is the regular classifier with the same settings: the baseline
    `finetune`, or, where settings here differ from those of `finetune`, the baseline `regular`.
    """

    models: Models = Field(
        "all",
        description="Models that are trained so, by name; all = every one that is not fine-tuned "
        "already.",
    )
    seeds: Seeds | None = Field(
        None,
        description="Seeds of head, label tokens, order and dropout, a run each. null = the global "
        "`seed`.",
    )
    initializations: distinct(Initialization, INITIALIZATIONS) = Field(
        default=["mix"],
        description="What the embeddings of the label tokens begin with, a run each: random; mean "
        "= of the vocabulary; label_text = mean of the label's own word pieces; cls = the token "
        "that stands for a text; mix = half label_text, half cls.",
    )
    position: Literal["auto", "prefix", "suffix"] = Field(
        "auto",
        description="Where the label tokens stand: before or after the text. auto = prefix, and "
        "suffix in decoders, whose tokens see only those before them.",
    )
    readings: distinct(Reading, READINGS) = Field(
        default=["joint"],
        description="How the label tokens read, a run each: joint = each has a position of its "
        "own, and all tokens attend to each other; unordered = the label tokens share a position "
        "and do not attend to each other, so that their order cannot matter; isolated = nor does "
        "the text attend to them, so that a label's logit depends on the text alone.",
    )
    chunk: whole(1) | None = Field(
        None,
        description="Label tokens per pass, where there are too many for one. Equal to one pass "
        "where they are `isolated` only; what it changes is in the scores file. null = all.",
    )
    shortlist: whole(2) | None = Field(
        None,
        description="Labels that are read for each text: those that the sparse classifier of the "
        "same model, dataset and task ranks highest, the true one always among them in training. "
        "How often it is there elsewhere is in the scores file. null = all.",
    )
    dropout: Below1 = Field(0.1, description="Dropout on the outputs at the label tokens.")
    finetune: Finetune | None = Field(
        None,
        description="Settings of the training that differ from those of `finetune`, but for models "
        "and seeds; what is left out is as there. null = none.",
    )
    thresholds: Literal["fixed", "chosen", "per-label"] = Field(
        "chosen",
        description="Of multi-label tasks: above which probability a label holds. fixed = 0.5; "
        "chosen = the best one on validation; per-label = one for each label, on validation.",
    )
    attention: whole(0) = Field(
        20,
        description="Test texts for which it is shown what each label's token looks at. 0 = none.",
    )
