from probeline.workflow.job import job

with job(snakemake, online=True):
    from probeline.data.loaders import fetch_splits
    from probeline.files import write_json

    spec = snakemake.params[0]
    write_json(snakemake.output[0], {"path": spec["path"], "commit": fetch_splits(**spec)})
