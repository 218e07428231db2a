"""Reranking by the meaning of labels (LRSL), and scores that were made elsewhere."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field

from probeline.config.comparing import From0to1, Models, Precision, Seeds, with_label
from probeline.config.entries import Path
from probeline.config.kinds import (
    Closed,
    Column,
    Encoding,
    Encodings,
    Flag,
    Positive,
    Share,
    Text,
    distinct,
    either,
    ordered,
    whole,
)

Source = Literal[
    "stc",
    "probe",
    "last-layer",
    "sentence-embedding",
    "tfidf",
    "zero-shot",
    "icl",
    "finetune",
    "label-tokens",
    "regular",
    "given",
]
SOURCES: tuple[str, ...] = get_args(Source)
# Trained on every run; the others are asked for, as baselines or as scores.
TRAINED_SOURCES = SOURCES[:3]
# Classifiers over frozen features, which are quick to train again without some of the texts.
CROSSFITTED = ("stc", "probe", "last-layer", "sentence-embedding", "tfidf")
GIVEN = "given"

Form = Literal["prob", "mix", "mlp", "paper-logits", "paper-banking77"]
FORMS: tuple[str, ...] = get_args(Form)


class Triplets(Closed):
    """What the embedding is tuned on: a text, its label's text, the text of a wrong label."""

    k: either(text=Literal["auto"], number=whole(1)) = Field(
        "auto",
        description="Wrong labels are taken from so many that the classifier ranks highest. auto = "
        "3, or all labels where there are fewer.",
    )
    per_text: whole(1) | None = Field(
        None,
        description="At most so many wrong labels per text, the highest ranked; a text with "
        "several labels gives as many triplets for each of them. null = all.",
    )
    hard_only: Flag = Field(
        False, description="Only from texts that are hard, or that the classifier gets wrong."
    )
    per_class: whole(1) | None = Field(
        None, description="At most so many texts per class, drawn by the seed. null = all."
    )


class Tune(Closed):
    """How the embedding is tuned, with sentence-transformers' Trainer."""

    loss: Literal["mnrl", "triplet", "cached-mnrl"] = Field(
        "mnrl",
        description="mnrl = MultipleNegativesRankingLoss with the triplets' wrong labels and those "
        "of the batch (what would be right is masked); triplet = TripletLoss, for few labels; "
        "cached-mnrl = mnrl in batches larger than the memory.",
    )
    epochs: Positive = Field(1.0, description="Passes over the triplets.")
    batch_size: whole(1) = Field(32, description="Triplets per step.")
    learning_rate: Positive = Field(2e-5, description="AdamW's learning rate after the warm-up.")
    warmup: From0to1 = Field(
        0.1, description="Share of all steps over which the learning rate rises from 0."
    )
    scale: Positive = Field(20.0, description="mnrl: cosines are multiplied by it.")
    margin: Positive = Field(
        0.5, description="triplet: by how much the right label must be closer, in cosine distance."
    )
    mini_batch: whole(1) = Field(
        32, description="cached-mnrl: triplets that are in memory at a time."
    )
    mixed_precision: Precision = Field(
        "auto",
        description="auto = bf16 on CUDA devices that have it, fp16 on older ones, none elsewhere.",
    )
    keep: Literal["best", "last"] = Field(
        "best",
        description="Which epoch is kept: the best by how often a validation text's own label is "
        "the nearest, or the last.",
    )


class Lrsl(Closed):
    """Reranking of hard texts by the similarity of text and label (Huang et al. 2024).

    Where the highest logits of a classifier are close together, its probabilities are multiplied by
    what a sentence embedding says of the labels. Each choice is made on validation, doing nothing
    among them. Nothing runs without `sources`.
    """

    sources: distinct(Source, SOURCES, minimum=0) = Field(
        default=[],
        description="Classifiers that are reranked: stc, probe, last-layer, baselines by their "
        "names, given (all `scores`). [] = none.",
    )
    models: Models = Field(
        "all", description="Models whose classifiers are reranked, by name; all = every one."
    )
    embedder: Path | None = Field(
        None,
        description="Sentence embedding: a sentence-transformers folder, hub id, or "
        "`package:<import name>/<path inside it>`; of a plain transformer the mean over the "
        "tokens. Required with `sources`.",
    )
    revision: Text | None = Field(
        None, description="Commit, tag or branch of a hub embedder. null = the newest."
    )
    max_length: whole(1) | None = Field(
        None, description="Longest text in tokens for the embedder. null = the embedder's own."
    )
    template: Annotated[Text, AfterValidator(with_label)] = Field(
        "{label}", description="What is embedded for a label; `{label}` is its text."
    )
    label_similarity: Literal["mean", "best"] = Field(
        "mean",
        description="Of several texts for one label: the mean of their embeddings, or the most "
        "similar one.",
    )
    crossfit: whole(0) = Field(
        5,
        description="Folds, from 2 to 127, by which training texts get logits of a classifier that "
        "has not seen them, where it reads frozen features. 0 = its own logits, as in the paper.",
    )
    triplets: Triplets = Field(
        default_factory=Triplets, description="What the embedding is tuned on."
    )
    tune: Tune | None = Field(
        default_factory=Tune,
        description="How the embedding is tuned. null = it is used as it comes.",
    )
    seeds: Seeds | None = Field(
        None, description="Seeds of tuning and reranking, a run each. null = the global `seed`."
    )
    k: either(text=Literal["auto"], number=whole(2)) = Field(
        "auto",
        description="How many of the highest logits say whether a text is hard, and are reranked. "
        "auto = 3, or all labels where there are fewer.",
    )
    hardness: Literal["variance", "margin", "entropy"] = Field(
        "variance",
        description="What says how sure a classifier is: variance = of the k highest logits; "
        "margin = between the two highest probabilities; entropy = of all probabilities.",
    )
    threshold: either(text=Literal["misclassified", "validation"], number=Share) = Field(
        "misclassified",
        description="At or below which value a text is hard. misclassified = the mean over "
        "validation texts that the classifier gets wrong; a number = that share of the validation "
        "texts; validation = of ten shares, each tried with every form, the one whose reranking "
        "has the lowest log loss there, if that is lower by twice its standard error and the score "
        "does not fall by more than one (of several labels: rises). `triplets.hard_only` and "
        "`ablations` then use misclassified.",
    )
    temperature: Flag = Field(
        False,
        description="Divide logits by a temperature that is fitted on validation: for margins, "
        "entropies and reported probabilities.",
    )
    rerank: Literal["hard", "all"] = Field("hard", description="Which texts are reranked.")
    candidates: Literal["top_k", "all"] = Field(
        "top_k", description="Among which labels of a text the winner is looked for."
    )
    forms: ordered(Form) = Field(
        default=["prob"],
        description="How probability p and similarity s make a score; validation chooses. prob = "
        "p * s^power; mix = (1 - weight) * log p + weight * power * log s; mlp = a small network "
        "of both, trained on validation; paper-logits = logit * s^power; paper-banking77 = p * "
        "s^3, the largest s of the text counting as 1.",
    )
    powers: ordered(Positive) = Field(
        default=[0.5, 1.0, 2.0, 3.0],
        description="Powers to try; doing nothing is always among the choices.",
    )
    weights: ordered(Share) = Field(
        default=[0.1, 0.3, 0.5, 0.7, 0.9], description="Weights of `mix` to try."
    )
    fixed: Flag = Field(
        False,
        description="Take the first form, power and weight as they stand, as the paper does, "
        "without a choice on validation.",
    )
    ablations: Flag = Field(
        False,
        description="Also score: tuned and untuned, hard texts and all, every power and several "
        "k; and, where the embedding is tuned on cross-fitted logits, one tuned on the "
        "classifier's own: a second embedding is tuned for that.",
    )


class ScoresEntry(Closed):
    """Scores of texts that were made elsewhere: a table with a row per text, a column per label.

    They are scored beside the methods, under their name in the place of a model, and can be
    reranked.
    """

    dataset: Text = Field(description="Name of the dataset whose texts they are of.")
    task: Text | None = Field(
        None,
        description="Task whose labels they score. null = `label`; needed where the dataset is a "
        "hierarchy.",
    )
    path: Path = Field(
        description="CSV, TSV or Parquet file with a column for each label, and one that says "
        "which text it is. A relative path starts at `data_root`.",
        json_schema_extra={"examples": ["scores.csv"]},
    )
    kind: Literal["logits", "probabilities"] = Field(
        "logits",
        description="What the numbers are. Labels of a multi-label task are predicted above a "
        "logit of 0, a probability of 0.5.",
    )
    text: Column | None = Field(
        None,
        description="Column with the text, letter by letter. null = `text`, where there is no "
        "`row`.",
    )
    row: Column | None = Field(
        None,
        description="Column with the number of the text's row in the dataset's texts.parquet, from "
        "0. null = `row`, where there is such a column.",
    )
    encoding: either(text=Encoding, list=Encodings) = Field(
        "utf-8", description="Encoding of a CSV or TSV file; a list is tried in turn."
    )
