from probeline.workflow.job import job

with job(snakemake):
    from probeline.workflow.models import run_label_attention

    run_label_attention(
        dict(snakemake.wildcards.items()),
        snakemake.input,
        dict(snakemake.output.items()),
        snakemake.threads,
        snakemake.params[0],
    )
