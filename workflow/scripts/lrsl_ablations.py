from pathlib import Path

from probeline.workflow.job import job

with job(snakemake):
    from probeline.workflow.models import offline_embedder

    settings = snakemake.params[0]
    pinned = snakemake.input.get("pinned")
    spec = offline_embedder(settings["embedder"], pinned, snakemake.threads)

    from probeline.lrsl.stage_ablations import run_ablations

    run_ablations(
        Path(snakemake.input.dataset[0]).parent,
        snakemake.wildcards.task,
        snakemake.input.predictions,
        spec,
        snakemake.input.get("tuned") or None,
        bool(snakemake.input.get("crossfit")),
        snakemake.output[0],
        settings,
        int(snakemake.wildcards.seed),
    )
