"""What jobs ask for: by the configuration at first, by what was made as soon as it is."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probeline.activations.parts import Part
from probeline.workflow import resources
from probeline.workflow.needs import Needs
from probeline.workflow.plan import load_plan

ROOT = Path(__file__).resolve().parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SHAPE = {"model_type": "bert", "hidden_size": 768, "intermediate_size": 3072}
SHAPE |= {"num_hidden_layers": 12, "vocab_size": 30522, "max_position_embeddings": 512}
PLACE = {"dataset": "d", "task": "label", "model": "m"}
# Of every need, the wildcards of its rules.
WILDCARDS = {
    "ablations": {**PLACE, "source": "stc", "seed": "1"},
    "aggregate": {**PLACE, "slug": "hidden.mean"},
    "all_probes": PLACE,
    "card": {"dataset": "d"},
    "classifier": PLACE,
    "comparisons": {},
    "crossfit": {**PLACE, "source": "stc"},
    "embed": {**PLACE, "source": "stc", "seed": "1"},
    "embedding": PLACE,
    "extract": {"dataset": "d", "model": "m"},
    "finetune": {**PLACE, "seed": "1"},
    "icl": {**PLACE, "seed": "1"},
    "label_attention": {**PLACE, "init": "mix", "seed": "1"},
    "label_tokens": {**PLACE, "init": "mix", "seed": "1"},
    "layers": PLACE,
    "predictions": {**PLACE, "method": "stc"},
    "probes": {**PLACE, "names": ["ffn.{pooling}.01.h5"], "pooling": "max"},
    "regular": {**PLACE, "seed": "1"},
    "rerank": {**PLACE, "source": "stc", "seed": "1"},
    "search": {**PLACE, "classifier": "finetune", "worker": "0"},
    "summary": {},
    "texts": {"dataset": "d"},
    "tfidf": {"dataset": "d", "task": "label"},
    "zero_shot": PLACE,
}


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """Return the needs of a project of one model and one dataset, changed section by section."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "notes.csv").write_text("text,label\n" + "a text,a\n" * 100)

    def needs(model=None, dataset=None, shape=SHAPE, **sections) -> Needs:
        folder = tmp_path / "model"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(shape))
        entry = {"loader": "csv", "path": "notes.csv"}
        entry["splits"] = {"validation": 0.2, "test": 0.2}
        config = {
            "models": {"m": {"path": "./model", "max_length": 128} | (model or {})},
            "datasets": {"d": entry | (dataset or {})},
            "lrsl": {"sources": ["stc"], "embedder": "./model"},
        }
        return Needs(load_plan(config | sections))

    return needs


def asked(needs: Needs, name: str, **changes) -> list[float]:
    need = getattr(needs, name)(**WILDCARDS[name] | changes)
    return [need.mb, need.seconds]


def make(rows: int, labels: int = 3) -> None:
    """What the dataset rules leave, as far as it is asked for."""
    folder = Path("results/datasets/d")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "texts.json").write_text(json.dumps({"rows": rows}))
    tasks = {"label": {"labels": [f"label {n}" for n in range(labels)]}}
    (folder / "dataset.json").write_text(json.dumps({"tasks": tasks}))


def test_every_need_of_a_rule_is_tested_here():
    text = "".join(path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk"))
    used = set(re.findall(r"\(needs\.(\w+)", text))
    assert used == set(WILDCARDS)


def test_every_rule_says_what_it_needs_or_runs_where_snakemake_does():
    text = "".join(path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk"))
    rules = re.split(r"^ *rule\b", text, flags=re.MULTILINE)[1:]
    assert len(rules) > 30
    for rule in rules:
        if "localrule: True" not in rule:
            needed = re.search(r" mem_mb=memory\((needs\.\w+)", rule)
            assert needed, rule
            assert f" runtime=runtime({needed[1]}" in rule, rule


@pytest.mark.parametrize("name", WILDCARDS)
def test_each_is_known_before_anything_is_made(planned, name):
    need = getattr(planned(), name)(**WILDCARDS[name])
    assert need.mem_mb(1) >= 1_000
    assert need.runtime(1) >= 10


@pytest.mark.parametrize("name", sorted(set(WILDCARDS) - {"texts"}))
def test_each_grows_with_the_texts(planned, name):
    needs = planned(icl={"max_texts": {"train": None, "validation": None, "test": None}})
    make(1_000)
    few = asked(needs, name)
    make(400_000)
    many = asked(needs, name)
    assert all(one <= other for one, other in zip(few, many, strict=True))
    assert many[1] > few[1]


@pytest.mark.parametrize(
    "name",
    [
        *("all_probes", "aggregate", "classifier", "embedding", "probes", "tfidf", "zero_shot"),
        *("label_tokens", "label_attention"),
    ],
)
def test_some_grow_with_the_labels(planned, name):
    needs = planned()
    make(1_000, labels=2)
    few = asked(needs, name)
    make(1_000, labels=200)
    assert asked(needs, name)[1] > few[1]


@pytest.mark.parametrize(
    "name",
    [
        *("extract", "finetune", "label_tokens", "label_attention", "regular"),
        *("icl", "search", "aggregate", "classifier"),
    ],
)
def test_some_grow_with_the_layers_and_the_width(planned, name):
    make(1_000)
    small = asked(planned(), name)
    for key, value in (("num_hidden_layers", 24), ("hidden_size", 1024)):
        larger = asked(planned(shape=SHAPE | {key: value}), name)
        assert larger[0] > small[0]
        assert larger[1] > small[1]


def test_extraction_grows_with_the_poolings_in_memory(planned):
    make(1_000)
    one, four = (
        planned(extract={"poolings": poolings, "block_texts": 64}, lrsl={"sources": []})
        for poolings in (["mean"], ["first", "last", "max", "mean"])
    )
    columns = 13 * 768 + 12 * 3072
    difference = asked(four, "extract")[0] - asked(one, "extract")[0]
    # Two blocks of 64 texts in float16.
    assert difference == pytest.approx(2 * 64 * 3 * columns * 2 / 1e6)


def test_extraction_knows_the_model(planned):
    make(10_000)
    # Twelve blocks with a gate, embeddings in and out, in float32.
    parameters = 12 * (4 * 768**2 + 3 * 768 * 3072) + 2 * 30522 * 768
    on_gpu, on_cpu = (
        planned(model={"device": device}).extract("d", "m") for device in ("auto", "cpu")
    )
    operations = 2 * parameters * 10_000 * 128
    written = 2e-9 * 10_000 * 4 * (13 * 768 + 12 * 3072) * 2
    assert on_gpu.seconds == pytest.approx(operations / 5e12 + written)
    assert on_cpu.seconds == pytest.approx(operations / 5e10 + written)
    halved = planned(model={"dtype": "bfloat16"}).extract("d", "m")
    assert on_gpu.mb - halved.mb == pytest.approx(1.3 * 2 * parameters / 1e6)


def test_jobs_that_share_an_extraction_ask_for_their_part(planned):
    make(10_000)
    whole, part = (
        planned(extract={"parts": parts, "block_texts": 64}).extract("d", "m", **wildcards)
        for parts, wildcards in ((1, {}), (8, {"part": "3"}))
    )
    # A block more than an eighth, and the model is as large as ever.
    rows = 1_250 + 64
    parameters = 12 * (4 * 768**2 + 3 * 768 * 3072) + 2 * 30522 * 768
    columns = 4 * (13 * 768 + 12 * 3072)
    seconds = 2 * parameters * rows * 128 / 5e12 + 2e-9 * rows * columns * 2
    assert part.seconds == pytest.approx(seconds)
    assert whole.mb - part.mb == pytest.approx(64 * (10_000 - rows) / 1e6)
    runs = [{"model": "m", "dataset": "d", "parts": 8}]
    assert planned(runs=runs, extract={"block_texts": 64}).extract("d", "m", part="1") == part


@given(rows=st.integers(1, 500), parts=st.integers(1, 40), block=st.integers(1, 60))
def test_no_part_is_larger_than_it_asks_for(rows, parts, block):
    most = resources.largest_part(rows, parts, block)
    assert most <= rows
    # Blocks of wide models have fewer texts.
    for size in (1, -(-block // 2), block):
        ends = [Part(number, parts).rows(rows, size) for number in range(1, parts + 1)]
        assert max(stop - start for start, stop in ends) <= most


@pytest.mark.parametrize(
    "most, rows",
    [
        (None, 100_000),
        (700, 700),
        ({"train": 10, "validation": 5, "test": 5}, 20),
        # The rest is not known.
        ({"train": 300_000}, 300_000),
        ({"train": 10}, 100_000),
    ],
)
def test_before_the_dataset_is_made_the_configuration_says_how_many_texts(planned, most, rows):
    needs = planned(dataset={"max_texts": most})
    assert needs.rows("d") == rows
    make(12)
    assert needs.rows("d") == 12


def test_a_dataset_that_is_made_anew_is_read_anew(planned):
    needs = planned()
    make(12)
    assert needs.rows("d") == 12
    make(13)
    os.utime("results/datasets/d/texts.json", ns=(1, 1))
    assert needs.rows("d") == 13


def test_a_half_written_manifest_is_none(planned):
    needs = planned()
    make(12)
    Path("results/datasets/d/texts.json").write_text('{"rows": 1')
    assert needs.rows("d") == 100_000


def test_tables_of_texts_by_their_size(planned):
    needs = planned()
    small = needs.texts("d").mb
    with Path("notes.csv").open("a") as handle:
        handle.write("another text,b\n" * 100_000)
    assert needs.texts("d").mb == pytest.approx(small + 12 * 1.5, rel=1e-3)


def write(path: Path, megabytes: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"a" * int(megabytes * 1e6))


def test_folders_of_texts_by_the_size_of_their_files(planned):
    for place in ("train/a/1.txt", "train/a/2.txt", "train/b/1", "test/a/1.txt", "test/b/1"):
        write(Path("texts", place), 0.3)
    for place in ("train/README", "train/a/.hidden", "spare/a/1.txt"):
        write(Path("texts", place), 5)
    splits = {"train": "train", "validation": 0.2, "test": "test"}
    folder = planned(dataset={"loader": "folder", "path": "texts", "splits": splits})
    table = planned()
    table_mb = Path("notes.csv").stat().st_size / 1e6
    assert folder.texts("d").seconds == pytest.approx(1.5)
    assert folder.texts("d").mb == pytest.approx(table.texts("d").mb + 12 * (1.5 - table_mb))


def test_a_hub_s_dataset_by_the_size_of_what_was_fetched(planned, tmp_path):
    splits = {"validation": 0.2, "test": 0.2}
    needs = planned(dataset={"loader": "hub", "path": "some/texts", "splits": splits})
    assert needs.texts("d").seconds == pytest.approx(200)
    repo = tmp_path / "hub" / "datasets--some--texts"
    for name in ("one", "two"):
        write(repo / "blobs" / name, 0.4)
        link = repo / "snapshots" / COMMIT / "data" / f"{name}.parquet"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(repo / "blobs" / name)
    (repo / "snapshots" / COMMIT / "gone").symlink_to(repo / "blobs" / "gone")
    write(repo / "snapshots" / ("f" * 40) / "other.parquet", 5)
    assert needs.texts("d").seconds == pytest.approx(200)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    assert needs.texts("d").seconds == pytest.approx(0.8)
    # A folder laid out like one.
    write(tmp_path / "copy" / "data" / "train.parquet", 0.6)
    write(tmp_path / "copy" / ".git" / "pack", 5)
    local = planned(dataset={"loader": "hub", "path": "./copy", "splits": splits})
    assert local.texts("d").seconds == pytest.approx(0.6)


def test_a_hub_model_is_guessed_until_it_is_fetched(planned, tmp_path):
    make(1_000)
    needs = planned(model={"path": "some/model", "layers": 12})
    guessed = asked(needs, "extract")
    assert guessed[0] > asked(planned(), "extract")[0]
    repo = tmp_path / "hub" / "models--some--model"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(COMMIT)
    (repo / "snapshots" / COMMIT).mkdir(parents=True)
    (repo / "snapshots" / COMMIT / "config.json").write_text(json.dumps(SHAPE))
    assert asked(needs, "extract")[0] < guessed[0]


def test_a_model_that_is_fine_tuned_here_is_as_large_as_its_source(planned):
    make(1_000)
    own = {"m": {"path": "./model", "max_length": 128}}
    own["tuned"] = {"finetuned_from": "m", "on": "d"}
    needs = planned(models=own)
    assert asked(needs, "extract", model="tuned") == asked(needs, "extract")


def test_probes_of_one_job(planned):
    make(5_000, labels=4)
    needs = planned(probe={"path_length": 10, "class_weight": None})
    one = needs.probes(**PLACE, names=["hidden.{pooling}.00.h5"], pooling="max")
    assert one.seconds == pytest.approx(5 + 1e-8 * 5_000 * 768 * 4 * 10)
    both = needs.probes(
        **PLACE, names=["ffn.{pooling}.01.h5", "ffn.{pooling}.02.h5"], pooling="max"
    )
    assert both.seconds == pytest.approx(10 + 2e-8 * 5_000 * 3072 * 4 * 10)


def test_trials_of_a_search_are_shared(planned):
    make(1_000)
    place = WILDCARDS["search"]
    searches = [planned(search={"trials": 20, "workers": n}).search(**place) for n in (1, 4)]
    assert searches[0].seconds == pytest.approx(4 * searches[1].seconds)
    assert searches[0].mb == searches[1].mb


@pytest.mark.parametrize(
    ("section", "tokens"),
    [
        ({}, 128 + 77),
        # Each pass reads the whole text: 40 labels and 37.
        ({"chunk": 40}, 2 * 128 + 77),
        ({"chunk": 100}, 128 + 77),
        ({"shortlist": 20}, 128 + 20),
        ({"shortlist": 20, "chunk": 8}, 3 * 128 + 20),
    ],
)
def test_label_tokens_are_read_with_the_text_in_each_pass(planned, section, tokens):
    make(1_000, labels=77)
    needs = planned(label_tokens=section, finetune={"epochs": 3})
    place = WILDCARDS["label_tokens"]
    found, regular = needs.label_tokens(**place), needs.regular(**PLACE, seed="1")
    assert found.seconds == pytest.approx(regular.seconds * tokens / 128)
    assert regular == needs.finetune(**PLACE, seed="1")
    # A trial trains what is searched for.
    search = {"classifiers": ["finetune", "label-tokens"], "trials": 6, "workers": 2}
    search["space"] = {"epochs": None}
    needs = planned(label_tokens=section, finetune={"epochs": 3}, search=search)
    trials = needs.search(**PLACE, classifier="label-tokens-mix", worker="0")
    assert trials.seconds == pytest.approx(3 * found.seconds)


def test_trainings_with_labels_as_tokens_have_settings_of_their_own(planned):
    make(1_000)
    search = {"trials": 4, "workers": 1, "space": {"epochs": None}}
    own = {"epochs": 9, "checkpoint_minutes": 2}
    needs = planned(finetune={"epochs": 3}, label_tokens={"finetune": own}, search=search)
    place = {**PLACE, "seed": "1"}
    # Three passes an epoch, and two that only look.
    assert needs.regular(**place).seconds == pytest.approx(
        needs.finetune(**place).seconds * (3 * 9 + 2) / (3 * 3 + 2)
    )
    found = needs.label_tokens(**place, init="mix").seconds
    trials = needs.search(**PLACE, classifier="label-tokens-cls", worker="0")
    assert trials.seconds == pytest.approx(4 * found)


def test_what_shows_attention_holds_a_shortlist_s_classifier_too(planned):
    make(1_000, labels=20)
    place = WILDCARDS["label_attention"]
    alone, two = (
        planned(label_tokens={"shortlist": count}).label_attention(**place) for count in (None, 20)
    )
    parameters = 12 * (4 * 768**2 + 3 * 768 * 3072) + 2 * 30522 * 768
    assert two.mb - alone.mb == pytest.approx(1.3 * 4 * parameters / 1e6)
