from probeline.workflow.job import job

with job(snakemake):
    from probeline.results.comparisons import write_comparisons

    settings = snakemake.params[0]
    write_comparisons(
        settings["entries"], snakemake.output.csv, snakemake.output.parquet, settings["seed"]
    )
