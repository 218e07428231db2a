from probeline.workflow.job import job

with job(snakemake):
    from probeline.results.figures import layer_figure
    from probeline.results.summary import metric_of

    layer_figure(
        snakemake.input.layers,
        snakemake.input.get("embedding"),
        metric=metric_of(snakemake.input.scores),
        title="{dataset} / {task} / {model}".format(**dict(snakemake.wildcards.items())),
        outputs=list(snakemake.output),
    )
