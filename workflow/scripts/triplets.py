from pathlib import Path

from probeline.workflow.job import job

with job(snakemake):
    from probeline.lrsl.stage_triplets import make_triplets

    settings = snakemake.params[0]
    make_triplets(
        Path(snakemake.input.dataset[0]).parent,
        snakemake.wildcards.task,
        snakemake.wildcards.source,
        snakemake.input.predictions,
        snakemake.input.get("crossfit") or None,
        snakemake.output[0],
        settings,
    )
