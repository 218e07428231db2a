rule fetch_dataset:
    """Bring a hub dataset into the local cache and pin its commit."""
    output:
        "results/datasets/{dataset}/hub.json",
    log:
        "logs/fetch_dataset/{dataset}.log",
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    params:
        lambda wildcards: plan.fetch_dataset_params(wildcards.dataset),
    script:
        "../scripts/fetch_dataset.py"


# `--cache` shares both, so neither may hold a benchmark. What it goes by beside the settings are
# functions of input and output, since those are no reason to run again.
rule texts:
    """Read the texts of a dataset, make its splits."""
    input:
        lambda wildcards: plan.dataset_files(wildcards.dataset),
        pinned=pinned_dataset,
    output:
        texts="results/datasets/{dataset}/texts.parquet",
        manifest="results/datasets/{dataset}/texts.json",
    log:
        "logs/texts/{dataset}.log",
    cache: "omit-software"
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=memory(needs.texts),
        runtime=runtime(needs.texts),
    params:
        selection=lambda wildcards: plan.texts_params(wildcards.dataset),
        part="texts",
        name=lambda wildcards, output: wildcards.dataset,
        content=lambda wildcards, input: content(input.pinned),
    script:
        "../scripts/dataset.py"


rule dataset:
    """Encode the labels of a dataset's texts."""
    input:
        lambda wildcards: plan.dataset_files(wildcards.dataset),
        texts="results/datasets/{dataset}/texts.parquet",
        about_texts="results/datasets/{dataset}/texts.json",
        pinned=pinned_dataset,
    output:
        labels="results/datasets/{dataset}/labels.parquet",
        manifest="results/datasets/{dataset}/dataset.json",
    log:
        "logs/dataset/{dataset}.log",
    cache: "omit-software"
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=memory(needs.texts),
        runtime=runtime(needs.texts),
    params:
        settings=lambda wildcards: plan.dataset_params(wildcards.dataset),
        part="labels",
        name=lambda wildcards, output: wildcards.dataset,
        content=lambda wildcards, input: content(input.about_texts, input.pinned),
    script:
        "../scripts/dataset.py"


rule card:
    """Describe a dataset: counts, balance, empty and double texts, token lengths."""
    input:
        dataset=dataset_artifacts,
        tokens=lambda wildcards: [
            f"results/activations/{dataset}/{model}/tokens.json"
            for dataset, model in plan.pairs
            if dataset == wildcards.dataset
        ],
    output:
        json="results/cards/{dataset}.json",
        markdown=report(
            "results/cards/{dataset}.md",
            caption="../report/card.rst",
            category="Datasets",
            labels={"dataset": "{dataset}"},
        ),
    log:
        "logs/card/{dataset}.log",
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=memory(needs.card),
        runtime=runtime(needs.card),
    params:
        {"version": versions.CARD},
    script:
        "../scripts/card.py"
