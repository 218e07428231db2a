"""Groups of layers that one job probes: all of a model's, each once, and shared between models."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import papers
from probeline.config import validate
from probeline.models.reference import ModelShape
from probeline.workflow.plan import Plan

DATASET = {"loader": "hub", "path": "nobody/nothing", "splits": {"validation": 0.2, "test": 0.2}}
WIDTHS = st.sampled_from([None, 16, 768, 1000, 3000, 20_000])
COMMIT = "0123456789abcdef0123456789abcdef01234567"
GPT2 = {"model_type": "gpt2", "n_layer": 200, "n_embd": 2000}


@pytest.fixture(scope="module", autouse=True)
def hub(tmp_path_factory):
    """A hub cache with one model's config.json."""
    cache = tmp_path_factory.mktemp("hub")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_CACHE", str(cache))
        fetch(cache, "some/model")
        yield cache


def fetch(cache, repo: str) -> None:
    folder = cache / f"models--{repo.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    (folder / "snapshots" / COMMIT).mkdir(parents=True)
    (folder / "snapshots" / COMMIT / "config.json").write_text(json.dumps(GPT2))


def planned(models: dict, **probe) -> Plan:
    return Plan(validate({"models": models, "datasets": {"texts": DATASET}, "probe": probe}))


def plan_of(shapes: list[ModelShape], **probe) -> Plan:
    """A plan for models that lie in the hub cache with any shape."""
    models = {f"m{n}": {"path": "some/model"} for n in range(len(shapes))}
    plan = planned(models, **probe)
    plan.shapes.update(zip(models, shapes, strict=True))
    return plan


@given(
    depths=st.lists(st.tuples(st.integers(1, 120), WIDTHS), min_size=1, max_size=5),
    size=st.one_of(st.just("auto"), st.integers(1, 12)),
    layers=st.one_of(st.just("all"), st.just([0, 1, 5, 11, 12, 100, 101])),
)
@settings(deadline=None, max_examples=60)
def test_every_probe_is_in_one_group_of_its_model(depths, size, layers):
    shapes = [ModelShape(depth, hidden_width=width, ffn_width=width) for depth, width in depths]
    plan = plan_of(shapes, layers_per_job=size, layers=layers)
    groups = plan.probe_groups()
    for model in plan.models:
        own = [group for group, models in groups.items() if model in models]
        for representation in plan.representations(model):
            parts = [group for group in own if group.representation == representation]
            parts.sort(key=lambda group: group.number)
            assert [group.number for group in parts] == list(range(len(parts)))
            found = [name.format(pooling="max") for group in parts for name in group.names]
            assert found == plan.names(model, representation, "max")
    assert max(Counter(group.rule for group in groups).values()) == 1


@pytest.mark.parametrize("width, first", [(16, "00-12"), (1000, "00-09"), (20_000, "00")])
def test_a_job_has_the_more_layers_the_narrower_they_are(width, first):
    plan = plan_of([ModelShape(12, hidden_width=width)])
    rules = [group.rule for group in plan.probe_groups() if group.representation == "hidden"]
    assert rules[0] == f"probe_hidden_0_{first}"


def test_groups_stay_when_a_run_fetches_the_model(hub):
    models = {"late": {"path": "some/other", "layers": 200}}
    before = planned(models).probe_groups()
    fetch(hub, "some/other")
    assert planned(models).shapes["late"].hidden_width == 2000
    assert planned(models).probe_groups() == before


def test_models_alike_share_their_groups(tmp_path):
    shapes = [ModelShape(12, hidden_width=768, ffn_width=3072)] * 3
    assert set(map(tuple, plan_of(shapes).probe_groups().values())) == {("m0", "m1", "m2")}
    matrix = Plan(validate(papers.matrix(tmp_path)))
    assert len(matrix.probe_groups()) < len(matrix.models)
