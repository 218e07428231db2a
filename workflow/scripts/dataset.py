from pathlib import Path

from probeline.workflow.job import job

with job(snakemake):
    from probeline.data.store import build_dataset

    settings = snakemake.params[0]
    folder = Path(snakemake.output.manifest).parent
    build_dataset(snakemake.wildcards.dataset, settings["spec"], folder, seed=settings["seed"])
