from pathlib import Path

from probeline.workflow.job import job

with job(snakemake):
    from probeline.baselines.tfidf import tfidf

    tfidf(
        Path(snakemake.input.dataset[0]).parent,
        snakemake.wildcards.task,
        snakemake.output.predictions,
        snakemake.output.scores,
        snakemake.params[0]["options"],
        snakemake.params[0]["metric"],
    )
