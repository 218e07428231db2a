"""The papers' configurations: valid, planned without a network, and about data as published."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter
from pathlib import Path

import paper_data
import pytest
import snake
import yaml
from local_hub import COMMIT, local_hub

from probeline.data.store import read_dataset

FOLDER = snake.ROOT / "configs/papers"
NAMES = ("label-tokens", "lrsl", "lrsl-llm", "stc")


def read(name: str) -> dict:
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))


def listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def pairs_of(config: dict) -> list[tuple[str, str]]:
    """(dataset, model) that run, from `runs` alone."""
    everything = [{"model": list(config["models"]), "dataset": list(config["datasets"])}]
    found = []
    for run in config.get("runs", everything):
        named = [
            [run[key]] if isinstance(run[key], str) else run[key] for key in ("dataset", "model")
        ]
        found += itertools.product(*named)
    return found


def trainings_of(config: dict) -> set[tuple]:
    """(dataset, model, seed) that are fine-tuned, as a baseline or to be probed."""
    models, found = config["models"], set()
    if "finetune" in config["baselines"]:
        seeds = config["finetune"]["seeds"]
        pretrained = [(data, model) for data, model in pairs_of(config) if "path" in models[model]]
        found |= {(*pair, seed) for pair in pretrained for seed in seeds}
    made = [entry for entry in models.values() if "finetuned_from" in entry]
    # A bare `on` is true to YAML 1.1.
    return found | {(entry[True], entry["finetuned_from"], entry["seed"]) for entry in made}


def without_network(folder: Path) -> dict[str, str]:
    """An environment with an empty cache, in which nothing answers."""
    dead = "http://127.0.0.1:9"
    home = {"HF_HOME": str(folder / "home"), "HF_HUB_CACHE": str(folder / "home/hub")}
    return home | {"HF_HUB_OFFLINE": "1", "HTTPS_PROXY": dead, "HTTP_PROXY": dead}


def test_every_shipped_configuration_is_tested():
    assert {path.stem for path in FOLDER.iterdir()} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_plan_has_the_jobs_of_the_configuration(name, tmp_path):
    config = read(name)
    env = without_network(tmp_path) | {"PROBELINE_DATA_ROOT": str(tmp_path / "data")}
    paper_data.write_files(tmp_path / "data")
    found = snake.planned(tmp_path, "--configfile", FOLDER / f"{name}.yaml", **env)
    pairs, trainings = pairs_of(config), trainings_of(config)
    stages = snake.stages(found)
    rules = {job.rule for job in found if job.stage == "extract"}
    assert rules == {f"extract_{dataset}.{model}" for dataset, model in pairs}
    assert stages["extract"] == len(pairs) == len(set(pairs))
    fetched = {job.wildcards["model"] for job in found if job.rule == "fetch"}
    hub = {name for name, entry in config["models"].items() if "path" in entry}
    assert fetched == hub and stages["fetch"] == len(hub)
    tuned = [
        tuple(job.wildcards[k] for k in ("dataset", "model", "seed"))
        for job in found
        if job.rule == "finetune"
    ]
    assert sorted(tuned) == sorted((d, m, str(seed)) for d, m, seed in trainings)
    own = config.get("label_tokens", {})
    series = len(own.get("initializations", [])) * len(own.get("seeds", [])) * len(pairs)
    assert stages.get("label_tokens", 0) == series
    reranked = len(trainings) if "lrsl" in config else 0
    assert stages.get("embed", 0) == stages.get("rerank", 0) == reranked
    datasets = {dataset for dataset, _ in pairs}
    assert stages["texts"] == stages["dataset"] == stages["tfidf"] == len(datasets)
    assert stages["sentence_embedding"] == stages["classifier"] == len(pairs)
    assert not (tmp_path / "home").exists()


def test_the_matrix_of_sparsify_then_classify_is_the_papers():
    config = read("stc")
    assert len(config["models"]) == 10 + 12
    assert len(pairs_of(config)) == 10 * 3 + 12
    datasets_per_model = Counter(model for _, model in pairs_of(config))
    assert set(datasets_per_model) == set(config["models"])
    assert Counter(datasets_per_model.values()) == {3: 10, 1: 12}


@pytest.mark.parametrize("name", NAMES)
def test_every_hub_model_says_its_layers(name):
    # Unknown layers would need a config.json that a plan may not ask the hub for.
    for entry in read(name)["models"].values():
        assert ("layers" in entry) == ("path" in entry)


def test_both_configurations_of_lrsl_are_of_the_same_data():
    # Else a run of one in the folder of the other would make the datasets anew.
    assert read("lrsl")["datasets"] == read("lrsl-llm")["datasets"]


@pytest.mark.parametrize("name, missing", [("stc", ["edos"]), ("lrsl", ["aapd", "cmcc"])])
def test_files_that_are_not_there_are_named_before_any_job(name, missing, tmp_path):
    env = without_network(tmp_path)
    path = FOLDER / f"{name}.yaml"
    done = snake.snakemake(tmp_path, "-n", "--configfile", path, **env)
    lines = [line for line in done.stderr.splitlines() if "datasets." in line]
    assert done.returncode == 1
    assert [line.split(":")[0] for line in lines] == [f"datasets.{dataset}" for dataset in missing]
    assert all("no such file or folder" in line for line in lines)


# The data


BUILD = """
import json, sys
from pathlib import Path
from probeline.config import load
from probeline.data.store import build_dataset
for name in sys.argv[1:]:
    config = load(name)
    for dataset in config.datasets:
        spec = config.dataset_spec(dataset)
        build_dataset(dataset, spec, Path("built", Path(name).stem, dataset), seed=config.seed)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """Every dataset of every configuration, from stand-ins with the published layout."""
    folder = tmp_path_factory.mktemp("papers")
    root = paper_data.write_files(folder / "data")
    with local_hub(paper_data.hub_repos()) as hub:
        env = hub.environment(folder / "home") | {"PROBELINE_DATA_ROOT": str(root)}
        done = subprocess.run(
            [sys.executable, "-c", BUILD, *(str(FOLDER / f"{name}.yaml") for name in NAMES)],
            cwd=folder,
            env=env,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / "built"


SIZES = {
    "imdb": (16, 4, 10),
    # 3 % of 70 texts, rounded up as `datasets` does.
    "sst2": (67, 3, 10),
    "edos": (12, 6, 6),
    "banking77": (693, 77, 77),
    "tweet": (20, 8, 8),
    "aapd": (12, 6, 6),
    "iflytek": (1071, 119, 119),
    "cmcc": (12, 6, 6),
    "go-emotions": (20, 8, 8),
}
LABELS = {
    "imdb": ["neg", "pos"],
    "sst2": ["negative", "positive"],
    "edos": ["not sexist", "sexist"],
    "banking77": sorted(f"intent_number_{code}" for code in range(77)),
    "tweet": ["anger", "joy", "optimism", "sadness"],
    "aapd": sorted(paper_data.SUBJECTS),
    "cmcc": sorted(paper_data.REASONS),
    "go-emotions": list(paper_data.EMOTIONS),
}


@pytest.mark.parametrize("name", NAMES)
def test_every_dataset_can_be_read(built, name):
    config = read(name)
    assert {folder.name for folder in (built / name).iterdir()} == set(config["datasets"])
    for dataset, entry in config["datasets"].items():
        found = read_dataset(built / name / dataset)
        sizes = tuple(stop - start for start, stop in found.offsets.values())
        task = found.tasks["label"]
        labels = entry["label_names"] if dataset == "iflytek" else LABELS[dataset]
        assert (sizes, task["labels"]) == (SIZES[dataset], labels), dataset
        assert (task["kind"] == "multi") == (dataset in ("aapd", "go-emotions"))
        commit = None if entry["loader"] != "hub" else entry.get("revision", COMMIT)
        assert found.manifest["source"]["revision"] == commit
