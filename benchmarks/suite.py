"""Every row of the table, in the order in which they are measured."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.rows import Benchmark
from probeline.errors import ProbelineError, one_of

SUITE = (
    Benchmark(
        "P1",
        "extract, all layers to disk: <= 1.10 x the bare forward pass",
        "benchmarks.extraction:against_forward",
    ),
    Benchmark(
        "P2",
        "extract: <= 1.0 x SentenceTransformer.encode; in bfloat16 <= 0.6 x, scores within 0.3 "
        "points",
        "benchmarks.encoding:against_encode",
    ),
    Benchmark(
        "P3",
        "extract, peak memory with 10 x the texts: <= 1.1 x",
        "benchmarks.memory:peak",
    ),
    Benchmark(
        "P4",
        "probes, whole path: >= 20 x faster than the reference recipe, validation score no lower, "
        "at most half of the weights non-zero",
        "benchmarks.probes:against_reference",
    ),
    Benchmark(
        "P5",
        "objective within 1e-5 of scikit-learn's optimum",
        "benchmarks.optimum:against_scikit_learn",
    ),
    Benchmark(
        "P6",
        "aggregation, all eta x depth x penalty: >= 20 x faster than brute force, score no lower",
        "benchmarks.aggregation:against_brute_force",
    ),
    Benchmark(
        "P7",
        "default run under Snakemake: <= 1.25 x the same calls in one process",
        "benchmarks.workflow:against_one_process",
    ),
    Benchmark(
        "P8",
        "snakemake with nothing to do <= 3 s; dry run of the papers' full matrix <= 20 s",
        "benchmarks.workflow:dry_runs",
    ),
    Benchmark(
        "P9",
        "reranking 100,000 texts x 77 labels: >= 100 x faster than one at a time",
        "benchmarks.lrsl:against_loop",
    ),
    Benchmark(
        "P10",
        "predict at depth k of L, per full forward pass: <= 1.15 k/L + share of tokenization and "
        "embedding",
        "benchmarks.predict:at_depth",
    ),
    Benchmark(
        "P11",
        "bytes of a shard: <= 1.03 x 2 x width x texts",
        "benchmarks.extraction:shard_bytes",
    ),
    Benchmark(
        "P12",
        "GPU, extract in bfloat16: <= 1.10 x the bare forward pass",
        "benchmarks.gpu:extraction",
    ),
    Benchmark(
        "P13",
        "GPU, all probes of a model as one batched problem: >= 10 x faster than the CPU path",
        "benchmarks.gpu:batched_probes",
    ),
    Benchmark(
        "P14",
        "a cluster's job, papers' matrix: parsing costs <= 3 CPU seconds and 60 MB beyond "
        "Snakemake's own",
        "benchmarks.workflow:cluster_job",
    ),
    Benchmark(
        "P15",
        "predict with every block: <= 1.0 x the seconds of extraction, each from texts",
        "benchmarks.predict:against_extraction",
    ),
)


def chosen(only: str | None, suite: Sequence[Benchmark] | None = None) -> list[Benchmark]:
    """The rows that `--only` names (comma-separated, any case), or all of them.

    Raises
    ------
    ProbelineError
        If a name is none of the rows'.
    """
    suite = SUITE if suite is None else suite
    by_id = {benchmark.id: benchmark for benchmark in suite}
    names = [name.strip().upper() for name in (only or "").split(",") if name.strip()]
    for name in names:
        if name not in by_id:
            raise ProbelineError(f"--only: {one_of(name, by_id)}")
    return [benchmark for benchmark in suite if not names or benchmark.id in names]
