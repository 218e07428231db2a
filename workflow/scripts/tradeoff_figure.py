from pathlib import Path

from probeline.workflow.job import job

with job(snakemake):
    from probeline.results.figures import tradeoff_figure, write_tradeoff
    from probeline.results.summary import metric_of

    grids = {Path(path).stem: path for path in snakemake.input.grids}
    tradeoff_figure(
        grids,
        snakemake.input.scores,
        snakemake.input.layers,
        snakemake.input.get("embedding"),
        metric=metric_of(snakemake.input.scores),
        title="{dataset} / {task} / {model}".format(**dict(snakemake.wildcards.items())),
        outputs=[snakemake.output.svg, snakemake.output.png],
    )
    write_tradeoff(grids, snakemake.output.table)
