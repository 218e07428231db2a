rule sentence_embedding:
    """Mean-pooled last layer, normalised, L2 logistic regression."""
    input:
        dataset=dataset_artifacts,
        shard=lambda wildcards: plan.embedding_file(wildcards.dataset, wildcards.model),
    output:
        predictions="results/predictions/{dataset}/{task}/{model}/sentence-embedding.h5",
        scores="results/scores/{dataset}/{task}/{model}/sentence-embedding.json",
    log:
        "logs/sentence_embedding/{dataset}/{task}/{model}.log",
    benchmark:
        "results/benchmarks/sentence_embedding/{dataset}/{task}/{model}.tsv"
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=memory(needs.embedding),
        runtime=runtime(needs.embedding),
    params:
        lambda wildcards: plan.embedding_params(wildcards.dataset, wildcards.task),
    script:
        "../scripts/sentence_embedding.py"


rule tfidf:
    """Words or characters counted, L2 logistic regression: the floor, without a model."""
    input:
        dataset=dataset_artifacts,
    output:
        predictions=f"results/predictions/{{dataset}}/{{task}}/{NO_MODEL}/tfidf.h5",
        scores=f"results/scores/{{dataset}}/{{task}}/{NO_MODEL}/tfidf.json",
    log:
        "logs/tfidf/{dataset}/{task}.log",
    benchmark:
        "results/benchmarks/tfidf/{dataset}/{task}.tsv"
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=memory(needs.tfidf),
        runtime=runtime(needs.tfidf),
    params:
        lambda wildcards: plan.tfidf_params(wildcards.dataset, wildcards.task),
    script:
        "../scripts/tfidf.py"


rule zero_shot:
    """The label whose text is most similar to the text, by the model's embeddings."""
    input:
        dataset=dataset_artifacts,
        shard=lambda wildcards: plan.embedding_file(wildcards.dataset, wildcards.model),
        model=lambda wildcards: plan.model_files(wildcards.model),
        pinned=pinned,
    output:
        predictions="results/predictions/{dataset}/{task}/{model}/zero-shot.h5",
        scores="results/scores/{dataset}/{task}/{model}/zero-shot.json",
    log:
        "logs/zero_shot/{dataset}/{task}/{model}.log",
    benchmark:
        "results/benchmarks/zero_shot/{dataset}/{task}/{model}.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: 2
    resources:
        gpu=1,
        mem_mb=memory(needs.zero_shot),
        runtime=runtime(needs.zero_shot),
    params:
        lambda wildcards: plan.zero_shot_params(**wildcards),
    script:
        "../scripts/zero_shot.py"


rule icl:
    """In-context learning: a causal language model reads examples and scores the labels."""
    input:
        dataset=dataset_artifacts,
        model=lambda wildcards: plan.model_files(wildcards.model),
        pinned=pinned,
        neighbours=lambda wildcards: plan.neighbours_file(wildcards.dataset, wildcards.model),
    output:
        predictions="results/predictions/{dataset}/{task}/{model}/icl-{seed}.h5",
        scores="results/scores/{dataset}/{task}/{model}/icl-{seed}.json",
    log:
        "logs/icl/{dataset}/{task}/{model}/{seed}.log",
    benchmark:
        "results/benchmarks/icl/{dataset}/{task}/{model}/{seed}.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=memory(needs.icl),
        runtime=runtime(needs.icl),
    params:
        lambda wildcards: plan.icl_params(wildcards.dataset, wildcards.task, wildcards.model),
    script:
        "../scripts/icl.py"
