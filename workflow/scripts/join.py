from pathlib import Path

from probeline.workflow.job import job

with job(snakemake):
    from probeline.activations.join import join_parts

    tokens = Path(snakemake.output.tokens)
    shards = [Path(path).name for path in snakemake.output if path.endswith(".h5")]
    join_parts(tokens.parent, snakemake.params[0]["parts"], shards)
