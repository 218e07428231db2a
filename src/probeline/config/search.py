"""The search for hyperparameters of fine-tuning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from probeline.config.comparing import Models
from probeline.config.kinds import Closed, Flag, Positive, distinct, either, mistake, number, whole
from probeline.config.words import shown

Searched = Literal["finetune", "label-tokens"]
SEARCHED: tuple[str, ...] = ("finetune", "label-tokens")


class Range(Closed):
    """All numbers of a range."""

    low: number() = Field(description="The lowest.")
    high: number() = Field(description="The highest.")
    log: Flag = Field(False, description="Drawn on a logarithmic scale.")
    step: Positive | None = Field(
        None, description="Distance from one number to the next. null = any number."
    )


def _checked(allowed: Callable[[float], bool], words: str) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if not isinstance(value, Range):
            return value
        if not value.low < value.high:
            raise mistake(f"low {shown(value.low)} is not below high {shown(value.high)}")
        if not (allowed(value.low) and allowed(value.high)):
            raise mistake(f"{shown(value.low)} to {shown(value.high)} is not within {words}")
        if value.log and (value.step is not None or value.low <= 0):
            raise mistake("log is for ranges above 0 and without step; set it to false")
        if value.step is not None and value.step > value.high - value.low:
            raise mistake(f"step {shown(value.step)} leaves nothing but low; take a shorter one")
        return value

    return check


def _span(allowed: Callable[[float], bool], words: str, **bounds: float) -> Any:
    """Return the type of choices or a range, each number of which is `allowed`."""
    shapes = either(list=distinct(number(**bounds)), mapping=Range)
    return Annotated[shapes, AfterValidator(_checked(allowed, words))]


_Above0 = _span(lambda value: value > 0, "numbers above 0", gt=0)
_NotNegative = _span(lambda value: value >= 0, "numbers of 0 or more", ge=0)
_From0to1 = _span(lambda value: 0 <= value <= 1, "0 to 1", ge=0, le=1)


class Space(Closed):
    """What is tried of each option: a list of choices, or a range. null = as in `finetune`."""

    learning_rate: _Above0 | None = Field(
        default={"low": 1e-6, "high": 7e-5, "log": True},
        validate_default=True,
        description="AdamW's learning rate after the warm-up.",
    )
    epochs: _Above0 | None = Field(
        default={"low": 1, "high": 5, "step": 1},
        validate_default=True,
        description="Passes over the training texts.",
    )
    batch_size: distinct(whole(1)) | None = Field(
        default=[16, 24, 32], description="Texts per forward pass, as a list of choices."
    )
    weight_decay: _NotNegative | None = Field(
        default=[0.0, 0.009, 0.01, 0.02], description="AdamW's weight decay."
    )
    warmup: _From0to1 | None = Field(
        default={"low": 0.0, "high": 0.2},
        validate_default=True,
        description="Share of all steps over which the learning rate rises from 0.",
    )


class Search(Closed):
    """Hyperparameters that score best on validation, searched by Optuna.

    A study per dataset, task, model and classifier, which several jobs may share. The best settings
    are written as a part of a configuration for the next run: `--configfile mine.yaml best.yaml`.
    """

    classifiers: distinct(Searched, SEARCHED, minimum=0) = Field(
        default=[],
        description="What is trained: finetune; label-tokens, a study for each of "
        "`label_tokens.initializations` and `readings`. [] = no search.",
    )
    models: Models = Field(
        "all", description="Models by name; all = every one that is not fine-tuned already."
    )
    trials: whole(1) = Field(
        25, description="Trainings of a study. More can be asked for later: none is done again."
    )
    workers: whole(1) = Field(1, description="Jobs that share a study.")
    prune: Flag = Field(
        True,
        description="End a training whose validation score is below the median of the earlier ones "
        "at the same evaluation. Needs `finetune.evaluations` or epochs above 1 to save time.",
    )
    seed: whole(0, 2**32 - 1) | None = Field(
        None, description="Seed of what is tried and of every training. null = the global `seed`."
    )
    space: Space = Field(default_factory=Space, description="What is tried.")
