from pathlib import Path

from probeline.workflow.job import job

with job(snakemake):
    from probeline.classifier.stage import build_classifier

    build_classifier(
        dataset_folder=Path(snakemake.input.dataset[0]).parent,
        shards=snakemake.input.shards,
        task_name=snakemake.wildcards.task,
        model_name=snakemake.wildcards.model,
        out_folder=snakemake.output.folder,
        predictions={name: snakemake.output[name] for name in ("selected", "smallest")},
        scores=snakemake.output.scores,
        **snakemake.params[0],
    )
