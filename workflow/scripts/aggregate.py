from pathlib import Path

from probeline.workflow.job import job

with job(snakemake):
    from probeline.aggregate.stage import aggregate

    settings = snakemake.params[0]
    aggregate(
        snakemake.input.tables,
        snakemake.input.shards,
        Path(snakemake.input.dataset[0]).parent,
        snakemake.wildcards.task,
        snakemake.wildcards.slug,
        snakemake.output[0],
        settings["etas"],
        settings["options"],
        settings["metric"],
    )
