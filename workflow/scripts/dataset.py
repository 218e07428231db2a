from pathlib import Path

from probeline.workflow.job import job

with job(snakemake):
    from probeline.data.store import build_dataset

    from probeline.workflow.models import pinned_revision
    from probeline.workflow.plan import load_plan

    # Parameters hold what is a reason to run again, and what a shared cache goes by: for texts
    # alone that is not how labels are called.
    name, part = snakemake.wildcards.dataset, snakemake.params.part
    settings = load_plan(snakemake.config).dataset_params(name)
    spec = pinned_revision(settings["spec"], snakemake.input.get("pinned"))
    folder = Path(snakemake.output[0]).parent
    build_dataset(name, spec, folder, seed=settings["seed"], parts=(part,))
