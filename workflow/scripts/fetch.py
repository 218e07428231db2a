from probeline.workflow.job import job

with job(snakemake, online=True):
    from probeline.files import write_json
    from probeline.models.hub import fetch, tokenizer_commit

    spec = snakemake.params[0]
    found = {"path": spec["path"], "commit": fetch(spec)}
    write_json(snakemake.output[0], found | tokenizer_commit(spec))
