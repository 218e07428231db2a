"""Jobs of the tiny project's stages, and which stages follow on which."""

from __future__ import annotations

# Jobs of one (dataset, model) pair of the tiny project, stage by stage.
PAIR = {
    "extract": 1,
    "probe": 4,
    "sparsify": 4,
    "aggregate": 5,
    "classifier": 1,
    "sentence_embedding": 1,
    "layers": 1,
    "layer_figure": 1,
    "tradeoff_figure": 1,
}
ALL = {"texts": 1, "dataset": 1, "card": 1, "tfidf": 1, "comparisons": 1, "summary": 1, **PAIR}
# Another reading of the labels: the texts stay, and so do their activations.
FROM_DATASET = tuple(stage for stage in ALL if stage not in ("texts", "extract"))
FIGURES = ("layer_figure", "tradeoff_figure")
# One job each over all pairs.
TABLES = ("comparisons", "summary")
END = ("classifier", *TABLES, *FIGURES)
FROM_AGGREGATE = ("aggregate", *END)
FROM_SPARSIFY = ("sparsify", "layers", *FROM_AGGREGATE)
FROM_PROBE = ("probe", *FROM_SPARSIFY)
FROM_EXTRACT = ("extract", "card", "sentence_embedding", *FROM_PROBE)


def table(*stages: str, **counts: int) -> dict[str, int]:
    """Return the jobs of `stages`, all of them unless `counts` says otherwise, by name."""
    return dict(sorted(({stage: ALL[stage] for stage in stages} | counts).items()))
