rule finetune:
    """Train a classifier on a dataset's texts; what it is and how well it does."""
    input:
        dataset=dataset_artifacts,
        model=lambda wildcards: plan.model_files(wildcards.model),
        pinned=pinned,
    output:
        folder=directory("results/finetuned/{dataset}/{task}/{model}/{seed}"),
        identity="results/finetuned/{dataset}/{task}/{model}/{seed}.json",
        predictions="results/predictions/{dataset}/{task}/{model}/finetune-{seed}.h5",
        scores="results/scores/{dataset}/{task}/{model}/finetune-{seed}.json",
    log:
        "logs/finetune/{dataset}/{task}/{model}/{seed}.log",
    benchmark:
        "results/benchmarks/finetune/{dataset}/{task}/{model}/{seed}.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=memory(needs.finetune),
        runtime=runtime(needs.finetune),
    params:
        settings=lambda wildcards: plan.finetune_params(
            wildcards.dataset, wildcards.task, wildcards.model
        ),
        # A function of the output is no reason to run again.
        aside=lambda wildcards, output: plan.finetune_aside(),
    script:
        "../scripts/finetune.py"


rule training_figure:
    """Loss and validation score over the steps of a fine-tuning."""
    input:
        # The curve lies in the folder; what stands beside it says that the folder is whole.
        "results/finetuned/{dataset}/{task}/{model}/{seed}.json",
    output:
        svg=report(
            "results/figures/{dataset}/{task}/{model}/finetune-{seed}.svg",
            caption="../report/training.rst",
            category="Fine-tuning",
            labels={
                "dataset": "{dataset}",
                "task": "{task}",
                "model": "{model}",
                "seed": "{seed}",
            },
        ),
        png="results/figures/{dataset}/{task}/{model}/finetune-{seed}.png",
    log:
        "logs/training_figure/{dataset}/{task}/{model}/{seed}.log",
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    params:
        {"version": versions.FIGURES},
    script:
        "../scripts/training_figure.py"
