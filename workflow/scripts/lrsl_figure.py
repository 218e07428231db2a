from probeline.workflow.job import job

with job(snakemake):
    from probeline.results.figures import reranked_figure

    reranked_figure(
        list(snakemake.input.reports),
        title="{dataset} / {task} / {model}: {source}".format(**dict(snakemake.wildcards.items())),
        outputs=[snakemake.output.svg, snakemake.output.png],
        curves=list(snakemake.input.curves),
    )
