from pathlib import Path

from probeline.workflow.job import job

with job(snakemake):
    from probeline.workflow.models import offline_embedder

    settings = snakemake.params.settings
    pinned = snakemake.input.get("pinned")
    spec = offline_embedder(settings["embedder"], pinned, snakemake.threads)

    from probeline.lrsl.stage_embed import embed
    from probeline.workflow.states import held

    names = dict(snakemake.wildcards.items())
    with held(snakemake.rule, *names.values(), made=snakemake.output.folder) as state:
        embed(
            Path(snakemake.input.dataset[0]).parent,
            snakemake.wildcards.task,
            snakemake.input.triplets,
            spec,
            snakemake.output.folder,
            snakemake.output.identity,
            state,
            settings,
            int(snakemake.wildcards.seed),
            keep_state=True,
        )
