from pathlib import Path

from probeline.workflow.job import job

with job(snakemake):
    from probeline.probe.stage import probe_shards

    probe_shards(
        snakemake.input.shards,
        snakemake.output,
        Path(snakemake.input.dataset[0]).parent,
        # By the path, results/probes/{dataset}/{task}/{model}/: not every rule has wildcards.
        Path(snakemake.output[0]).parts[-3],
        snakemake.params[0]["options"],
        snakemake.params[0]["metric"],
    )
