rule fetch:
    """Bring a hub model into the local cache and pin its commit."""
    output:
        "results/models/{model}.json",
    log:
        "logs/fetch/{model}.log",
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    params:
        lambda wildcards: plan.fetch_params(wildcards.model),
    script:
        "../scripts/fetch.py"


# One rule per pair, without wildcards: of rules whose outputs begin alike up to the first wildcard,
# Snakemake tries each for every file, and shards are most of a run's files. All are named, so that
# `--cache` can share them; a cached rule may hold no benchmark, timing.json stands in. Of what other
# rules make, the cache knows how and not what. So `content` tells it the texts and the commit; models
# that are trained here are extracted anew.
# Jobs that share an extraction have their part as a wildcard, and write into a folder of their own.
for dataset, model in plan.pairs:

    rule:
        name:
            # No name of the configuration holds a dot: two pairs never have one rule's name.
            f"extract_{dataset}.{model}"
        input:
            texts=f"results/datasets/{dataset}/texts.parquet",
            manifest=f"results/datasets/{dataset}/texts.json",
            model=plan.model_files(model),
            pinned=f"results/models/{model}.json" if plan.is_fetched(model) else [],
        output:
            multiext(
                f"results/activations/{plan.extract_place(dataset, model)}/",
                *plan.extract_names(dataset, model),
            ),
        log:
            f"logs/extract/{plan.extract_place(dataset, model)}.log",
        cache: plan.cached(model)
        conda:
            "../../envs/gpu.yaml"
        threads: 8
        resources:
            gpu=1,
            mem_mb=memory(needs.extract, dataset=dataset, model=model),
            runtime=runtime(needs.extract, dataset=dataset, model=model),
        params:
            settings=lambda wildcards, dataset=dataset, model=model: plan.part_params(
                dataset, model, wildcards
            ),
            # Functions of input or output count for the cache, not as a reason to run again.
            shards=lambda wildcards, output: [Path(path).name for path in output],
            content=lambda wildcards, input: content(input.manifest, input.pinned),
        script:
            "../scripts/extract.py"


# Many parts of a shard become one, by an index: nothing is copied.
for dataset, model in plan.joined_pairs:

    rule:
        name:
            f"join_{dataset}.{model}"
        input:
            # One file for all that a job writes: Snakemake looks at each for milliseconds.
            lambda wildcards, dataset=dataset, model=model: plan.part_files(
                dataset, model, last=True
            ),
        output:
            plan.stored_shards(dataset, model),
            tokens=f"results/activations/{dataset}/{model}/tokens.json",
            timing=f"results/activations/{dataset}/{model}/timing.json",
        log:
            f"logs/join/{dataset}/{model}.log",
        localrule: True
        conda:
            "../../envs/cpu.yaml"
        params:
            plan.join_params(dataset, model),
        script:
            "../scripts/join.py"
