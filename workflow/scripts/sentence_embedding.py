from pathlib import Path

from probeline.workflow.job import job

with job(snakemake):
    from probeline.baselines.sentence_embedding import sentence_embedding

    sentence_embedding(
        snakemake.input.shard,
        Path(snakemake.input.dataset[0]).parent,
        snakemake.wildcards.task,
        snakemake.wildcards.model,
        snakemake.output.predictions,
        snakemake.output.scores,
        snakemake.params[0]["options"],
        snakemake.params[0]["metric"],
    )
