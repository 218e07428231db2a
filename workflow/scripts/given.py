from pathlib import Path

from probeline.workflow.job import job

with job(snakemake):
    from probeline.lrsl.outside import given_scores

    settings = snakemake.params[0]
    given_scores(
        snakemake.input.scores,
        Path(snakemake.input.dataset[0]).parent,
        snakemake.wildcards.task,
        snakemake.wildcards.model,
        settings["kind"],
        snakemake.output.predictions,
        snakemake.output.scores,
        settings["text"],
        settings["row"],
        settings["encodings"],
        settings["metric"],
    )
