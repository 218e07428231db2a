from pathlib import Path

from probeline.workflow.job import job

with job(snakemake):
    from probeline.search.stage import report

    report(
        Path(snakemake.output.best).with_name("journal.log"),
        list(snakemake.input),
        snakemake.output.best,
        snakemake.output.trials,
        snakemake.output.importance,
        "{classifier} of {model} on {dataset}/{task}".format(**dict(snakemake.wildcards.items())),
    )
