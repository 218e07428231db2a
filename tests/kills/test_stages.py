"""Each stage's job is killed at seeded moments and run again: nothing false is kept, little lost.

After every kill, what stands under the name of an artifact is whole. After the run that follows,
all results are those of the undisturbed run, outside timing fields, and nothing else is left beside
them. PROBELINE_TEST_KILLS says how many kills all stages together have.
"""

from __future__ import annotations

import collections
import os
import random
import shutil
from pathlib import Path

import pytest
from artifacts import content
from world import KILLED, SEED, check_same, largest_file, moment, of_job

pytestmark = pytest.mark.kill

KILLS = int(os.environ.get("PROBELINE_TEST_KILLS", "30"))
# How often each stage is killed, compared with others: what takes long and has a state of its own
# more often.
STAGES = {
    "texts": 2,
    "dataset": 2,
    "card": 1,
    "extract": 6,
    "join": 1,
    "probe": 2,
    "sparsify": 1,
    "aggregate": 1,
    "classifier": 3,
    "layers": 1,
    "sentence_embedding": 1,
    "tfidf": 1,
    "zero_shot": 1,
    "icl": 1,
    "given": 1,
    "path_predictions": 1,
    "finetune": 6,
    "training_figure": 1,
    "regular": 1,
    "regular_figure": 1,
    "label_tokens": 4,
    "label_tokens_figure": 1,
    "label_tokens_table": 1,
    "label_attention": 1,
    "search": 4,
    "search_report": 1,
    "search_figure": 1,
    "crossfit": 1,
    "triplets": 1,
    "embed": 4,
    "triplets_of_own_logits": 1,
    "embed_on_own_logits": 1,
    "rerank": 3,
    "lrsl_ablations": 1,
    "lrsl_tables": 1,
    "lrsl_figure": 1,
    "summary": 1,
    "comparisons": 1,
    "layer_figure": 1,
    "tradeoff_figure": 1,
}
# Steps between two checkpoints.
INTERVAL = {
    "finetune": 4,
    "regular": 4,
    "label_tokens": 4,
    "search": 2,
    "embed": 15,
    "embed_on_own_logits": 15,
}
# Forward passes of a block. While a block is computed, the one before it is written.
BLOCK_PASSES = 1


def kills_of(stage: str) -> int:
    return max(1, round(KILLS * STAGES[stage] / sum(STAGES.values())))


def test_every_stage_is_killed(world):
    assert set(world.jobs) == set(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_killed_and_run_again(stage, world, zygote, tmp_path, record_property):
    job, undisturbed, measured = world.jobs[stage], world.project(stage), world.measured[stage]
    largest = largest_file(undisturbed, job)
    arena = Path(shutil.copytree(undisturbed, tmp_path / undisturbed.name, symlinks=True))
    shutil.copytree(undisturbed.with_name(f"{undisturbed.name}-model"), tmp_path / "model")
    survived, how = 0, collections.Counter()
    for number in range(kills_of(stage)):
        dice = random.Random(f"{SEED} {stage} {number}")
        _begin(arena, stage, job)
        while True:
            kill = moment(dice, measured, largest)
            killed = zygote.run(job, arena, kill)
            if killed["status"] in KILLED:
                break
            # It was at its end already.
            assert killed["status"] == 0, zygote.said()
            _begin(arena, stage, job)
        for name, found in of_job(arena, job).items():
            assert found == content(undisturbed / name), f"{kill}: {name} is not whole"
        again = zygote.run(job, arena)
        assert again["status"] == 0, f"{kill}\n{zygote.said()}"
        check_same(arena, undisturbed, kill)
        _lost_little(stage, killed, again, measured, kill)
        survived += 1
        how.update(kill.keys())
    record_property("stage", stage)
    record_property("kills", kills_of(stage))
    record_property("survived", survived)
    record_property("how", ", ".join(f"{count} {kind}" for kind, count in sorted(how.items())))


def _begin(arena: Path, stage: str, job) -> None:
    """Nothing is left of an earlier run of the job."""
    shutil.rmtree(arena / ".probeline", ignore_errors=True)
    if stage == "search":
        (arena / job.output[0]).with_name("journal.log").unlink(missing_ok=True)


def _lost_little(stage: str, killed: dict, again: dict, measured: dict, kill: dict) -> None:
    if stage == "extract":
        assert killed["passes"] + again["passes"] - measured["passes"] <= 2 * BLOCK_PASSES, kill
    if stage in INTERVAL:
        assert killed["steps"] + again["steps"] - measured["steps"] <= INTERVAL[stage], kill
