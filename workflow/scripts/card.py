from pathlib import Path

from probeline.workflow.job import job

with job(snakemake):
    from probeline.data.card import write_card
    from probeline.files import read_json

    lengths = {Path(path).parent.name: read_json(path) for path in snakemake.input.tokens}
    folder = Path(snakemake.input.dataset[0]).parent
    write_card(folder, snakemake.output.json, snakemake.output.markdown, lengths)
