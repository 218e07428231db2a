"""A whole run on models and a dataset of a hub: fetched once, then without any network."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sentinels
import snake
import tiny_project
from hub_models import LAYERS, publish
from local_hub import COMMIT, Hub, Repo, local_hub

DATA_COMMIT = "d" * 40
CLASSIFIER, LANGUAGE = "textattack/roberta-base-SST-2", "edbeeching/gpt2-medium-imdb"
CONFIG = {
    "models": {
        # A published classifier, its weights in .bin; its own head is left aside.
        "roberta-sst2": {"path": CLASSIFIER, "layers": LAYERS},
        # A language model with a value head beside its own.
        "gpt2-imdb": {"path": LANGUAGE, "layers": LAYERS},
    },
    "datasets": {
        "notes": {
            "loader": "hub",
            "path": "somebody/notes",
            "config": "small",
            "text": "sentence",
            "splits": {"train": "train", "validation": 0.25, "test": "validation"},
            "split_method": "datasets",
        }
    },
    "extract": {"representations": ["hidden"], "poolings": ["mean"]},
    "probe": {"path_length": 3},
    "sparsify": {"etas": [0.6]},
    "aggregate": {"path_length": 2},
    "baselines": ["sentence-embedding", "finetune"],
    "finetune": {"models": ["roberta-sst2"], "epochs": 1},
}


PINS = (
    "results/models/roberta-sst2.json",
    "results/models/gpt2-imdb.json",
    "results/datasets/notes/hub.json",
)


def notes(seed: int = 0, commit: str = DATA_COMMIT) -> Repo:
    """Parquet files under a card that names a configuration and the classes."""
    names = list(tiny_project.CLASSES)
    card = ["---", "configs:", "- config_name: small", "  data_files:"]
    files, rows = {}, tiny_project.sentences(120, seed)
    for split, part in (("train", rows[:90]), ("validation", rows[90:])):
        card += [f"  - split: {split}", f"    path: small/{split}-*"]
        table = pa.table(
            {
                "sentence": [text for text, _ in part],
                "label": pa.array([names.index(label) for _, label in part], pa.int64()),
            }
        )
        written = io.BytesIO()
        pq.write_table(table, written)
        files[f"small/{split}-00000-of-00001.parquet"] = written.getvalue()
    card += ["dataset_info:", "- config_name: small", "  features:"]
    card += ["  - name: sentence", "    dtype: string", "  - name: label", "    dtype:"]
    card += ["      class_label:", "        names:"]
    card += [f"          '{code}': {name}" for code, name in enumerate(names)]
    files["README.md"] = "\n".join([*card, "---", ""]).encode()
    return Repo(files, commit, "dataset")


def command(hub: Hub, folder: Path, *arguments: str, offline: bool = False) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "probeline.cli", *arguments],
        cwd=folder,
        env=hub.environment(folder / "home", offline),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, Hub]:
    """A project whose models and data were fetched, and that ran whole beside the hub."""
    folder = tmp_path_factory.mktemp("project")
    published = tmp_path_factory.mktemp("published")
    repos = {"somebody/notes": notes()}
    for repo in (CLASSIFIER, LANGUAGE):
        publish(repo, published / repo)
        repos[repo] = Repo.of_folder(published / repo)
    tiny_project.write_config(folder / "config.yaml", CONFIG)
    with local_hub(repos) as hub:
        env = hub.environment(folder / "home") | sentinels.SECRETS
        printed = snake.run(folder, *PINS, **env)
        asked = len(hub.requests)
        assert asked > 0
        printed += snake.run(folder, **env)
        assert hub.requests[asked:] == []
    assert sentinels.printed(printed) == []
    return folder, hub


def test_no_secret_is_written(finished):
    """Not even the hub's token, by which models and data were fetched."""
    folder, _ = finished
    assert sentinels.written(folder) == []


def test_fetching_beforehand_is_the_same(finished, tmp_path):
    folder, hub = finished
    with local_hub(hub.repos) as again:
        tiny_project.write_config(tmp_path / "config.yaml", CONFIG)
        assert command(again, tmp_path, "fetch").splitlines() == [
            f"roberta-sst2: {COMMIT}",
            f"gpt2-imdb: {COMMIT}",
            f"notes: {DATA_COMMIT}",
        ]
    # The hub is gone; the rules that fetch find all of it in the cache.
    env = again.environment(tmp_path / "home", offline=True)
    snake.run(tmp_path, *PINS, "results/datasets/notes/dataset.json", **env)
    for path in (*PINS, "results/datasets/notes/dataset.json"):
        assert (tmp_path / path).read_bytes() == (folder / path).read_bytes()


def test_a_dataset_that_has_moved_on_is_another(finished, tmp_path):
    """In a shared cache too, whose key is made before anybody knows the commit."""
    _, hub = finished
    shared = tmp_path / "cache"
    shared.mkdir()
    texts = {}
    later = notes(seed=1, commit="e" * 40)
    for name, repo in {"before": notes(), "after": later, "again": notes()}.items():
        folder = tmp_path / name
        folder.mkdir()
        tiny_project.write_config(folder / "config.yaml", CONFIG)
        with local_hub({**hub.repos, "somebody/notes": repo}) as moved:
            env = moved.environment(folder / "home") | {"SNAKEMAKE_OUTPUT_CACHE": str(shared)}
            target = "results/datasets/notes/texts.parquet"
            snake.run(folder, "--cache", "--", target, **env)
        pinned = json.loads((folder / PINS[-1]).read_text())
        assert pinned == {"path": "somebody/notes", "commit": repo.commit}
        texts[name] = (folder / target).resolve()
    assert texts["before"] == texts["again"] != texts["after"]
    assert texts["before"].read_bytes() != texts["after"].read_bytes()


def test_models_and_data_are_pinned(finished):
    folder, _ = finished
    for name, path in (("roberta-sst2", CLASSIFIER), ("gpt2-imdb", LANGUAGE)):
        pinned = json.loads((folder / f"results/models/{name}.json").read_text())
        assert pinned == {"path": path, "commit": COMMIT}
    manifest = json.loads((folder / "results/datasets/notes/dataset.json").read_text())
    assert manifest["source"]["revision"] == DATA_COMMIT
    assert manifest["tasks"]["label"]["labels"] == list(tiny_project.CLASSES)
    sizes = {split: stop - start for split, (start, stop) in manifest["offsets"].items()}
    assert sizes == {"train": 67, "validation": 23, "test": 30}


def test_every_method_has_scores(finished):
    folder, _ = finished
    found = sorted((folder / "results/scores/notes/label").rglob("*.json"))
    methods = {f"{path.parent.name} {path.stem}" for path in found}
    assert methods >= {
        "gpt2-imdb sentence-embedding",
        "gpt2-imdb stc",
        "roberta-sst2 finetune-42",
        "roberta-sst2 sentence-embedding",
        "roberta-sst2 stc",
    }


def test_nothing_runs_again_and_nothing_is_fetched(finished):
    folder, hub = finished
    env = hub.environment(folder / "home", offline=True)
    assert snake.planned(folder, **env) == []


def test_other_names_of_labels_fetch_nothing(finished, tmp_path):
    folder, hub = finished
    names = {"food": "meals", "sport": "games", "weather": "sky"}
    config = tiny_project.edited(("datasets.notes.label_names", names), base=CONFIG)
    path = tiny_project.write_config(tmp_path / "edited.yaml", config)
    env = hub.environment(folder / "home", offline=True)
    stages = snake.stages(snake.planned(folder, "--configfile", path, **env))
    assert stages["dataset"] == 1
    assert not {"fetch", "fetch_dataset", "texts", "extract"} & set(stages)


@pytest.mark.parametrize("model", ["roberta-sst2", "gpt2-imdb"])
def test_the_classifier_predicts_without_a_network(finished, model):
    folder, hub = finished
    text = "cheese and bread for dinner"
    place = f"results/classifiers/notes/label/{model}"
    printed = command(hub, folder, "predict", "--classifier", place, text, offline=True)
    assert json.loads(printed)["label"] in tiny_project.CLASSES
