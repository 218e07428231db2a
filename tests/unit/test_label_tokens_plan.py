"""What the plan makes of labels as tokens: names, parameters, and what leaves them as they are."""

from __future__ import annotations

import re

import pytest
from tiny_models import build

from probeline.errors import ConfigError
from probeline.finetune.options import read_options
from probeline.label_tokens.kind import read_kind as _read_kind
from probeline.label_tokens.shortlist import FirstStage
from probeline.workflow.label_tokens import described
from probeline.workflow.plan import load_plan

NOTES = "text,label\n" + "".join(f"text {n},{'ab'[n % 2]}\n" for n in range(20))


@pytest.fixture
def kind() -> str:
    """The architecture of the plan's model."""
    return "bert"


@pytest.fixture
def plan(tmp_path, monkeypatch, kind):
    """Return a plan of a small project with changes of the section `label_tokens`."""
    monkeypatch.chdir(tmp_path)
    build(kind, tmp_path / "model")
    (tmp_path / "notes.csv").write_text(NOTES)

    def planned(
        finetune=None, texts=None, baselines=("finetune", "label-tokens"), own=None, **section
    ):
        entry = {"loader": "csv", "path": "notes.csv"}
        entry["splits"] = {"validation": 0.2, "test": 0.2}
        return load_plan(
            {
                "seed": 3,
                "models": {"m": {"path": "./model"}},
                "datasets": {"d": entry | ({"label_texts": texts} if texts else {})},
                "baselines": list(baselines),
                "finetune": finetune or {},
                "label_tokens": section | ({"finetune": own} if own else {}),
                "lrsl": {
                    "sources": [one for one in baselines if one == "label-tokens"],
                    "embedder": "./model",
                },
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


def test_what_leaves_trials_as_they_are_is_that_of_their_own_training(plan):
    found = plan(finetune={"checkpoint_minutes": 1.0}, own={"checkpoint_minutes": 2.0})
    for classifier, minutes in (("finetune", 1.0), ("label-tokens-mix", 2.0)):
        options = found.search_aside(classifier)["options"]
        assert options == {"checkpoint_minutes": minutes, "report_to": []}


def read_kind(section: dict):
    """As the job does it."""
    return _read_kind(section, FirstStage("x", "y"))


def test_every_way_to_read_is_a_series(plan):
    found = plan(initializations=["mean", "mix"], readings=["joint", "isolated"])
    names = ["mean", "mix", "mean-isolated", "mix-isolated"]
    files = found.baselines("d", "label", "m")
    assert list(files) == ["finetune", *(f"label-tokens-{name}" for name in names)]
    assert described("label-tokens-mix-isolated") == {
        "method": "label-tokens",
        "series": "mix-isolated",
    }
    given = {name: found.label_token_params("d", "label", "m", name) for name in names}
    assert given["mix"]["label_tokens"]["initialization"] == "mix"
    read = read_kind(given["mix-isolated"]["label_tokens"])
    assert read.options.isolated and read.variant(read_options({})) == "mix-isolated"
    read = read_kind(plan().label_token_params("d", "label", "m", "mix-unordered")["label_tokens"])
    assert (read.options.shared_positions, read.options.labels_attend) == (True, False)
    assert read.variant(read_options({})) == "mix-unordered"
    pattern = "|".join(found.source_patterns)
    assert all(re.fullmatch(pattern, f"label-tokens-{name}-3") for name in names)


def test_shortlists_come_from_the_sparse_classifier(plan):
    assert plan().first_stage("d", "label", "m") == {}
    found = plan(shortlist=5)
    assert found.first_stage("d", "label", "m") == {
        "ranking": "results/predictions/d/label/m/stc.h5",
        "first_stage": "results/classifiers/d/label/m",
        "crossfit": "results/lrsl/d/label/m/stc/crossfit.h5",
    }
    assert found.search_first_stage("d", "label", "m", "finetune") == {}
    assert found.search_first_stage("d", "label", "m", "label-tokens-mix")
    params = [plan(shortlist=n).label_token_params("d", "label", "m", "mix") for n in (5, 6)]
    assert params[0] != params[1]


def test_attention_is_asked_for_apart(plan):
    assert plan().label_attention() == ["results/attention/d/label/m/label-tokens-mix-3.html"]
    assert plan(attention=0).label_attention() == []
    params = [plan(attention=n).label_token_params("d", "label", "m", "mix") for n in (0, 9)]
    assert params[0] == params[1]
    params = plan(attention=9).label_attention_params("m")
    assert params["texts"] == 9 and params["trust_remote_code"] is False


def test_the_regular_classifier_is_trained_alike(plan):
    section = {"finetune": {"epochs": 9}, "seeds": [1, 2], "thresholds": "fixed"}
    found = plan(baselines=["label-tokens", "regular"], **section)
    assert list(found.baselines("d", "label", "m")) == ["regular", "label-tokens-mix"]
    mine = found.regular_params("d", "label", "m")
    theirs = found.label_token_params("d", "label", "m", "mix")
    assert mine["options"] == theirs["options"] and mine["options"]["epochs"] == 9
    assert mine["thresholds"] == "fixed"
    entries = found.label_token_entries()
    assert [(one["method"], one["series"]) for one in entries] == [
        ("regular", None),
        ("label-tokens", "mix"),
    ]
    assert entries[0]["scores"] == [f"results/scores/d/label/m/regular-{n}.json" for n in (1, 2)]
    compared = [[one["method"] for one in entry["methods"]] for entry in found.comparison_entries()]
    assert ["regular", "label-tokens"] in compared
    # The fine-tuned one stands for it where there is none.
    first = plan(**section).label_token_entries()[0]
    assert first["method"] == "finetune"


ROOM = "label tokens leave no room for text in the model's 64 positions; set it to at most 60"


@pytest.mark.parametrize(
    ("kind", "section", "line"),
    [
        ("bert", {"chunk": 61}, f"label_tokens.chunk: 61 {ROOM}"),
        ("bert", {"shortlist": 99, "chunk": 200}, f"label_tokens.shortlist: 99 {ROOM}"),
        ("gpt2", {"position": "prefix"}, "label_tokens.position: prefix, but gpt2 is a decoder"),
        (
            "t5",
            {"readings": ["joint", "isolated"]},
            "label_tokens.readings: isolated: shared_positions: t5 counts the distances",
        ),
        (
            "t5",
            {"readings": ["unordered"]},
            "label_tokens.readings: unordered: shared_positions: t5 counts the distances",
        ),
    ],
)
def test_what_a_model_cannot_do_is_said_before_anything_runs(plan, section, line):
    with pytest.raises(ConfigError) as caught:
        plan(baselines=["label-tokens"], **section)
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(f"models.m: {line}")


def test_what_fits_is_not_refused(plan):
    assert plan(chunk=60).label_token_figures()
    # Those share one position.
    assert plan(chunk=500, readings=["isolated", "unordered"]).label_token_figures()
    assert plan(baselines=[], chunk=500).label_token_figures() == []
