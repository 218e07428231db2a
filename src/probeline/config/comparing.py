"""What probes and sparse classifiers are compared with: baselines and fine-tuning."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field

from probeline.config.kinds import (
    ClassWeight,
    Closed,
    Flag,
    Positive,
    Text,
    distinct,
    either,
    mistake,
    number,
    whole,
)
from probeline.config.words import shown

Baseline = Literal[
    "sentence-embedding", "tfidf", "zero-shot", "icl", "finetune", "label-tokens", "regular"
]
BASELINES: tuple[str, ...] = get_args(Baseline)


def _rising(values: list[int]) -> list[int]:
    if len(values) != 2 or values[0] > values[1]:
        raise mistake(f"{shown(values)} is not [shortest, longest], such as [1, 2]")
    return values


def with_label(template: str) -> str:
    if "{label}" not in template:
        raise mistake(f"{shown(template)} has no {{label}}, where the label's text goes")
    return template


# What a bare `no` is to YAML 1.1.
_No = BeforeValidator(lambda value: "no" if value is False else value)
Precision = Annotated[Literal["auto", "no", "bf16", "fp16"], _No]
Range = Annotated[list[whole(1)], AfterValidator(_rising)]
Below1 = number(ge=0, lt=1)
From0to1 = number(ge=0, le=1)
NotNegative = number(ge=0)
Seeds = distinct(whole(0, 2**32 - 1))
Models = either(text=Literal["all"], list=distinct(Text))


class SentenceEmbedding(Closed):
    """The baseline: mean-pooled last layer, normalised, with an L2 logistic regression."""

    penalties: distinct(Positive) = Field(
        default=[0.01, 0.1, 1.0, 10.0, 100.0, 1000.0],
        description="scikit-learn C values to try; validation chooses.",
    )


class Tfidf(Closed):
    """The floor: counts of words or characters weighted by TF-IDF, L2 logistic regression."""

    penalties: distinct(Positive) = Field(
        default=[0.1, 1.0, 10.0, 100.0],
        description="scikit-learn C values to try; validation chooses.",
    )
    class_weight: ClassWeight = Field(
        "auto",
        description="balanced = rare classes weigh as much as frequent ones; null = every text "
        "counts the same; auto = both are tried where the metric averages over classes (macro-f1, "
        "matthews), null elsewhere.",
    )
    analyzer: Literal["auto", "word", "char"] = Field(
        "auto",
        description="What is counted. auto = words, or characters where the training texts are "
        "written without spaces between words.",
    )
    ngrams: either(text=Literal["auto"], list=Range) = Field(
        "auto",
        description="Shortest and longest run that is counted, such as [1, 2]; auto = [1, 2] words "
        "or [1, 3] characters.",
    )
    min_df: whole(1) = Field(
        1, description="Leave out what stands in fewer training texts than this."
    )
    max_features: whole(1) | None = Field(
        None, description="Keep only the most frequent words or runs. null = all."
    )
    sublinear_tf: Flag = Field(True, description="Count 1 + log(count) for a count.")
    max_iterations: whole(1) = Field(1000, description="Iterations of the solver (L-BFGS).")


class ZeroShot(Closed):
    """No training: the label whose text is most similar to the text, by the model's embeddings."""

    template: Annotated[Text, AfterValidator(with_label)] = Field(
        "{label}", description="What is embedded for a label; `{label}` is its text."
    )
    temperature: Positive = Field(
        0.05, description="Cosine similarities are divided by it to make logits."
    )


class TextLimits(Closed):
    """Texts of each split that are scored; null = all."""

    train: whole(0) | None = Field(0, description="Limit for train.")
    validation: whole(1) | None = Field(500, description="Limit for validation.")
    test: whole(1) | None = Field(1000, description="Limit for test.")


class InContext(Closed):
    """In-context learning: a causal language model reads examples, and labels as continuations."""

    models: Models = Field(
        "all",
        description="Causal language models among `models`, by name; all = every one with a "
        "`path`, which must then all be such.",
    )
    seeds: Seeds | None = Field(
        None, description="Seeds that draw the examples, a run each. null = the global `seed`."
    )
    shots: whole(0) = Field(
        4, description="Examples per class, or in all for `select: nearest`; 0 = none."
    )
    select: Literal["class", "nearest"] = Field(
        "class",
        description="class = the same examples for every text, drawn for each class from train; "
        "nearest = those training texts that are most similar to the text.",
    )
    neighbours: Text | None = Field(
        None,
        description="For `select: nearest`: the model whose mean-pooled last layer says what is "
        "similar. null = the language model itself.",
    )
    instruction: str = Field(
        "", description="What stands before the examples; `{labels}` in it lists the label texts."
    )
    example: Text | None = Field(
        None,
        description="Format of an example: `{text}`, or `{text_a}` and `{text_b}`, then `{label}`. "
        "null = 'Text: {text}', new line, 'Label: {label}'.",
    )
    separator: str | None = Field(None, description="Between the examples. null = an empty line.")
    normalize: Literal["mean", "sum"] = Field(
        "mean",
        description="A label's score is the mean or the sum of its tokens' log-probabilities.",
    )
    calibrate: Flag = Field(
        True,
        description="Contextual calibration (Zhao et al. 2021): divide by what the model gives to "
        "content-free texts.",
    )
    context: whole(1) | None = Field(
        None,
        description="Longest prompt in tokens; examples are dropped to fit. null = the model's "
        "positions.",
    )
    max_texts: TextLimits = Field(
        default_factory=TextLimits,
        description="Texts of each split that are scored, a random part where there are more.",
    )


class Lora(Closed):
    """Low-rank adapters (Hu et al. 2021) on a frozen body, through peft."""

    rank: whole(1) = Field(16, description="Rank of each update.")
    alpha: Positive = Field(32.0, description="An update is scaled by alpha / rank.")
    dropout: Below1 = Field(0.05, description="Dropout before each adapter.")
    targets: either(text=Literal["all-linear"], list=distinct(Text)) = Field(
        "all-linear",
        description="Linear maps that get an adapter: all of the body, or those whose names end so "
        "(q_proj, ...).",
    )
    quantize: Literal["nf4"] | None = Field(
        None,
        description="nf4 = QLoRA: the frozen body in 4-bit NormalFloat with double quantisation; "
        "needs CUDA and bitsandbytes.",
    )
    merge: Flag = Field(
        True, description="Write the merged model beside the adapter, so that it can be probed."
    )


class Finetune(Closed):
    """Fine-tuning a classifier, whole or by adapters, with transformers' Trainer."""

    models: Models = Field(
        "all",
        description="Models of the `finetune` baseline, by name; all = every one that is not "
        "fine-tuned already.",
    )
    seeds: Seeds | None = Field(
        None,
        description="Seeds of head, order and dropout, a run each, for the baseline. null = the "
        "global `seed`.",
    )
    epochs: Positive = Field(3.0, description="Passes over the training texts.")
    learning_rate: Positive | None = Field(
        None,
        description="AdamW's learning rate after the warm-up. null = 2e-5, and 2e-4 with `lora`.",
    )
    schedule: Literal["linear", "cosine", "constant"] = Field(
        "linear", description="How the learning rate falls after the warm-up."
    )
    warmup: From0to1 = Field(
        0.1, description="Share of all steps over which the learning rate rises from 0."
    )
    weight_decay: NotNegative = Field(
        0.01, description="AdamW's weight decay, on all but biases and norms."
    )
    batch_size: whole(1) = Field(16, description="Texts per forward pass.")
    gradient_accumulation: whole(1) = Field(
        1, description="Forward passes per step: the batch is so many times `batch_size`."
    )
    gradient_checkpointing: Flag = Field(
        False,
        description="Compute activations again in the backward pass: less memory, a third more "
        "time.",
    )
    max_grad_norm: Positive | None = Field(
        1.0, description="Largest norm of the gradient. null = it is not clipped."
    )
    early_stopping: whole(1) | None = Field(
        None,
        description="Stop after so many evaluations without a better validation score. null = "
        "never.",
    )
    evaluations: whole(1) = Field(1, description="Evaluations on validation per epoch.")
    class_weight: Literal["balanced"] | None = Field(
        None, description="balanced = rare classes weigh as much as frequent ones."
    )
    mixed_precision: Precision = Field(
        "auto",
        description="auto = bf16 on CUDA devices that have it, fp16 on older ones, none elsewhere.",
    )
    label_smoothing: Below1 = Field(
        0.0, description="Share of the target that is spread evenly over the classes."
    )
    group_by_length: Flag = Field(
        True, description="Put texts of similar length into a batch: less padding."
    )
    keep: Literal["best", "last"] = Field(
        "best", description="The checkpoint that is kept: the best on validation, or the last."
    )
    checkpoint_minutes: Positive = Field(
        10.0, description="Minutes between checkpoints that an interrupted training goes on from."
    )
    report_to: distinct(Text, minimum=0) = Field(
        default=[],
        description="Integrations of transformers that are told losses and scores: tensorboard, "
        "wandb, ...",
    )
    lora: Lora | None = Field(
        None, description="Train low-rank adapters instead of all weights; `lora: {}` = defaults."
    )
