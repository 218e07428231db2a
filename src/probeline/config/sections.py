"""The settings of each stage. A stage's job gets its own section and nothing else."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from probeline.config.kinds import (
    POOLINGS,
    REPRESENTATIONS,
    ClassWeight,
    Closed,
    Flag,
    Fraction,
    Parts,
    Penalties,
    Pooling,
    Representation,
    Share,
    distinct,
    either,
    number,
    whole,
)

Representations = distinct(Representation, REPRESENTATIONS)
Poolings = distinct(Pooling, POOLINGS)


class Extract(Closed):
    """What is computed and stored: one shard per representation, layer and pooling.

    All of them come out of one forward pass over the texts.
    """

    representations: Representations = Field(
        default=["ffn", "hidden"],
        description="ffn = input of the feed-forward block's output projection (layers 1 to L); "
        "hidden = output of the block (0 = embeddings, then 1 to L); decoder-... the same in the "
        "decoder of an encoder-decoder.",
    )
    poolings: Poolings = Field(
        default=["first", "last", "max", "mean"],
        description="How a text's tokens become one vector: the first token, the last, the maximum "
        "or the mean over all. Padding never counts.",
    )
    layers: either(text=Literal["all"], list=distinct(whole(0))) = Field(
        "all",
        description="Layer numbers to store, which every model must have; 0 = embeddings (hidden "
        "only). Blocks above the last one are not computed; `last-layer` is the last one probed.",
    )
    storage_dtype: Literal["float16", "float32"] = Field(
        "float16",
        description="Number type on disk. float16 takes half the space; a value it cannot hold "
        "stops the job and is named.",
    )
    block_texts: whole(1) = Field(
        512,
        description="Texts per block: the unit in which texts are sorted by length, and at which "
        "an interrupted extraction goes on.",
    )
    parts: Parts = Field(
        1,
        description="Jobs that share an extraction, each with a range of whole blocks: for large "
        "data and several GPUs or nodes. Same bits whatever their number; another number extracts "
        "anew. `runs` may say it for some models and datasets.",
    )


class Probe(Closed):
    """One sparse logistic regression per representation, layer and pooling, on what is stored."""

    representations: either(text=Literal["all"], list=Representations) = Field(
        "all", description="all = what `extract` stores, or a part of it."
    )
    poolings: either(text=Literal["all"], list=Poolings) = Field(
        "all", description="all = what `extract` stores, or a part of it."
    )
    layers: either(text=Literal["all"], list=distinct(whole(0))) = Field(
        "all",
        description="Layer numbers to probe; 0 = embeddings (hidden only). all = what `extract` "
        "stores.",
    )
    standardize: Flag = Field(
        True, description="Scale each neuron by its mean and standard deviation on train."
    )
    penalty: Literal["l1", "group-l1"] = Field(
        "l1",
        description="l1 = each weight is in or out by itself; group-l1 = a neuron is in or out for "
        "all classes together (the same as l1 for two classes).",
    )
    penalties: Penalties = Field(
        "auto",
        description="auto = a path from the largest useful penalty down, or scikit-learn C values, "
        "such as [0.1, 0.2, 1, 10, 100].",
    )
    path_length: whole(1) = Field(10, description="Automatic path: number of penalties.")
    path_ratio: Fraction = Field(
        0.005, description="Automatic path: smallest penalty divided by the largest."
    )
    l1_ratio: Share = Field(
        0.2,
        description="1 = `penalty` alone (l1: lasso); between 0 and 1 = elastic net, the rest L2.",
    )
    max_density: Share = Field(
        0.5,
        description="Probes with a larger share of their weights non-zero are not chosen, and an "
        "automatic path ends there; where all stated `penalties` are too dense, the sparsest is "
        "taken. 1 = no limit.",
    )
    class_weight: ClassWeight = Field(
        "auto",
        description="balanced = rare classes weigh as much as frequent ones; null = every text "
        "counts the same; auto = both are tried where the metric averages over classes (macro-f1, "
        "matthews), null elsewhere.",
    )
    tolerance: Fraction = Field(
        0.005, description="Relative duality gap at which a fit counts as converged."
    )
    max_iterations: whole(1) = Field(
        50,
        description="Newton steps per penalty after which a fit stops and is marked as such; on a "
        "GPU rounds of 20 accelerated steps.",
    )
    device: Literal["cpu", "cuda"] = Field(
        "cpu",
        description="cpu = jobs of a few probes each, as many at a time as there are cores; cuda = "
        "all probes of a model, dataset and task together in one job on one NVIDIA GPU. Same "
        "penalties, choices and certificates; weights agree within `tolerance`.",
    )
    layers_per_job: either(text=Literal["auto"], number=whole(1)) = Field(
        "auto", description="Layers one job probes on the CPU. auto = by the model's size."
    )


class Sparsify(Closed):
    """Which neurons of each layer are kept: the most important ones of its probe."""

    etas: distinct(Share) = Field(
        default=[0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8],
        description="Shares of a probe's squared weight that its kept neurons must reach. All are "
        "tried; validation chooses.",
    )


class Aggregate(Closed):
    """The classifier over the kept neurons of layers 0 to a depth, chosen on validation."""

    depths: either(text=Literal["all"], list=distinct(whole(0))) = Field(
        "all", description="Depths to try; depth k uses the first k blocks."
    )
    penalties: Penalties = Field(
        "auto", description="auto = a path from the largest useful penalty down, or C values."
    )
    path_length: whole(1) = Field(8, description="Automatic path: number of penalties.")
    path_ratio: Fraction = Field(
        0.001, description="Automatic path: smallest penalty divided by the largest."
    )
    l1_ratios: distinct(number(ge=0, le=1)) = Field(
        default=[0.0], description="0 = L2, 1 = L1, between = elastic net. All are tried."
    )
    class_weight: ClassWeight = Field(
        "auto",
        description="balanced = rare classes weigh as much as frequent ones; null = every text "
        "counts the same; auto = both are tried where the metric averages over classes (macro-f1, "
        "matthews), null elsewhere.",
    )
    tolerance: Fraction = Field(
        0.005,
        description="Relative duality gap at which a fit counts as converged; the chosen "
        "classifier is fitted again to a tenth of it.",
    )
    max_iterations: whole(1) = Field(
        100, description="Iterations per penalty after which a fit stops and is marked as such."
    )
    select: Literal["best", "sparsest", "shallowest"] = Field(
        "best",
        description="Which one becomes the classifier: the best on validation (where the metric is "
        "a share of texts: the lowest log loss among those within half a standard error of the "
        "highest score), or the one with the "
        "fewest neurons or blocks whose score is within `within` of the best.",
    )
    within: number(ge=0, le=1) = Field(
        0.005,
        description="What `sparsest` and `shallowest` may lose, in units of the score; also for "
        "the `smallest` row of the summary.",
    )
