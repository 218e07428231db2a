rule search:
    """Try settings of a training; several jobs share a study, and each can be killed."""
    input:
        unpack(
            lambda wildcards: plan.search_first_stage(
                wildcards.dataset, wildcards.task, wildcards.model, wildcards.classifier
            )
        ),
        dataset=dataset_artifacts,
        model=lambda wildcards: plan.model_files(wildcards.model),
        pinned=pinned,
    output:
        # The journal beside it is no output: what is done stays done when a job fails.
        "results/search/{dataset}/{task}/{model}/{classifier}/worker-{worker}.json",
    log:
        "logs/search/{dataset}/{task}/{model}/{classifier}/{worker}.log",
    benchmark:
        "results/benchmarks/search/{dataset}/{task}/{model}/{classifier}/{worker}.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=memory(needs.search),
        runtime=runtime(needs.search),
    params:
        settings=lambda wildcards: plan.search_params(
            wildcards.dataset, wildcards.task, wildcards.model, wildcards.classifier
        ),
        # A function of the output is no reason to run again.
        aside=lambda wildcards, output: plan.search_aside(wildcards.classifier),
    script:
        "../scripts/search.py"


rule search_report:
    """The best settings of a study, its trials, and which settings mattered."""
    input:
        lambda wildcards: plan.search_workers(**wildcards),
    output:
        best="results/search/{dataset}/{task}/{model}/{classifier}/best.yaml",
        trials=report(
            "results/search/{dataset}/{task}/{model}/{classifier}/trials.csv",
            caption="../report/search.rst",
            category="Hyperparameter search",
            labels={
                "dataset": "{dataset}",
                "task": "{task}",
                "model": "{model}",
                "classifier": "{classifier}",
                "what": "trials",
            },
        ),
        importance="results/search/{dataset}/{task}/{model}/{classifier}/importance.csv",
    log:
        "logs/search_report/{dataset}/{task}/{model}/{classifier}.log",
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    params:
        {"version": versions.SEARCH},
    script:
        "../scripts/search_report.py"


rule search_figure:
    """Scores over the trials of a study, and the importance of each setting."""
    input:
        trials="results/search/{dataset}/{task}/{model}/{classifier}/trials.csv",
        importance="results/search/{dataset}/{task}/{model}/{classifier}/importance.csv",
        workers=lambda wildcards: plan.search_workers(**wildcards),
    output:
        svg=report(
            "results/figures/{dataset}/{task}/{model}/search-{classifier}.svg",
            caption="../report/search.rst",
            category="Hyperparameter search",
            labels={
                "dataset": "{dataset}",
                "task": "{task}",
                "model": "{model}",
                "classifier": "{classifier}",
                "what": "figure",
            },
        ),
        png="results/figures/{dataset}/{task}/{model}/search-{classifier}.png",
    log:
        "logs/search_figure/{dataset}/{task}/{model}/{classifier}.log",
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    params:
        {"version": versions.FIGURES},
    script:
        "../scripts/search_figure.py"
