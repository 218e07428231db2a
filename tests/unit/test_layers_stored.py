"""Which layers a plan stores, and what it refuses because a layer would be missing."""

from __future__ import annotations

import json

import pytest

from probeline.errors import ConfigError
from probeline.workflow.plan import load_plan

BERT = {"model_type": "bert", "hidden_size": 32, "intermediate_size": 64, "vocab_size": 100}
BERT |= {"max_position_embeddings": 64, "architectures": ["BertModel"]}
T5 = {"model_type": "t5", "d_model": 32, "d_ff": 64, "vocab_size": 100, "num_layers": 2}
T5 |= {"num_decoder_layers": 6, "architectures": ["T5EncoderModel"]}
SHAPES = {
    "two": BERT | {"num_hidden_layers": 2},
    "four": BERT | {"num_hidden_layers": 4},
    "t5": T5,
}


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Return the plan of some of the models on one dataset."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PROBELINE_DATA_ROOT", raising=False)
    (tmp_path / "notes.csv").write_text("text,label\n" + "a text,a\nanother,b\n" * 50)
    for name, shape in SHAPES.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(shape))

    def of(*models: str, **sections):
        entry = {"loader": "csv", "path": "notes.csv"}
        entry["splits"] = {"validation": 0.2, "test": 0.2}
        config = {
            "models": {name: {"path": f"./{name}"} for name in models},
            "datasets": {"d": entry},
            "extract": {"poolings": ["mean"]},
        }
        return load_plan(config | sections)

    return of


def extract(*layers: int, **more) -> dict:
    return {"extract": {"poolings": ["mean"], "layers": list(layers), **more}}


def problem(make, *models: str, **sections) -> str:
    with pytest.raises(ConfigError) as caught:
        make(*models, **sections)
    (line,) = caught.value.problems
    return line


def test_what_is_probed_is_what_is_stored(plan):
    made = plan("four", **extract(1, 3, 4))
    assert [made.layers("four", each) for each in ("ffn", "hidden")] == [[1, 3, 4], [1, 3, 4]]
    assert made.shard_names("four") == [
        *(f"ffn.mean.0{layer}.h5" for layer in (1, 3, 4)),
        *(f"hidden.mean.0{layer}.h5" for layer in (1, 3, 4)),
    ]
    assert plan("four", **extract(1, 3, 4), probe={"layers": [3]}).layers("four", "ffn") == [3]
    # 3 of 32 numbers and 3 of 64, of 2 bytes each.
    assert made.bytes_per_text("four") == 2 * 3 * (32 + 64)


def test_a_choice_that_leaves_nothing_to_probe(plan):
    both = extract(5, representations=["hidden", "decoder-hidden"])
    line = problem(plan, "t5", **both, probe={"representations": ["hidden"]})
    assert line == "models.t5: extract.layers: leaves no layer of hidden, which is probed"


def test_the_nearest_examples_are_found_by_one_model(plan):
    icl = {"select": "nearest", "models": ["four"]}
    sections = extract(1, 2) | {"baselines": ["icl"]}
    assert plan("two", "four", **sections, icl=icl | {"neighbours": "two"})
    line = problem(plan, "two", "four", **sections, icl=icl)
    assert line.startswith("models.four: extract.layers: nearest (icl.select) reads the last layer")


def test_a_reranking_of_embeddings_needs_them(plan):
    lrsl = {"sources": ["sentence-embedding"], "embedder": "./two"}
    line = problem(plan, "two", **extract(0, 1), lrsl=lrsl)
    assert "sentence-embedding (lrsl.sources) reads the last layer; add 2" in line
    assert plan("two", **extract(0, 2), lrsl=lrsl)
