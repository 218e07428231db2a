"""Where probes are trained: rules of some layers each on the CPU, one rule per cell on a GPU."""

from __future__ import annotations

import re

import pytest
import snake
import tiny_project
from tiny_project import CONFIG, DATASET, MODEL, TASK, edited

PROBES = f"results/probes/{DATASET}/{TASK}/{MODEL}"
ON_GPU = f"probe_{DATASET}.{TASK}.{MODEL}"
BLOCK = re.compile(rf"^rule {re.escape(ON_GPU)}:\n(?:    .*\n)+", re.MULTILINE)


def dry_run(folder, config) -> str:
    tiny_project.write_config(folder / "config.yaml", config)
    return snake.run(folder, "-n")


def probe_rules(printed: str) -> list[str]:
    return sorted(job.rule for job in snake.jobs(printed) if job.stage == "probe")


def test_one_job_of_a_model_on_a_gpu(project):
    apart = dry_run(project, CONFIG)
    assert probe_rules(apart) == ["probe_ffn_0_01-02"] * 2 + ["probe_hidden_0_00-02"] * 2
    together = dry_run(project, edited(("probe.device", "cuda")))
    assert probe_rules(together) == [ON_GPU]
    # The same files, and a GPU is asked for.
    (block,) = BLOCK.findall(together)
    expected = {
        f"{PROBES}/{representation}.{pooling}.{layer:02d}.h5"
        for representation, first in (("ffn", 1), ("hidden", 0))
        for pooling in ("max", "mean")
        for layer in range(first, 3)
    }
    (outputs,) = re.findall(r"^    output: (.+)$", block, re.MULTILINE)
    assert set(outputs.split(", ")) == expected
    assert "gpu=1" in block
    # Else Snakemake tries all probes of all models for each.
    assert "wildcards:" not in block
    # Jobs that follow are the same.
    others = [
        [(job.rule, sorted(job.wildcards.items())) for job in snake.jobs(printed)]
        for printed in (apart, together)
    ]
    apart, together = ([job for job in jobs if "probe_" not in job[0]] for jobs in others)
    assert sorted(apart) == sorted(together)


def test_fewer_probes_leave_the_inputs_as_they_are(project):
    """Neither a layer nor a pooling less is a reason to train again."""
    blocks = []
    for changes in ([], [("probe.layers", [1, 2]), ("probe.poolings", ["mean"])]):
        printed = dry_run(
            project, edited(("probe.device", "cuda"), ("combinations", None), *changes)
        )
        assert probe_rules(printed) == [ON_GPU]
        blocks += BLOCK.findall(printed)
    inputs = [re.findall(r"^    input: (.+)$", block, re.MULTILINE) for block in blocks]
    assert inputs[0] == inputs[1]


def test_without_a_gpu_one_line_says_what_to_do(copied):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    tiny_project.write_config(copied / "config.yaml", edited(("probe.device", "cuda")))
    done = snake.snakemake(copied, "--until", ON_GPU)
    assert done.returncode == 1
    text = (copied / f"logs/probe/{DATASET}/{TASK}/{MODEL}.log").read_text(encoding="utf-8")
    assert "Traceback" not in text
    (line,) = [line for line in text.splitlines() if " ERROR " in line]
    assert "probe.device: cuda is not available" in line and "set probe.device: cpu" in line
