rule dataset:
    """Read a dataset, encode its labels, make its splits."""
    input:
        lambda wildcards: plan.dataset_files(wildcards.dataset),
    output:
        texts="results/datasets/{dataset}/texts.parquet",
        labels="results/datasets/{dataset}/labels.parquet",
        manifest="results/datasets/{dataset}/dataset.json",
    log:
        "logs/dataset/{dataset}.log",
    benchmark:
        "results/benchmarks/dataset/{dataset}.tsv"
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
    params:
        lambda wildcards: plan.dataset_params(wildcards.dataset),
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
    params:
        {"version": versions.CARD},
    script:
        "../scripts/card.py"
