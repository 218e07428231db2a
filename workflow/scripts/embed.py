from probeline.workflow.job import job

with job(snakemake):
    from probeline.workflow.models import run_embed

    run_embed(
        dict(snakemake.wildcards.items()),
        snakemake.rule,
        snakemake.input,
        dict(snakemake.output.items()),
        snakemake.threads,
        snakemake.params.settings,
    )
