from probeline.workflow.job import job

with job(snakemake):
    from probeline.workflow.models import run_search

    run_search(
        dict(snakemake.wildcards.items()),
        snakemake.input,
        snakemake.output[0],
        snakemake.threads,
        snakemake.params.settings,
        snakemake.params.aside,
    )
