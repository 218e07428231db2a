from probeline.workflow.job import job

with job(snakemake):
    from probeline.lrsl.report_tables import write_report_tables

    write_report_tables(list(snakemake.input), snakemake.output.changes, snakemake.output.classes)
