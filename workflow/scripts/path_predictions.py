from pathlib import Path

from probeline.workflow.job import job

with job(snakemake):
    from probeline.results.hierarchy import combine_levels

    combine_levels(
        snakemake.input.levels,
        Path(snakemake.input.dataset[0]).parent,
        snakemake.wildcards.model,
        snakemake.output[0],
        snakemake.params[0]["metric"],
    )
