from probeline.workflow.job import job

with job(snakemake):
    from probeline.workflow.models import run_regular

    run_regular(
        dict(snakemake.wildcards.items()),
        snakemake.input,
        dict(snakemake.output.items()),
        snakemake.threads,
        snakemake.params.settings,
        snakemake.params.aside,
    )
