"""What the plan makes of labels as tokens: names, parameters, and what leaves them as they are."""

from __future__ import annotations

import re

import pytest
from tiny_models import build

from probeline.workflow.label_tokens import described
from probeline.workflow.plan import load_plan

NOTES = "text,label\n" + "".join(f"text {n},{'ab'[n % 2]}\n" for n in range(20))


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Return a plan of a small project with changes of the section `label_tokens`."""
    monkeypatch.chdir(tmp_path)
    build("bert", tmp_path / "model")
    (tmp_path / "notes.csv").write_text(NOTES)

    def planned(finetune=None, texts=None, **section):
        entry = {"loader": "csv", "path": "notes.csv"}
        entry["splits"] = {"validation": 0.2, "test": 0.2}
        return load_plan(
            {
                "seed": 3,
                "models": {"m": {"path": "./model"}},
                "datasets": {"d": entry | ({"label_texts": texts} if texts else {})},
                "baselines": ["finetune", "label-tokens"],
                "finetune": finetune or {},
                "label_tokens": section,
                "lrsl": {"sources": ["label-tokens"], "embedder": "./model"},
            }
        )

    return planned


def test_a_series_of_runs_per_kind_of_first_embeddings(plan):
    found = plan(initializations=["random", "label_text"], seeds=[1, 2])
    files = found.baselines("d", "label", "m")
    assert list(files) == ["finetune", "label-tokens-random", "label-tokens-label_text"]
    assert files["label-tokens-random"] == {1: "label-tokens-random-1", 2: "label-tokens-random-2"}
    assert described("label-tokens-random") == {"method": "label-tokens", "series": "random"}
    assert described("finetune") == {"method": "finetune"}
    figures = found.label_token_figures()
    assert figures[0] == "results/figures/d/label/m/label-tokens-random-1.svg"
    assert len(figures) == 4


def test_every_run_is_reranked_and_its_name_is_a_source(plan):
    found = plan(initializations=["mean", "mix"])
    names = [one.name for one in found.reranked()]
    assert names == ["label-tokens-mean-3", "label-tokens-mix-3"]
    pattern = "|".join(found.source_patterns)
    for name in [*names, "finetune-3", "stc", "last-layer"]:
        assert re.fullmatch(pattern, name), name
    assert not re.fullmatch(pattern, "label-tokens-3")


def test_label_texts_matter_where_they_are_read(plan):
    texts = {"a": ["one thing"]}
    for kind, reads in (("random", False), ("cls", False), ("label_text", True), ("mix", True)):
        params = [
            plan(texts=given).label_token_params("d", "label", "m", kind) for given in (None, texts)
        ]
        assert (params[0] != params[1]) == reads, kind


def test_params_hold_what_decides_and_no_more(plan):
    def params(**changes):
        return plan(**changes).label_token_params("d", "label", "m", "mix")

    same = params()
    assert params(seeds=[1], initializations=["mix", "cls"], models=["m"]) == same
    assert params(finetune={"report_to": ["tensorboard"], "checkpoint_minutes": 1}) == same
    assert params(finetune={"seeds": [1]}) == same
    assert params(finetune={"epochs": 9}) != same
    assert params(finetune={"epochs": 9})["options"]["epochs"] == 9
    assert params(dropout=0.3) != same
    aside = plan(finetune={"checkpoint_minutes": 1.0}).label_token_aside()
    assert aside == {"checkpoint_minutes": 1.0, "report_to": []}
