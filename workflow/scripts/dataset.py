from pathlib import Path

from probeline.workflow.job import job

with job(snakemake):
    from probeline.data.store import build_dataset

    settings, part = snakemake.params.settings, snakemake.params.part
    folder = Path(snakemake.output[0]).parent
    build_dataset(
        snakemake.wildcards.dataset, settings["spec"], folder, seed=settings["seed"], parts=(part,)
    )
