from probeline.workflow.job import job

with job(snakemake):
    from probeline.results.summary import write_summary

    settings = snakemake.params[0]
    write_summary(
        settings["entries"], snakemake.output.csv, snakemake.output.parquet, settings["seed"]
    )
