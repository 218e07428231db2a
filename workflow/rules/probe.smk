# On CPUs one rule per group of layers, which all models that have it share; a job trains the probes
# of a group. Its inputs are the shards of all layers that are stored, so that another grouping or
# choice among them reruns nothing.
for group, models in plan.probe_groups().items():

    rule:
        name:
            group.rule
        input:
            dataset=dataset_artifacts,
            shards=lambda wildcards, representation=group.representation: plan.stored_shards(
                wildcards.dataset, wildcards.model, (representation, wildcards.pooling)
            ),
        output:
            [f"results/probes/{{dataset}}/{{task}}/{{model}}/{name}" for name in group.names],
        log:
            f"logs/probe/{{dataset}}/{{task}}/{{model}}/{group.representation}.{{pooling}}.{group.number}.log",
        benchmark:
            f"results/benchmarks/probe/{{dataset}}/{{task}}/{{model}}/{group.representation}.{{pooling}}.{group.number}.tsv"
        wildcard_constraints:
            model="|".join(models),
        conda:
            "../../envs/cpu.yaml"
        threads: 1
        resources:
            mem_mb=memory(needs.probes, names=group.names),
            runtime=runtime(needs.probes, names=group.names),
        params:
            lambda wildcards: plan.probe_params(wildcards.dataset, wildcards.task),
        script:
            "../scripts/probe.py"


# On a GPU one job trains all probes of a cell together. A rule each, without wildcards, for the
# reason that extraction has: Snakemake would try all probes of all models for each.
for dataset, task, model in plan.gpu_probed_cells:

    rule:
        name:
            f"probe_{dataset}.{task}.{model}"
        input:
            dataset=list(plan.dataset_artifacts(dataset).values()),
            shards=lambda wildcards, dataset=dataset, model=model: plan.stored_shards(
                dataset, model
            ),
        output:
            plan.probes(dataset, task, model, plan.probed(model)),
        log:
            f"logs/probe/{dataset}/{task}/{model}.log",
        benchmark:
            f"results/benchmarks/probe/{dataset}/{task}/{model}.tsv"
        conda:
            "../../envs/gpu.yaml"
        threads: 2
        resources:
            gpu=1,
            mem_mb=memory(needs.all_probes, dataset=dataset, task=task, model=model),
            runtime=runtime(needs.all_probes, dataset=dataset, task=task, model=model),
        params:
            plan.probe_params(dataset, task),
        script:
            "../scripts/probe.py"


rule sparsify:
    """Rank the neurons of every layer's probe by importance."""
    input:
        lambda wildcards: plan.probes(
            wildcards.dataset,
            wildcards.task,
            wildcards.model,
            [(wildcards.representation, wildcards.pooling)],
        ),
    output:
        "results/neurons/{dataset}/{task}/{model}/{representation}.{pooling}.parquet",
    log:
        "logs/sparsify/{dataset}/{task}/{model}/{representation}.{pooling}.log",
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    params:
        {"version": versions.SPARSIFY},
    script:
        "../scripts/sparsify.py"
