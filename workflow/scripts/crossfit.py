from pathlib import Path

from probeline.workflow.job import job

with job(snakemake):
    from probeline.lrsl.crossfit import crossfit

    settings = snakemake.params[0]
    # The names of files by slug stand in the parameters.
    apart = ("dataset", "chosen", *settings["inputs"])
    found = {name: files for name, files in snakemake.input.items() if name not in apart}
    crossfit(
        snakemake.wildcards.source,
        Path(snakemake.input.dataset[0]).parent,
        snakemake.wildcards.task,
        snakemake.wildcards.model,
        snakemake.output[0],
        settings["folds"],
        settings["seed"],
        found | settings["inputs"],
        settings["options"],
        settings["metric"],
    )
