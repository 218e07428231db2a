"""Every stage, called as the workflow's jobs call it, on a few texts and a tiny random model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from small_project import AGGREGATE, ETAS, PROBE
from tiny_models import PAIRS, SENTENCES, WORDS, build

from probeline.activations.extract import extract
from probeline.aggregate.stage import aggregate
from probeline.baselines.sentence_embedding import sentence_embedding
from probeline.classifier.stage import build_classifier
from probeline.config import validate
from probeline.data.store import Dataset, build_dataset, read_dataset
from probeline.probe.stage import probe_shards
from probeline.probe.task import TaskData, task_data
from probeline.results.layers import compare_layers
from probeline.results.predictions import Predictions, read_predictions
from probeline.sparsify import sparsify

ROWS = 240
SOURCES = [(r, p) for r in ("ffn", "hidden") for p in ("max", "mean")]
EXTRACT = {
    "representations": ["ffn", "hidden"],
    "poolings": ["max", "mean"],
    "storage_dtype": "float32",
    "block_texts": 50,
}


@dataclass(frozen=True)
class Run:
    """Where a run's files lie."""

    folder: Path
    spec: dict
    metric: str | None = None

    @property
    def data(self) -> Path:
        return self.folder / "results/datasets/texts"

    @property
    def dataset(self) -> Dataset:
        return read_dataset(self.data)

    @property
    def task(self) -> TaskData:
        return task_data(self.dataset, "label", self.metric)

    def place(self, stage: str) -> Path:
        return self.folder / "results" / stage / "texts/label/tiny"

    @property
    def classifier(self) -> Path:
        return self.place("classifiers")

    @property
    def shards(self) -> list[str]:
        return sorted(map(str, (self.folder / "results/activations/texts/tiny").glob("*.h5")))

    @property
    def probes(self) -> list[str]:
        return [str(self.place("probes") / Path(shard).name) for shard in self.shards]

    def table(self, source: tuple[str, str]) -> str:
        return str(self.place("neurons") / f"{'.'.join(source)}.parquet")

    def tables(self) -> dict[str, list[str]]:
        """By slug: the single ones and one combination."""
        single = {".".join(source): [self.table(source)] for source in SOURCES}
        return single | {"mean-all": [self.table(s) for s in SOURCES if s[1] == "mean"]}

    def grids(self) -> dict[str, str]:
        return {slug: str(self.place("aggregates") / f"{slug}.parquet") for slug in self.tables()}

    def predictions(self, name: str = "stc") -> Predictions:
        return read_predictions(self.place("predictions") / f"{name}.h5")

    def scores(self, name: str = "stc") -> dict:
        return json.loads((self.place("scores") / f"{name}.json").read_text())


def records(kind: str) -> list[dict]:
    """Texts whose label hangs on one or two of their words."""
    rng = np.random.default_rng(7)
    found = []
    for i in range(ROWS):
        longest = 4 if kind == "pairs" else 12
        words = rng.choice(WORDS, size=int(rng.integers(2, longest))).tolist()
        words[rng.integers(len(words))] = ("bank", "film", "cat")[i % 3]
        text = SENTENCES[i % 10] if i % 20 == 19 else " ".join(words)
        row = {"text": text, "label": ("money", "art", "home")[i % 3]}
        if kind == "binary":
            row["label"] = "money" if "bank" in text.split() else "other"
        elif kind == "multilabel":
            row["label"] = [w for w in ("film", "cat", "the", "on") if w in text.split()]
        elif kind == "pairs":
            row["premise"] = row.pop("text")
            row["hypothesis"] = PAIRS[i % 10]
        found.append(row)
    return found


def write_source(folder: Path, kind: str) -> dict:
    """Write the texts as JSON lines; return the entry under `datasets:`."""
    path = folder / "texts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in records(kind)), encoding="utf-8")
    entry = {
        "loader": "json",
        "path": str(path),
        "splits": {"validation": 0.2, "test": 0.2},
        "duplicates": "same-split",
    }
    return entry | ({"text": ["premise", "hypothesis"]} if kind == "pairs" else {})


def config_of(folder: Path, kind: str, **model) -> dict:
    """A configuration as a user would write it."""
    entry = {"path": str(folder / "model"), "max_length": 16, "dtype": "float32", "device": "cpu"}
    return {
        "models": {"tiny": entry | {"batch_tokens": 64} | model},
        "datasets": {"texts": write_source(folder, kind)},
    }


def prepare(
    folder: Path, kind: str, family: str = "bert", metric: str | None = None, **model
) -> Run:
    """Everything up to the neuron tables; `model` holds keys of the entry under `models:`."""
    if "path" not in model:
        build(family, folder / "model")
    config = validate(config_of(folder, kind, **model))
    run = Run(folder, config.model_spec("tiny"), metric)
    build_dataset("texts", config.dataset_spec("texts"), run.data)
    out = folder / "results/activations/texts/tiny"
    extract(run.data, "tiny", run.spec, EXTRACT, out, folder / "state", 42)
    probe_shards(run.shards, run.probes, run.data, "label", PROBE, metric)
    for source in SOURCES:
        prefix = ".".join(source) + "."
        chosen = [path for path in run.probes if Path(path).name.startswith(prefix)]
        sparsify(chosen, run.table(source))
    return run


def classify(run: Run, **options) -> Run:
    """From the neuron tables to the classifier's folder."""
    options = AGGREGATE | options
    tables, grids = run.tables(), run.grids()
    for slug in tables:
        aggregate(
            tables[slug],
            run.shards,
            run.data,
            "label",
            slug,
            grids[slug],
            ETAS,
            options,
            run.metric,
        )
    predictions = run.place("predictions")
    build_classifier(
        grids=grids,
        tables=tables,
        shards=run.shards,
        dataset_folder=run.data,
        task_name="label",
        model_name="tiny",
        model_spec=run.spec,
        out_folder=run.classifier,
        predictions={
            "selected": predictions / "stc.h5",
            "smallest": predictions / "stc-smallest.h5",
        },
        scores=run.place("scores") / "stc.json",
        etas=ETAS,
        options=options,
        metric=run.metric,
    )
    return run


def compare(run: Run) -> Run:
    """The layers' table and the sentence-embedding baseline."""
    predictions = run.place("predictions")
    compare_layers(
        run.probes,
        run.shards,
        run.data,
        "label",
        "tiny",
        run.place("layers").with_suffix(".parquet"),
        {"probe": predictions / "probe.h5", "last-layer": predictions / "last-layer.h5"},
        run.metric,
    )
    sentence_embedding(
        next(path for path in run.shards if path.endswith("hidden.mean.03.h5")),
        run.data,
        "label",
        "tiny",
        predictions / "sentence-embedding.h5",
        run.place("scores") / "sentence-embedding.json",
        {"penalties": [0.1, 10.0, 1000.0], "class_weight": None},
        run.metric,
    )
    return run


_trained: dict[str, Run] = {}


def trained(kind: str, tmp_path_factory) -> Run:
    """A finished run, made once per process. Read it, do not write into it."""
    if kind not in _trained:
        folder = tmp_path_factory.mktemp(kind)
        _trained[kind] = compare(classify(prepare(folder, kind)))
    return _trained[kind]
