"""What the workflow will make: names and numbers of files, from the configuration alone.

The Snakefile asks here while it is parsed, in every cluster job too: no torch, no data, no network.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

from probeline import versions
from probeline.activations.names import layers_of, shard_name, shard_names
from probeline.config import PATH_TASK, Config, validate
from probeline.data.paths import local_folder, source_files, source_fingerprint
from probeline.data.selection import is_drawn, selection
from probeline.errors import ConfigError, ProbelineError
from probeline.models.reference import ModelShape, read_shape, resolve
from probeline.models.weights import model_files, sampled_hash

# Neurons one probe job should read, all layers together: a job then lasts long enough to be worth
# its start, and a model of any size still gives several jobs.
_NEURONS_PER_JOB = 10_000


class Plan:
    """Files of a run.

    Parameters
    ----------
    config : Config

    Raises
    ------
    ConfigError
        If a model has no known number of layers, or a path of the configuration does not exist;
        all of them at once.
    """

    def __init__(self, config: Config):
        self.config = config
        self.pairs = config.pairs()
        self.models = list(dict.fromkeys(model for _, model in self.pairs))
        self.datasets = list(dict.fromkeys(dataset for dataset, _ in self.pairs))
        self.shapes: dict[str, ModelShape] = {}
        self._sources: dict[str, tuple[list[str], str | None]] = {}
        self._read_all()

    def _read_all(self) -> None:
        problems = []
        for model in self.models:
            try:
                self.shapes[model] = read_shape(self.config.model_spec(model))
                self._check_layers(model)
                self._check_model(model)
            except ProbelineError as error:
                problems.append(f"models.{model}: {error}")
        for dataset in self.datasets:
            try:
                self._sources[dataset] = self._source(dataset)
            except ProbelineError as error:
                problems.append(f"datasets.{dataset}: {error}")
        if problems:
            raise ConfigError(problems)

    def _check_layers(self, model: str) -> None:
        layers = self.config.probe.layers
        if layers == "all":
            return
        known = {n for r, _ in self.config.probed() for n in layers_of(self.shapes[model], r)}
        for layer in layers:
            if layer not in known:
                raise ProbelineError(
                    f"probe.layers: {layer} is out of range; the model has layers "
                    f"{min(known)} to {max(known)}"
                )

    def _check_model(self, model: str) -> None:
        """What would otherwise end the first job, or the parsing, of this model."""
        spec, shape = self.config.models[model], self.shapes[model]
        self.shard_names(model)
        self._files_of(model, "folder")
        most = shape.max_positions
        if spec.max_length and most and spec.max_length > most:
            raise ProbelineError(
                f"max_length: {spec.max_length} is above the model's {most} positions; set it to "
                f"at most {most}"
            )
        depths = self.config.aggregate.depths
        deepest = max(layers_of(shape, r)[-1] for r, _ in self.config.probed())
        if depths != "all" and max(depths) > deepest:
            raise ProbelineError(
                f"aggregate.depths: {max(depths)} is out of range; the model has depths "
                f"0 to {deepest}"
            )

    @cached_property
    def data_root(self) -> str | None:
        return self.config.data_root or os.environ.get("PROBELINE_DATA_ROOT")

    def _source(self, dataset: str) -> tuple[list[str], str | None]:
        spec = self.config.dataset_spec(dataset)
        files = [_named(path) for path in source_files(spec, self.data_root)]
        if files or (spec["loader"] == "hub" and local_folder(spec, self.data_root) is None):
            return files, None
        return [], source_fingerprint(spec, self.data_root)

    # Slices of the configuration, one per rule

    def dataset_files(self, dataset: str) -> list[str]:
        """Files a dataset is read from; none for the hub and for folders."""
        return self._sources[dataset][0]

    def dataset_params(self, dataset: str) -> dict:
        spec = self.config.dataset_spec(dataset)
        spec.pop("metric")
        seed = spec.pop("split_seed")
        if not is_drawn(spec):
            seed = None  # another seed gives the same rows
        elif seed is None:
            seed = self.config.seed
        return {
            "spec": spec,
            "seed": seed,
            "source": self._sources[dataset][1],
            "version": versions.DATASET,
        }

    def texts_params(self, dataset: str) -> dict:
        """What decides the texts of a dataset, labels apart."""
        return selection(self.dataset_params(dataset)) | {"version": versions.TEXTS}

    def model_files(self, model: str) -> list[str]:
        """Files of a model and a tokenizer in local folders: activations depend on them."""
        return [str(path) for path in self._files_of(model, "folder")]

    def _files_of(self, model: str, kind: str) -> list[Path]:
        spec = self.config.models[model]
        sources = [resolve(spec.path, spec.revision)]
        if spec.tokenizer:
            sources.append(resolve(spec.tokenizer))
        folders = dict.fromkeys(source.folder for source in sources if source.kind == kind)
        return [path for folder in folders for path in model_files(folder)]

    def fetch_params(self, model: str) -> dict:
        return self._identity(model)

    def _identity(self, model: str) -> dict:
        """Which model it is, and nothing of how it is run."""
        spec = self.config.model_spec(model)
        return {key: spec[key] for key in ("path", "revision", "tokenizer", "trust_remote_code")}

    def is_fetched(self, model: str) -> bool:
        """Whether the weights or the tokenizer come from a hub."""
        spec = self.config.models[model]
        sources = [resolve(spec.path, spec.revision)]
        if spec.tokenizer:
            sources.append(resolve(spec.tokenizer))
        return any(source.kind == "hub" for source in sources)

    def extract_params(self, model: str) -> dict:
        spec = self.config.model_spec(model)
        spec.pop("layers", None)
        options = self.config.section("extract")
        # What is stored is said by the outputs: to store less is no reason to compute anew.
        for key in ("poolings", "representations"):
            options.pop(key)
        return {
            "model": model,
            "spec": spec,
            "options": options,
            # A package lies elsewhere in every environment, so its files are no inputs.
            "package": sampled_hash(self._files_of(model, "package")),
            # Nothing is random in a frozen body but where code of its own comes with it.
            "seed": self.config.seed if spec["trust_remote_code"] else 0,
            "version": versions.EXTRACT,
            "shard_format": versions.SHARD_FORMAT,
        }

    def probe_params(self, dataset: str, task: str) -> dict:
        options = self.config.section("probe")
        # Which probes there are is no matter of how one is trained.
        for key in ("layers", "layers_per_job", "poolings", "representations"):
            options.pop(key)
        metric = self.config.metric(dataset, task)
        return {"options": options, "metric": metric, "version": versions.PROBE}

    def aggregate_params(self, dataset: str, task: str) -> dict:
        options = self.config.section("aggregate")
        # What becomes the classifier is chosen among all grids, later.
        for key in ("select", "within"):
            options.pop(key)
        return {
            "etas": self.config.section("sparsify")["etas"],
            "options": options,
            "metric": self.config.metric(dataset, task),
            "version": versions.AGGREGATE,
        }

    def classifier_params(self, dataset: str, task: str, model: str) -> dict:
        slugs = self.slugs(model)
        return {
            "grids": self.grids(dataset, task, model),
            "tables": {slug: self.tables(dataset, task, model, slug) for slug in slugs},
            "etas": self.config.section("sparsify")["etas"],
            "options": self.config.section("aggregate"),
            "metric": self.config.metric(dataset, task),
            "model_spec": self._identity(model),
            "version": versions.CLASSIFIER,
        }

    def layers_params(self, dataset: str, task: str) -> dict:
        return {"metric": self.config.metric(dataset, task), "version": versions.LAYERS}

    def embedding_params(self, dataset: str, task: str) -> dict:
        options = self.config.section("sentence_embedding")
        options["class_weight"] = self.config.aggregate.class_weight
        return {
            "options": options,
            "metric": self.config.metric(dataset, task),
            "version": versions.SENTENCE_EMBEDDING,
        }

    def path_params(self, dataset: str) -> dict:
        finest = self.config.tasks(dataset)[-1]
        metric = self.config.metric(dataset, finest)
        return {"metric": metric, "version": versions.PATH_PREDICTIONS}

    # Files

    def dataset_artifacts(self, dataset: str) -> dict[str, str]:
        folder = f"results/datasets/{dataset}"
        return {
            "texts": f"{folder}/texts.parquet",
            "labels": f"{folder}/labels.parquet",
            "manifest": f"{folder}/dataset.json",
        }

    def shard_names(self, model: str) -> list[str]:
        extract = self.config.extract
        return shard_names(self.shapes[model], extract.representations, extract.poolings)

    def layers(self, model: str, representation: str) -> list[int]:
        """Layers that are probed."""
        wanted = self.config.probe.layers
        every = layers_of(self.shapes[model], representation)
        return [layer for layer in every if wanted == "all" or layer in wanted]

    def names(self, model: str, representation: str, pooling: str) -> list[str]:
        """File names of the probed layers, the same for shards and probes."""
        shape = self.shapes[model]
        return [
            shard_name(shape, representation, pooling, layer)
            for layer in self.layers(model, representation)
        ]

    def chunks(self, model: str, representation: str) -> list[list[str]]:
        """File names of the probes of one job, `{pooling}` left open."""
        shape = self.shapes[model]
        names = [
            shard_name(shape, representation, "mean", layer).replace(".mean.", ".{pooling}.")
            for layer in self.layers(model, representation)
        ]
        size = self.config.probe.layers_per_job
        if size == "auto":
            # By the model alone, so that no other edit moves a probe to another job.
            size = max(1, _NEURONS_PER_JOB // (shape.width(representation) or 1024))
        return [names[i : i + size] for i in range(0, len(names), size)]

    def shards(self, dataset: str, model: str, sources: list[tuple[str, str]]) -> list[str]:
        """Shards of the probed layers."""
        folder = f"results/activations/{dataset}/{model}"
        return [f"{folder}/{name}" for r, p in sources for name in self.names(model, r, p)]

    def stored_shards(
        self, dataset: str, model: str, source: tuple[str, str] | None = None
    ) -> list[str]:
        """Shards of all layers, probed or not; of one (representation, pooling) or of all."""
        names = self.shard_names(model)
        if source:
            names = shard_names(self.shapes[model], [source[0]], [source[1]])
        return [f"results/activations/{dataset}/{model}/{name}" for name in names]

    def probes(self, dataset: str, task: str, model: str, sources: list) -> list[str]:
        folder = f"results/probes/{dataset}/{task}/{model}"
        return [f"{folder}/{name}" for r, p in sources for name in self.names(model, r, p)]

    def probed(self, model: str) -> list[tuple[str, str]]:
        """(representation, pooling) with at least one probed layer in this model."""
        return [(r, p) for r, p in self.config.probed() if self.layers(model, r)]

    def slugs(self, model: str) -> dict[str, list[tuple[str, str]]]:
        """What is aggregated: single (representation, pooling), then combinations."""
        single = {f"{r}.{p}": [(r, p)] for r, p in self.probed(model)}
        return single | self.config.combined()

    def representations(self, model: str) -> list[str]:
        return list(dict.fromkeys(r for r, _ in self.probed(model)))

    def tables(self, dataset: str, task: str, model: str, slug: str) -> list[str]:
        folder = f"results/neurons/{dataset}/{task}/{model}"
        return [f"{folder}/{r}.{p}.parquet" for r, p in self.slugs(model)[slug]]

    def grids(self, dataset: str, task: str, model: str) -> dict[str, str]:
        folder = f"results/aggregates/{dataset}/{task}/{model}"
        return {slug: f"{folder}/{slug}.parquet" for slug in self.slugs(model)}

    def embedding_shard(self, model: str) -> str | None:
        """File name of the mean-pooled last hidden state, None where it is not stored."""
        if ("hidden", "mean") not in self.config.stored():
            return None
        return shard_name(self.shapes[model], "hidden", "mean", self.shapes[model].layers)

    def cells(self) -> Iterator[tuple[str, str, str]]:
        """(dataset, task, model) of every result."""
        for dataset, model in self.pairs:
            for task in self.config.tasks(dataset):
                yield dataset, task, model

    def cell_artifacts(self, dataset: str, task: str, model: str) -> dict[str, str]:
        """Files of one cell by role; those of the baseline only where it can be computed."""
        scores = f"results/scores/{dataset}/{task}/{model}"
        files = {
            "layers": f"results/layers/{dataset}/{task}/{model}.parquet",
            "stc": f"{scores}/stc.json",
            "classifier": f"results/classifiers/{dataset}/{task}/{model}",
        }
        if self.embedding_shard(model):
            files["sentence_embedding"] = f"{scores}/sentence-embedding.json"
        return files

    def level_predictions(self, dataset: str, model: str, method: str) -> list[str]:
        """One method's predictions of every level of a hierarchy, coarse to fine."""
        levels = self.config.tasks(dataset)
        return [f"results/predictions/{dataset}/{level}/{model}/{method}.h5" for level in levels]

    def path_predictions(self, dataset: str, model: str) -> list[str]:
        """Predictions of whole paths through a hierarchy, a file per method; else none."""
        if len(self.config.tasks(dataset)) == 1:
            return []
        return [method["path"] for method in self.methods(dataset, PATH_TASK, model)]

    def figure_inputs(self, dataset: str, task: str, model: str) -> dict[str, str]:
        """Inputs of the figures by name."""
        files = self.cell_artifacts(dataset, task, model)
        inputs = {"layers": files["layers"], "scores": files["stc"]}
        if "sentence_embedding" in files:
            inputs["embedding"] = files["sentence_embedding"]
        return inputs

    def methods(self, dataset: str, task: str, model: str) -> list[dict]:
        """Methods of one cell and their predictions; the rest is compared with the first.

        `variant` is the summary's, None where the predictions say it themselves.
        """
        found = [
            ("stc", "selected", "stc"),
            ("stc", "smallest", "stc-smallest"),
            ("probe", None, "probe"),
            ("last-layer", None, "last-layer"),
        ]
        if self.embedding_shard(model):
            found.append(("sentence-embedding", "l2", "sentence-embedding"))
        folder = f"results/predictions/{dataset}/{task}/{model}"
        return [
            {"method": method, "variant": variant, "path": f"{folder}/{name}.h5"}
            for method, variant, name in found
        ]

    def comparison_entries(self) -> list[dict]:
        """What the comparisons read: an entry per cell, and one for the paths of a hierarchy."""
        entries = []
        for dataset, model in self.pairs:
            tasks = self.config.tasks(dataset)
            for task in [*tasks, *([PATH_TASK] if len(tasks) > 1 else [])]:
                names = {"dataset": dataset, "task": task, "model": model}
                files = {"folder": f"results/datasets/{dataset}", "methods": self.methods(**names)}
                entries.append(names | files)
        return entries

    def summary_entries(self) -> list[dict]:
        """What the summary reads: an entry per cell, and one for the paths of a hierarchy."""
        entries = []
        for dataset, model in self.pairs:
            entries += [
                self._cell_entry(dataset, task, model) for task in self.config.tasks(dataset)
            ]
            if self.path_predictions(dataset, model):
                methods = {"methods": self.methods(dataset, PATH_TASK, model)}
                entries.append(self._named_entry(dataset, PATH_TASK, model) | methods)
        return entries

    def _named_entry(self, dataset: str, task: str, model: str) -> dict:
        source = self.config.models[model].path
        return {"dataset": dataset, "task": task, "model": model, "source": source}

    def _cell_entry(self, dataset: str, task: str, model: str) -> dict:
        files = self.cell_artifacts(dataset, task, model)
        return {
            **self._named_entry(dataset, task, model),
            "layers": files["layers"],
            "stc": files["stc"],
            "sentence_embedding": files.get("sentence_embedding"),
            "grids": self.grids(dataset, task, model),
            "predictions": f"results/predictions/{dataset}/{task}/{model}",
        }


def _named(path: Path) -> str:
    """Name a file one way, however the configuration did: from here if it lies here.

    Snakemake runs a job again when a name among its inputs is new.
    """
    here = Path.cwd()
    absolute = Path(os.path.normpath(here / path))
    return str(absolute.relative_to(here) if absolute.is_relative_to(here) else absolute)


def load_plan(raw: dict, files: Iterable[str | os.PathLike] = ()) -> Plan:
    """Check a configuration as Snakemake hands it over and plan its run.

    Parameters
    ----------
    raw : dict
        The values, those of several files and of the command line merged.
    files : iterable of paths
        The files they came from.

    Raises
    ------
    ConfigError
        With all mistakes, one line each.
    """
    names = [_named(Path(file)) for file in files]
    config = validate(raw, source=" + ".join(names) or "config", files=names)
    if config.data_root:
        # Jobs find their files by it; in params it would rerun everything when data move.
        os.environ["PROBELINE_DATA_ROOT"] = str(Path(config.data_root).expanduser())
    return Plan(config)
