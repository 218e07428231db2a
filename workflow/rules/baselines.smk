rule sentence_embedding:
    """Mean-pooled last layer, normalised, L2 logistic regression."""
    input:
        dataset=dataset_artifacts,
        shard=lambda wildcards: (
            f"results/activations/{wildcards.dataset}/{wildcards.model}/"
            f"{plan.embedding_shard(wildcards.model)}"
        ),
    output:
        predictions="results/predictions/{dataset}/{task}/{model}/sentence-embedding.h5",
        scores="results/scores/{dataset}/{task}/{model}/sentence-embedding.json",
    log:
        "logs/sentence_embedding/{dataset}/{task}/{model}.log",
    benchmark:
        "results/benchmarks/sentence_embedding/{dataset}/{task}/{model}.tsv"
    conda:
        "../../envs/cpu.yaml"
    params:
        lambda wildcards: plan.embedding_params(wildcards.dataset, wildcards.task),
    script:
        "../scripts/sentence_embedding.py"
