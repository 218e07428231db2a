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
        {
            name: snakemake.input.get(name) or None
            for name in ("predictions", "report", "tuned", "own")
        },
        spec,
        dict(snakemake.output.items()),
        settings,
        int(snakemake.wildcards.seed),
    )
