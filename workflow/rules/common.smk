# What names may look like, and lists several stages need.

from probeline import versions
from probeline.workflow.sharing import content
from probeline.config import (
    NO_MODEL,
    PATH_TASK,
    POOLINGS,
    REPRESENTATIONS,
    SERIES,
    SLUG,
)
from probeline.workflow.needs import Needs


wildcard_constraints:
    dataset=SLUG,
    # All levels of a hierarchy together come from a rule of their own.
    task=f"(?!{PATH_TASK}/){SLUG}",
    model=SLUG,
    method=SLUG,
    representation="|".join(REPRESENTATIONS),
    pooling="|".join(POOLINGS),
    layer=r"\d{2,3}",
    seed=r"\d+",
    # What label tokens begin with and, where it is not as usual, how they read.
    init="|".join(SERIES),
    # File names of predictions: networks have their seed in them.
    source="|".join(plan.source_patterns),
    classifier="|".join(["finetune", *(f"label-tokens-{one}" for one in SERIES)]),
    worker=r"\d+",
    part=r"\d+",
    slug=r"[A-Za-z0-9][A-Za-z0-9_.-]*",


localrules:
    all,


needs = Needs(plan)
cells = [plan.cell_artifacts(*cell) for cell in plan.cells()]
paths = plan.all_paths()
figures = [
    f"results/figures/{dataset}/{task}/{model}/{name}.svg"
    for dataset, task, model in plan.cells()
    for name in ("layers", "tradeoff")
]
figures += [plan.finetuned(origin)["figure"] for origin in plan.origins]
figures += plan.label_token_figures()


def dataset_artifacts(wildcards):
    return list(plan.dataset_artifacts(wildcards.dataset).values())


def slug_shards(wildcards):
    sources = plan.slugs(wildcards.model)[wildcards.slug]
    return plan.shards(wildcards.dataset, wildcards.model, sources)


def probed_shards(wildcards):
    return plan.shards(wildcards.dataset, wildcards.model, plan.probed(wildcards.model))


def pinned_dataset(wildcards):
    """The commit of a dataset that the fetch rule brought into the cache."""
    if plan.dataset_is_fetched(wildcards.dataset):
        return f"results/datasets/{wildcards.dataset}/hub.json"
    return []


def pinned(wildcards):
    """The commit of a model that the fetch rule brought into the cache."""
    if plan.is_fetched(wildcards.model):
        return f"results/models/{wildcards.model}.json"
    return []


def memory(need, **known):
    """MB that a job asks for, by its wildcards and by what is known of its rule."""
    return lambda wildcards, attempt: need(**known, **wildcards).mem_mb(attempt)


def runtime(need, **known):
    """Minutes that a job asks for."""
    return lambda wildcards, attempt, threads: need(**known, **wildcards).runtime(attempt, threads)
