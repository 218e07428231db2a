from pathlib import Path

from probeline.workflow.job import job

with job(snakemake):
    from probeline.workflow.models import offline_embedder

    settings = snakemake.params[0]
    pinned = snakemake.input.get("pinned")
    spec = offline_embedder(settings["embedder"], pinned, snakemake.threads)

    from probeline.lrsl.stage_rerank import rerank_predictions

    names = dict(snakemake.wildcards.items())
    rerank_predictions(
        Path(snakemake.input.dataset[0]).parent,
        names,
        snakemake.input.predictions,
        spec,
        snakemake.input.get("tuned") or None,
        dict(snakemake.output.items()),
        settings,
    )
