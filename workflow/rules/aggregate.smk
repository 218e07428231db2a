rule aggregate:
    """Search eta x depth x penalty over the kept neurons of all layers."""
    input:
        dataset=dataset_artifacts,
        tables=lambda wildcards: plan.tables(**wildcards),
        shards=slug_shards,
    output:
        "results/aggregates/{dataset}/{task}/{model}/{slug}.parquet",
    log:
        "logs/aggregate/{dataset}/{task}/{model}/{slug}.log",
    benchmark:
        "results/benchmarks/aggregate/{dataset}/{task}/{model}/{slug}.tsv"
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=memory(needs.aggregate),
        runtime=runtime(needs.aggregate),
    params:
        lambda wildcards: plan.aggregate_params(wildcards.dataset, wildcards.task),
    script:
        "../scripts/aggregate.py"


rule classifier:
    """Choose among all grids by validation, score on test, write the classifier folder."""
    input:
        dataset=dataset_artifacts,
        grids=lambda wildcards: list(plan.grids(**wildcards).values()),
        tables=lambda wildcards: [
            f"results/neurons/{wildcards.dataset}/{wildcards.task}/{wildcards.model}/{r}.{p}.parquet"
            for r, p in plan.probed(wildcards.model)
        ],
        shards=probed_shards,
    output:
        folder=directory("results/classifiers/{dataset}/{task}/{model}"),
        selected="results/predictions/{dataset}/{task}/{model}/stc.h5",
        smallest="results/predictions/{dataset}/{task}/{model}/stc-smallest.h5",
        scores="results/scores/{dataset}/{task}/{model}/stc.json",
    log:
        "logs/classifier/{dataset}/{task}/{model}.log",
    benchmark:
        "results/benchmarks/classifier/{dataset}/{task}/{model}.tsv"
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=memory(needs.classifier),
        runtime=runtime(needs.classifier),
    params:
        lambda wildcards: plan.classifier_params(**wildcards),
    script:
        "../scripts/classifier.py"
