from pathlib import Path

from probeline.workflow.job import job

with job(snakemake):
    from probeline.results.layers import compare_layers

    compare_layers(
        snakemake.input.probes,
        snakemake.input.shards,
        Path(snakemake.input.dataset[0]).parent,
        snakemake.wildcards.task,
        snakemake.wildcards.model,
        snakemake.output.table,
        {"probe": snakemake.output.probe, "last-layer": snakemake.output.last},
        snakemake.params[0]["metric"],
    )
