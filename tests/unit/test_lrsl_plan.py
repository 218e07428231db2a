"""What the rules of reranking know of the configuration."""

from __future__ import annotations

import json

import pytest

from probeline.config import validate
from probeline.workflow.plan import Plan

COMMIT = "0123456789abcdef0123456789abcdef01234567"
DATASET = {"loader": "hub", "path": "nobody/nothing", "splits": {"validation": 0.2, "test": 0.2}}


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """Plans of a model in a hub cache of this test's own."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    repo = tmp_path / "models--some--model"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs/main").write_text(COMMIT)
    (repo / "snapshots" / COMMIT).mkdir(parents=True)
    shape = {"model_type": "gpt2", "n_layer": 2, "n_embd": 8}
    (repo / "snapshots" / COMMIT / "config.json").write_text(json.dumps(shape))

    def plan(**lrsl) -> Plan:
        lrsl = {"sources": ["stc"], "embedder": "some/embedder"} | lrsl
        config = {"models": {"m": {"path": "some/model"}}, "datasets": {"d": DATASET}, "lrsl": lrsl}
        return Plan(validate(config))

    return plan


@pytest.mark.parametrize(
    "change", [{"temperature": True}, {"hardness": "margin"}, {"threshold": 0.5}, {"k": 5}]
)
@pytest.mark.parametrize("hard_only", [False, True])
def test_what_is_hard_decides_triplets_of_hard_texts_alone(planned, change, hard_only):
    triplets = {"hard_only": hard_only}
    before, after = (planned(triplets=triplets, **more) for more in ({}, change))
    same = before.triplets_params("d", "label") == after.triplets_params("d", "label")
    assert same != hard_only
