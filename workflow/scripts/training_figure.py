from pathlib import Path

from probeline.workflow.job import job

with job(snakemake):
    from probeline.files import read_json
    from probeline.finetune.curve import CURVE
    from probeline.results.figures import training_figure

    folder = Path(snakemake.input[0]).with_suffix("")
    names = dict(snakemake.wildcards.items())
    names["seed"] = f"seed {names['seed']}"
    training_figure(
        folder / CURVE,
        metric=read_json(folder / "training.json")["found"]["metric"],
        title=" / ".join(names.values()),
        outputs=list(snakemake.output),
    )
