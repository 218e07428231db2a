# probeline: probes on every layer, and the sparse classifiers they lead to.
# Settings: config.yaml (docs/config.md explains every key).

import sys
from pathlib import Path

from snakemake.utils import min_version

from probeline.errors import ProbelineError
from probeline.workflow.plan import load_plan

min_version("9.27")

# A configuration given by the user stands alone: Snakemake would merge ours into it key by key.
if not workflow.config_settings.configfiles:
    own = Path("config.yaml")

    configfile: own if own.is_file() else Path(workflow.basedir) / own


try:
    plan = load_plan(config, files=workflow.configfiles)
except ProbelineError as error:
    print(error, file=sys.stderr)
    sys.exit(1)


include: "workflow/rules/common.smk"
include: "workflow/rules/dataset.smk"
include: "workflow/rules/extract.smk"
include: "workflow/rules/probe.smk"
include: "workflow/rules/aggregate.smk"
include: "workflow/rules/baselines.smk"
include: "workflow/rules/results.smk"


rule all:
    default_target: True
    input:
        rules.summary.output,
        [cell["classifier"] for cell in cells],
        [figure for figure in figures],
        [f"results/cards/{dataset}.md" for dataset in plan.datasets],
