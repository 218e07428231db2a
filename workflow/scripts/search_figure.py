from probeline.workflow.job import job

with job(snakemake):
    from probeline.files import read_json
    from probeline.results.figures import search_figure

    search_figure(
        snakemake.input.trials,
        snakemake.input.importance,
        metric=read_json(snakemake.input.workers[0])["metric"],
        title="{dataset} / {task} / {model} / {classifier}".format(
            **dict(snakemake.wildcards.items())
        ),
        outputs=list(snakemake.output),
    )
