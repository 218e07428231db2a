# probeline: probes on every layer, and the sparse classifiers they lead to.
# Settings: config.yaml (docs/config.md explains every key).

from pathlib import Path

from snakemake.utils import min_version

from probeline.workflow.parsing import (
    end_badly,
    own_config,
    plan_or_exit,
    shared_or_exit,
    start_or_exit,
)
from probeline.workflow.sharing import note_use
from probeline.workflow.states import forget_finished

min_version("9.27")

# A configuration given by the user stands alone: Snakemake would merge ours into it key by key.
if not workflow.config_settings.configfiles:

    configfile: own_config(workflow.basedir)


plan = plan_or_exit(config, workflow.configfiles)
shared = shared_or_exit(workflow.workflow_settings.cache, workflow.is_main_process)


include: "workflow/rules/common.smk"
include: "workflow/rules/dataset.smk"
include: "workflow/rules/finetune.smk"
include: "workflow/rules/label_tokens.smk"
include: "workflow/rules/extract.smk"
include: "workflow/rules/probe.smk"
include: "workflow/rules/aggregate.smk"
include: "workflow/rules/baselines.smk"
include: "workflow/rules/search.smk"
include: "workflow/rules/lrsl.smk"
include: "workflow/rules/results.smk"


# What a working directory has from a shared cache stays there: `probeline cache` asks who has what.
onstart:
    start_or_exit(shared, workflow.workflow_settings.cache, workflow.local_exec)


onsuccess:
    note_use(shared)
    # What is done is known to be done: no job can be killed any more and lose it.
    forget_finished()


onerror:
    note_use(shared)
    end_badly(log)


rule all:
    default_target: True
    input:
        rules.summary.output,
        rules.comparisons.output,
        [cell["classifier"] for cell in cells],
        [figure for figure in figures],
        paths,
        plan.reranked_artifacts(),
        plan.search_artifacts(),
        plan.label_attention(),
        ["results/label_tokens.csv"] if plan.label_token_entries() else [],
        [f"results/cards/{dataset}.md" for dataset in plan.datasets],
        # Also those that no probe asks for: the configuration says what is stored. A function: the
        # jobs of a cluster read this file too, and need no list of all shards.
        lambda wildcards: [path for pair in plan.pairs for path in plan.stored_shards(*pair)],
        # Else a part that is lost would go unnoticed until its shard is read.
        lambda wildcards: [path for pair in plan.joined_pairs for path in plan.part_files(*pair)],
