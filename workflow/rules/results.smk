rule layers:
    """Every probe's scores in one table; predictions of the best and of the last layer."""
    input:
        dataset=dataset_artifacts,
        probes=lambda wildcards: plan.probes(
            wildcards.dataset, wildcards.task, wildcards.model, plan.probed(wildcards.model)
        ),
        shards=probed_shards,
    output:
        table="results/layers/{dataset}/{task}/{model}.parquet",
        probe="results/predictions/{dataset}/{task}/{model}/probe.h5",
        last="results/predictions/{dataset}/{task}/{model}/last-layer.h5",
    log:
        "logs/layers/{dataset}/{task}/{model}.log",
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=memory(needs.layers),
        runtime=runtime(needs.layers),
    params:
        lambda wildcards: plan.layers_params(wildcards.dataset, wildcards.task),
    script:
        "../scripts/layers.py"


rule path_predictions:
    """One method's levels of a hierarchy as whole paths, on all rows."""
    input:
        dataset=dataset_artifacts,
        levels=lambda wildcards: plan.level_predictions(**wildcards),
    output:
        "results/predictions/{dataset}/path/{model}/{method}.h5",
    log:
        "logs/path_predictions/{dataset}/{model}/{method}.log",
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=memory(needs.predictions),
        runtime=runtime(needs.predictions),
    params:
        lambda wildcards: plan.path_params(wildcards.dataset),
    script:
        "../scripts/path_predictions.py"


rule summary:
    """Every score in one tidy table."""
    input:
        [list(files.values()) for files in cells],
        [list(plan.grids(*cell).values()) for cell in plan.cells()],
        plan.summary_files(),
        paths,
    output:
        csv=report("results/summary.csv", caption="../report/summary.rst", category="Summary"),
        parquet="results/summary.parquet",
    log:
        "logs/summary.log",
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=memory(needs.summary),
        runtime=runtime(needs.summary),
    params:
        {"entries": plan.summary_entries(), "seed": plan.config.seed, "version": versions.SUMMARY},
    script:
        "../scripts/summary.py"


rule comparisons:
    """The selected classifier against every other method, and each reranking against its source."""
    input:
        [list(plan.dataset_artifacts(dataset).values()) for dataset in plan.datasets],
        [
            path
            for entry in plan.comparison_entries()
            for method in entry["methods"]
            for path in method["paths"]
        ],
    output:
        csv=report(
            "results/comparisons.csv", caption="../report/comparisons.rst", category="Summary"
        ),
        parquet="results/comparisons.parquet",
    log:
        "logs/comparisons.log",
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=memory(needs.comparisons),
        runtime=runtime(needs.comparisons),
    params:
        {
            "entries": plan.comparison_entries(),
            "seed": plan.config.seed,
            "version": versions.COMPARISONS,
        },
    script:
        "../scripts/comparisons.py"


rule layer_figure:
    """Score by layer, with the last-layer and sentence-embedding lines."""
    input:
        unpack(lambda wildcards: plan.figure_inputs(**wildcards)),
    output:
        svg=report(
            "results/figures/{dataset}/{task}/{model}/layers.svg",
            caption="../report/layers.rst",
            category="Score by layer",
            labels={"dataset": "{dataset}", "task": "{task}", "model": "{model}"},
        ),
        png="results/figures/{dataset}/{task}/{model}/layers.png",
    log:
        "logs/layer_figure/{dataset}/{task}/{model}.log",
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    params:
        {"version": versions.FIGURES},
    script:
        "../scripts/layer_figure.py"


rule tradeoff_figure:
    """Score against the number of neurons kept."""
    input:
        unpack(lambda wildcards: plan.figure_inputs(**wildcards)),
        grids=lambda wildcards: list(plan.grids(**wildcards).values()),
    output:
        svg=report(
            "results/figures/{dataset}/{task}/{model}/tradeoff.svg",
            caption="../report/tradeoff.rst",
            category="Score against neurons",
            labels={"dataset": "{dataset}", "task": "{task}", "model": "{model}"},
        ),
        png="results/figures/{dataset}/{task}/{model}/tradeoff.png",
        table="results/tradeoff/{dataset}/{task}/{model}.csv",
    log:
        "logs/tradeoff_figure/{dataset}/{task}/{model}.log",
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    params:
        {"version": versions.FIGURES},
    script:
        "../scripts/tradeoff_figure.py"
