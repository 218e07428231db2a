rule label_tokens:
    """Train a model in which every label is a token that reads the text."""
    input:
        unpack(
            lambda wildcards: plan.first_stage(wildcards.dataset, wildcards.task, wildcards.model)
        ),
        dataset=dataset_artifacts,
        model=lambda wildcards: plan.model_files(wildcards.model),
        pinned=pinned,
    output:
        folder=directory("results/label_tokens/{dataset}/{task}/{model}/{init}/{seed}"),
        identity="results/label_tokens/{dataset}/{task}/{model}/{init}/{seed}.json",
        predictions="results/predictions/{dataset}/{task}/{model}/label-tokens-{init}-{seed}.h5",
        scores="results/scores/{dataset}/{task}/{model}/label-tokens-{init}-{seed}.json",
    log:
        "logs/label_tokens/{dataset}/{task}/{model}/{init}/{seed}.log",
    benchmark:
        "results/benchmarks/label_tokens/{dataset}/{task}/{model}/{init}/{seed}.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=memory(needs.label_tokens),
        runtime=runtime(needs.label_tokens),
    params:
        settings=lambda wildcards: plan.label_token_params(
            wildcards.dataset, wildcards.task, wildcards.model, wildcards.init
        ),
        # A function of the output is no reason to run again.
        aside=lambda wildcards, output: plan.label_token_aside(),
    script:
        "../scripts/label_tokens.py"


rule label_tokens_figure:
    """Loss and validation score over the steps of a training with labels as tokens."""
    input:
        # The curve lies in the folder; what stands beside it says that the folder is whole.
        "results/label_tokens/{dataset}/{task}/{model}/{init}/{seed}.json",
    output:
        svg=report(
            "results/figures/{dataset}/{task}/{model}/label-tokens-{init}-{seed}.svg",
            caption="../report/training.rst",
            category="Labels as tokens",
            labels={
                "dataset": "{dataset}",
                "task": "{task}",
                "model": "{model}",
                "initialization": "{init}",
                "seed": "{seed}",
            },
        ),
        png="results/figures/{dataset}/{task}/{model}/label-tokens-{init}-{seed}.png",
    log:
        "logs/label_tokens_figure/{dataset}/{task}/{model}/{init}/{seed}.log",
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    params:
        {"version": versions.FIGURES},
    script:
        "../scripts/training_figure.py"


rule label_attention:
    """What the token of each label looks at in some test texts."""
    input:
        dataset=dataset_artifacts,
        # The classifier lies in the folder; what stands beside it says that the folder is whole.
        identity="results/label_tokens/{dataset}/{task}/{model}/{init}/{seed}.json",
        predictions="results/predictions/{dataset}/{task}/{model}/label-tokens-{init}-{seed}.h5",
    output:
        table="results/attention/{dataset}/{task}/{model}/label-tokens-{init}-{seed}.parquet",
        page=report(
            "results/attention/{dataset}/{task}/{model}/label-tokens-{init}-{seed}.html",
            caption="../report/attention.rst",
            category="Attention from labels",
            labels={
                "dataset": "{dataset}",
                "task": "{task}",
                "model": "{model}",
                "initialization": "{init}",
                "seed": "{seed}",
            },
        ),
    log:
        "logs/label_attention/{dataset}/{task}/{model}/{init}/{seed}.log",
    benchmark:
        "results/benchmarks/label_attention/{dataset}/{task}/{model}/{init}/{seed}.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: 4
    resources:
        gpu=1,
        mem_mb=memory(needs.label_attention),
        runtime=runtime(needs.label_attention),
    params:
        lambda wildcards: plan.label_attention_params(wildcards.model),
    script:
        "../scripts/label_attention.py"


rule regular:
    """Train what labels as tokens are compared with: the same settings, a regular classifier."""
    input:
        dataset=dataset_artifacts,
        model=lambda wildcards: plan.model_files(wildcards.model),
        pinned=pinned,
    output:
        folder=directory("results/regular/{dataset}/{task}/{model}/{seed}"),
        identity="results/regular/{dataset}/{task}/{model}/{seed}.json",
        predictions="results/predictions/{dataset}/{task}/{model}/regular-{seed}.h5",
        scores="results/scores/{dataset}/{task}/{model}/regular-{seed}.json",
    log:
        "logs/regular/{dataset}/{task}/{model}/{seed}.log",
    benchmark:
        "results/benchmarks/regular/{dataset}/{task}/{model}/{seed}.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=memory(needs.regular),
        runtime=runtime(needs.regular),
    params:
        settings=lambda wildcards: plan.regular_params(
            wildcards.dataset, wildcards.task, wildcards.model
        ),
        # A function of the output is no reason to run again.
        aside=lambda wildcards, output: plan.label_token_aside(),
    script:
        "../scripts/regular.py"


rule regular_figure:
    """Loss and validation score over the steps of such a training."""
    input:
        # The curve lies in the folder; what stands beside it says that the folder is whole.
        "results/regular/{dataset}/{task}/{model}/{seed}.json",
    output:
        svg=report(
            "results/figures/{dataset}/{task}/{model}/regular-{seed}.svg",
            caption="../report/training.rst",
            category="Labels as tokens",
            labels={
                "dataset": "{dataset}",
                "task": "{task}",
                "model": "{model}",
                "initialization": "regular",
                "seed": "{seed}",
            },
        ),
        png="results/figures/{dataset}/{task}/{model}/regular-{seed}.png",
    log:
        "logs/regular_figure/{dataset}/{task}/{model}/{seed}.log",
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    params:
        {"version": versions.FIGURES},
    script:
        "../scripts/training_figure.py"


rule label_tokens_table:
    """Each kind of first embeddings and way to read beside the regular classifier."""
    input:
        summary="results/summary.parquet",
        comparisons="results/comparisons.parquet",
        scores=[path for entry in plan.label_token_entries() for path in entry["scores"]],
    output:
        report(
            "results/label_tokens.csv",
            caption="../report/label_tokens.rst",
            category="Labels as tokens",
            labels={"what": "table"},
        ),
    log:
        "logs/label_tokens_table.log",
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    params:
        {"entries": plan.label_token_entries(), "version": versions.LABEL_TOKENS_TABLE},
    script:
        "../scripts/label_tokens_table.py"
