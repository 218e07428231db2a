"""A tiny project whose run has every stage, and its jobs as Snakemake would start them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import tiny_project
from snake import ROOT, SNAKEFILE, environment
from tiny_language_models import build_causal
from tiny_project import CLASSES, DATASET, MODEL, edited

ASKED, GIVEN = "asked", "theirs"
CONFIG = edited(
    (f"models.{ASKED}", {"path": "./causal"}),
    ("extract.representations", ["hidden"]),
    ("extract.block_texts", 16),
    ("combinations", {}),
    ("probe.path_length", 8),
    (
        "baselines",
        ["sentence-embedding", "tfidf", "zero-shot", "icl", "finetune", "label-tokens", "regular"],
    ),
    ("icl", {"models": [ASKED], "seeds": [1], "shots": 1, "max_texts": {"test": 10}}),
    (
        "finetune",
        {"models": [MODEL], "seeds": [1], "epochs": 2, "evaluations": 2}
        | {"learning_rate": 1e-3, "batch_size": 8},
    ),
    ("label_tokens", {"models": [MODEL], "initializations": ["random"]}),
    (
        "search",
        {"classifiers": ["finetune"], "models": [MODEL], "trials": 2}
        | {"space": {"learning_rate": {"low": 1e-5, "high": 1e-2, "log": True}}},
    ),
    ("scores", {GIVEN: {"dataset": DATASET, "path": "theirs.csv", "kind": "probabilities"}}),
    (
        "lrsl",
        {"sources": ["tfidf"], "embedder": "./model", "crossfit": 2, "ablations": True}
        | {"threshold": 0.5, "tune": {"batch_size": 8, "learning_rate": 1e-3, "epochs": 3}},
    ),
)
# A hierarchy, for the one stage that only hierarchies have; its extraction is shared by two jobs.
TREE = edited(
    (f"datasets.{DATASET}.label", ["kind", "detail"]),
    ("extract.representations", ["hidden"]),
    ("extract.poolings", ["mean"]),
    ("extract.block_texts", 16),
    ("extract.parts", 2),
    ("combinations", {}),
    ("baselines", ["tfidf"]),
)
PATHS = f"results/predictions/{DATASET}/path/tfidf/tfidf.h5"
JOINED = f"results/activations/{DATASET}/{MODEL}/tokens.json"


def build_project(folder: Path) -> Path:
    """Make the project's folder; nothing has run in it."""
    _build(folder, CONFIG)
    build_causal("gpt2", folder / "causal")
    rows = tiny_project.sentences(120)
    names, rng = list(CLASSES), np.random.default_rng(0)
    known = np.eye(3)[[names.index(label) for _, label in rows]]
    p = rng.dirichlet(np.ones(3), size=len(rows)) + 0.7 * known
    frame = pd.DataFrame(p / p.sum(axis=1, keepdims=True), columns=names)
    frame.insert(0, "text", [text for text, _ in rows])
    frame.to_csv(folder / "theirs.csv", index=False)
    return folder


def build_tree(folder: Path) -> Path:
    """Make the folder of the project with a hierarchy."""
    _build(folder, TREE)
    rows = tiny_project.sentences(120)
    sizes = ("short", "long")
    levels = [(text, label, f"{sizes[len(text) > 40]} {label}") for text, label in rows]
    tiny_project.write_csv(folder / "notes.csv", levels, ("text", "kind", "detail"))
    return folder


def _build(folder: Path, config: dict) -> None:
    model = folder.with_name(f"{folder.name}-model")
    tiny_project.build_model(model)
    tiny_project.build_project(folder, model, config)


@dataclass(frozen=True)
class Job:
    """What Snakemake tells the script of a job.

    Attributes
    ----------
    names : dict of str to dict of str to [int, int or None]
        Which items of `input`, `output`, `params` and `wildcards` have a name.
    """

    rule: str
    script: str
    input: list
    output: list
    params: list
    wildcards: list
    names: dict
    threads: int
    log: list
    config: dict

    @property
    def stage(self) -> str:
        """The rule without the names of models and groups of layers."""
        return re.sub(r"^(extract|join|probe)_.*$", r"\1", self.rule)

    def plain(self) -> dict:
        return asdict(self)


def jobs_of(folder: Path, *targets: str) -> list[Job]:
    """The jobs of a project that has not run, or those of some files, each after what it needs.

    Asked of Snakemake in a process of its own: it changes directories and loggers.
    """
    line = [sys.executable, __file__, folder, *targets]
    env = environment(PYTHONPATH=os.pathsep.join(str(one) for one in sys.path))
    done = subprocess.run(line, env=env, stdout=subprocess.PIPE, check=True)
    return [Job(**one) for one in json.loads(done.stdout)]


def _ask(folder: str, *targets: str) -> list[Job]:
    from snakemake.api import SnakemakeApi
    from snakemake.settings.types import (
        ConfigSettings,
        DAGSettings,
        OutputSettings,
        Quietness,
        ResourceSettings,
    )

    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        workflow = api.workflow(
            resource_settings=ResourceSettings(cores=1, resources={"gpu": 1}),
            config_settings=ConfigSettings(),
            snakefile=SNAKEFILE,
            workdir=Path(folder),
        )
        workflow.dag(DAGSettings(targets=frozenset(targets))).execute_workflow(executor="dryrun")
        levels = workflow._workflow.dag.toposorted()
        return [_job(job) for level in levels for job in sorted(level, key=str) if job.rule.script]


def _job(job) -> Job:
    parts = {name: getattr(job, name) for name in ("input", "output", "params", "wildcards")}
    return Job(
        rule=job.rule.name,
        script=str((ROOT / "workflow" / "rules" / job.rule.script).resolve()),
        **{name: _plain(part) for name, part in parts.items()},
        names={name: dict(part._get_names()) for name, part in parts.items()},
        threads=1,
        log=_plain(job.log),
        config=job.rule.workflow.config,
    )


def _plain(values) -> list:
    return [str(value) if isinstance(value, str) else value for value in values]


if __name__ == "__main__":
    print(json.dumps([job.plain() for job in _ask(*sys.argv[1:])]))
