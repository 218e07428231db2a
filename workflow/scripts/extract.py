from pathlib import Path

from probeline.workflow.job import job

with job(snakemake):
    from probeline.workflow.extract import run_extract

    run_extract(
        dataset_folder=Path(snakemake.input.manifest).parent,
        out_folder=Path(snakemake.output[0]).parent,
        pinned=snakemake.input.get("pinned"),
        threads=snakemake.threads,
        shards=snakemake.params.shards,
        settings=snakemake.params.settings,
        staging=snakemake.resources.get("staging"),
    )
