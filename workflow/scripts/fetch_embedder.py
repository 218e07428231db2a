from probeline.workflow.job import job

with job(snakemake, online=True):
    from probeline.files import write_json
    from probeline.models.hub import fetch_embedder

    spec = snakemake.params[0]
    write_json(snakemake.output[0], {"path": spec["path"], "commit": fetch_embedder(spec)})
