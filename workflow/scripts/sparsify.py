from probeline.workflow.job import job

with job(snakemake):
    from probeline.sparsify import sparsify

    sparsify(snakemake.input, snakemake.output[0])
