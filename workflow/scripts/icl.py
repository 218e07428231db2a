from pathlib import Path

from probeline.workflow.job import job

with job(snakemake):
    from probeline.workflow.models import offline_spec

    settings = snakemake.params[0]
    spec = offline_spec(settings["spec"], snakemake.input.get("pinned"), snakemake.threads)

    from probeline.baselines.icl.stage import icl

    icl(
        Path(snakemake.input.dataset[0]).parent,
        snakemake.wildcards.task,
        spec,
        snakemake.wildcards.model,
        snakemake.output.predictions,
        snakemake.output.scores,
        settings["options"],
        int(snakemake.wildcards.seed),
        settings["metric"],
        snakemake.input.get("neighbours") or None,
    )
