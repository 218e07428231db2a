from pathlib import Path

from probeline.workflow.job import job

with job(snakemake):
    from probeline.files import read_json
    from probeline.finetune.curve import CURVE
    from probeline.results.figures import training_figure

    folder = Path(snakemake.input[0]).with_suffix("")
    training_figure(
        folder / CURVE,
        metric=read_json(folder / "training.json")["found"]["metric"],
        title="{dataset} / {task} / {model} / seed {seed}".format(
            **dict(snakemake.wildcards.items())
        ),
        outputs=list(snakemake.output),
    )
