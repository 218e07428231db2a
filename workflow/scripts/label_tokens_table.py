from probeline.workflow.job import job

with job(snakemake):
    from probeline.results.label_tokens import write_label_tokens

    write_label_tokens(
        snakemake.input.summary,
        snakemake.input.comparisons,
        snakemake.params[0]["entries"],
        snakemake.output[0],
    )
