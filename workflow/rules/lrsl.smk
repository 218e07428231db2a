rule given:
    """Scores that were made elsewhere, as predictions."""
    input:
        dataset=dataset_artifacts,
        scores=lambda wildcards: plan.given_file(wildcards.model),
    output:
        predictions="results/predictions/{dataset}/{task}/{model}/given.h5",
        scores="results/scores/{dataset}/{task}/{model}/given.json",
    log:
        "logs/given/{dataset}/{task}/{model}.log",
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=memory(needs.predictions),
        runtime=runtime(needs.predictions),
    params:
        lambda wildcards: plan.given_params(wildcards.model),
    script:
        "../scripts/given.py"


rule fetch_embedder:
    """Bring a hub embedder into the local cache and pin its commit."""
    output:
        "results/lrsl/embedder.json",
    log:
        "logs/fetch_embedder.log",
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    params:
        {"path": plan.config.lrsl.embedder, "revision": plan.config.lrsl.revision},
    script:
        "../scripts/fetch_embedder.py"


rule crossfit:
    """Logits of the training texts by classifiers that have not seen them."""
    input:
        unpack(
            lambda wildcards: {
                "dataset": dataset_artifacts(wildcards),
                **plan.crossfit_inputs(**wildcards),
            }
        ),
    output:
        "results/lrsl/{dataset}/{task}/{model}/{source}/crossfit.h5",
    log:
        "logs/crossfit/{dataset}/{task}/{model}/{source}.log",
    benchmark:
        "results/benchmarks/crossfit/{dataset}/{task}/{model}/{source}.tsv"
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=memory(needs.crossfit),
        runtime=runtime(needs.crossfit),
    params:
        lambda wildcards: plan.crossfit_params(**wildcards),
    script:
        "../scripts/crossfit.py"


rule triplets:
    """A text, its label's text, the text of a wrong label that the classifier ranks high."""
    input:
        dataset=dataset_artifacts,
        predictions="results/predictions/{dataset}/{task}/{model}/{source}.h5",
        crossfit=lambda wildcards: plan.crossfitted(**wildcards),
    output:
        "results/lrsl/{dataset}/{task}/{model}/{source}/triplets.parquet",
    log:
        "logs/triplets/{dataset}/{task}/{model}/{source}.log",
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=memory(needs.predictions),
        runtime=runtime(needs.predictions),
    params:
        lambda wildcards: plan.triplets_params(wildcards.dataset, wildcards.task),
    script:
        "../scripts/triplets.py"


rule embed:
    """Tune the sentence embedding, so that texts are close to what their labels mean."""
    input:
        dataset=dataset_artifacts,
        triplets="results/lrsl/{dataset}/{task}/{model}/{source}/triplets.parquet",
        embedder=plan.embedder_inputs,
        pinned=plan.embedder_pin,
    output:
        folder=directory("results/lrsl/{dataset}/{task}/{model}/{source}/embedding/{seed}"),
        identity="results/lrsl/{dataset}/{task}/{model}/{source}/embedding/{seed}.json",
    log:
        "logs/embed/{dataset}/{task}/{model}/{source}/{seed}.log",
    # Shared by what it reads, however that was made; a cached rule may hold no benchmark.
    cache: "omit-software"
    conda:
        "../../envs/gpu.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=memory(needs.embed),
        runtime=runtime(needs.embed),
    params:
        settings=lambda wildcards: plan.tune_params(wildcards.dataset, wildcards.task),
        task=lambda wildcards, output: wildcards.task,
        seed=lambda wildcards, output: wildcards.seed,
        content=lambda wildcards, input: content(
            # Of the dataset the manifest, which tells what is in the other files.
            input.triplets,
            input.dataset[-1],
            input.pinned,
        ),
    script:
        "../scripts/embed.py"


use rule triplets as triplets_of_own_logits with:
    input:
        dataset=dataset_artifacts,
        predictions="results/predictions/{dataset}/{task}/{model}/{source}.h5",
    output:
        "results/lrsl/{dataset}/{task}/{model}/{source}/own/triplets.parquet",
    log:
        "logs/triplets_of_own_logits/{dataset}/{task}/{model}/{source}.log",


use rule embed as embed_on_own_logits with:
    input:
        dataset=dataset_artifacts,
        triplets="results/lrsl/{dataset}/{task}/{model}/{source}/own/triplets.parquet",
        embedder=plan.embedder_inputs,
        pinned=plan.embedder_pin,
    output:
        folder=directory("results/lrsl/{dataset}/{task}/{model}/{source}/own/embedding/{seed}"),
        identity="results/lrsl/{dataset}/{task}/{model}/{source}/own/embedding/{seed}.json",
    log:
        "logs/embed_on_own_logits/{dataset}/{task}/{model}/{source}/{seed}.log",


rule rerank:
    """Rerank hard texts by the meaning of their labels, as validation chooses; report it."""
    input:
        dataset=dataset_artifacts,
        predictions="results/predictions/{dataset}/{task}/{model}/{source}.h5",
        tuned=lambda wildcards: plan.tuned(**wildcards),
        embedder=plan.embedder_inputs,
        pinned=plan.embedder_pin,
    output:
        folder=directory("results/lrsl/{dataset}/{task}/{model}/{source}/reranker/{seed}"),
        predictions="results/predictions/{dataset}/{task}/{model}/lrsl-{source}-{seed}.h5",
        scores="results/scores/{dataset}/{task}/{model}/lrsl-{source}-{seed}.json",
        report="results/lrsl/{dataset}/{task}/{model}/{source}/report/{seed}.json",
        examples=report(
            "results/lrsl/{dataset}/{task}/{model}/{source}/examples/{seed}.csv",
            caption="../report/examples.rst",
            category="Reranking",
            labels={
                "dataset": "{dataset}",
                "task": "{task}",
                "model": "{model}",
                "source": "{source}",
                "seed": "{seed}",
            },
        ),
    log:
        "logs/rerank/{dataset}/{task}/{model}/{source}/{seed}.log",
    benchmark:
        "results/benchmarks/rerank/{dataset}/{task}/{model}/{source}/{seed}.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=memory(needs.rerank),
        runtime=runtime(needs.rerank),
    params:
        lambda wildcards: plan.rerank_params(wildcards.dataset, wildcards.task),
    script:
        "../scripts/rerank.py"


rule lrsl_ablations:
    """Every part of a reranking with and without: tuning, cross-fitting, hard texts only, power, k."""
    input:
        dataset=dataset_artifacts,
        predictions="results/predictions/{dataset}/{task}/{model}/{source}.h5",
        report="results/lrsl/{dataset}/{task}/{model}/{source}/report/{seed}.json",
        tuned=lambda wildcards: plan.tuned(**wildcards),
        own=lambda wildcards: plan.tuned_on_own(**wildcards),
        embedder=plan.embedder_inputs,
        pinned=plan.embedder_pin,
    output:
        table="results/lrsl/{dataset}/{task}/{model}/{source}/ablations/{seed}.parquet",
        csv=report(
            "results/lrsl/{dataset}/{task}/{model}/{source}/ablations/{seed}.csv",
            caption="../report/ablations.rst",
            category="Reranking",
            labels={
                "dataset": "{dataset}",
                "task": "{task}",
                "model": "{model}",
                "source": "{source}",
                "seed": "{seed}",
            },
        ),
        curve="results/lrsl/{dataset}/{task}/{model}/{source}/ablations/{seed}.json",
    log:
        "logs/lrsl_ablations/{dataset}/{task}/{model}/{source}/{seed}.log",
    conda:
        "../../envs/gpu.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=memory(needs.ablations),
        runtime=runtime(needs.ablations),
    params:
        lambda wildcards: plan.ablations_params(wildcards.dataset, wildcards.task),
    script:
        "../scripts/lrsl_ablations.py"


rule lrsl_tables:
    """Scores before and after, texts fixed and broken, of all and by class, of all seeds."""
    input:
        lambda wildcards: plan.reports(**wildcards),
    output:
        changes=report(
            "results/lrsl/{dataset}/{task}/{model}/{source}/changes.csv",
            caption="../report/changes.rst",
            category="Reranking",
            labels={
                "dataset": "{dataset}",
                "task": "{task}",
                "model": "{model}",
                "source": "{source}",
            },
        ),
        classes=report(
            "results/lrsl/{dataset}/{task}/{model}/{source}/classes.csv",
            caption="../report/classes.rst",
            category="Reranking",
            labels={
                "dataset": "{dataset}",
                "task": "{task}",
                "model": "{model}",
                "source": "{source}",
            },
        ),
    log:
        "logs/lrsl_tables/{dataset}/{task}/{model}/{source}.log",
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    params:
        {"version": versions.LRSL_TABLES},
    script:
        "../scripts/lrsl_tables.py"


rule lrsl_figure:
    """The score by the share of texts that are reranked."""
    input:
        reports=lambda wildcards: plan.reports(**wildcards),
        curves=lambda wildcards: plan.full_curves(**wildcards),
    output:
        svg=report(
            "results/figures/{dataset}/{task}/{model}/lrsl-{source}.svg",
            caption="../report/reranked.rst",
            category="Reranking",
            labels={
                "dataset": "{dataset}",
                "task": "{task}",
                "model": "{model}",
                "source": "{source}",
            },
        ),
        png="results/figures/{dataset}/{task}/{model}/lrsl-{source}.png",
    log:
        "logs/lrsl_figure/{dataset}/{task}/{model}/{source}.log",
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    params:
        {"version": versions.FIGURES},
    script:
        "../scripts/lrsl_figure.py"
