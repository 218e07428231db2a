"""What a run reads: the models and data that a configuration names, found and checked."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from probeline.activations.names import check_layers, chosen_layers, layers_of, shard_names
from probeline.config import Config, Origin
from probeline.config.model_checks import embedding_readers
from probeline.data.hub import cached_snapshot
from probeline.data.label_text_file import read_label_texts
from probeline.data.paths import (
    local_folder,
    resolve_path,
    source_bytes,
    source_files,
    source_fingerprint,
)
from probeline.errors import ConfigError, ProbelineError
from probeline.files import refuse_special
from probeline.models.reference import ModelShape, ModelSource, read_shape, resolve
from probeline.models.weights import embedder_files, model_files, sampled_hash
from probeline.workflow.clock import refuse_future


class Sources:
    """Models and data of a run.

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
        self.origins = config.origins()
        self.compared = config.compared_origins()
        self.shapes: dict[str, ModelShape] = {}
        self._sources: dict[str, tuple[list[str], str | None]] = {}
        self._samples: dict[str, str] = {}
        self._folder_bytes: dict[str, int] = {}
        self._label_texts: dict[tuple[str, str], dict[str, list[str]]] = {}
        self._read_all()

    def _read_all(self) -> None:
        problems = []
        made_from = [origin.model for origin in self.origins if origin.model not in self.models]
        for model in [*self.models, *dict.fromkeys(made_from)]:
            try:
                self.shapes[model] = read_shape(self._own_spec(model))
                self._check_layers(model)
                self._check_model(model)
                refuse_future(self.files_of(model, "folder"))
            except ProbelineError as error:
                problems.append(f"models.{model}: {error}")
        trained_on = [origin.dataset for origin in self.origins]
        for dataset in dict.fromkeys([*self.datasets, *trained_on]):
            try:
                self._sources[dataset] = self._source(dataset)
                refuse_future(map(Path, self._sources[dataset][0]))
            except ProbelineError as error:
                problems.append(f"datasets.{dataset}: {error}")
        problems += self._label_problems() + self._given_problems() + self._embedder_problems()
        if problems:
            raise ConfigError(problems)

    def _label_problems(self) -> list[str]:
        """Read the files that give labels their texts; what is wrong with them."""
        problems = []
        for dataset in self.datasets:
            for task in self.config.tasks(dataset):
                given = self.config.label_texts(dataset, task)
                if isinstance(given, str):
                    try:
                        given = read_label_texts(resolve_path(given, self.data_root))
                    except ProbelineError as error:
                        problems.append(f"datasets.{dataset}.label_texts: {error}")
                        continue
                self._label_texts[dataset, task] = given
        return problems

    def _given_problems(self) -> list[str]:
        problems = []
        for name in self.config.scores:
            try:
                refuse_future([Path(self.given_file(name))])
            except ProbelineError as error:
                problems.append(f"scores.{name}.path: {error}")
        return problems

    def _embedder_problems(self) -> list[str]:
        if not self.config.lrsl.sources:
            return []
        try:
            files = self.embedder_files("folder")
            for path in files:
                input_name(path)
            refuse_future(files)
        except ProbelineError as error:
            return [f"lrsl.embedder: {error}"]
        return []

    def _check_layers(self, model: str) -> None:
        """Layers that a model does not have, or that are not stored but needed."""
        if model not in self.models:
            return
        shape, probed = self.shapes[model], self.config.probed()
        for section, pairs in (("extract", self.config.stored()), ("probe", probed)):
            layers = getattr(self.config, section).layers
            check_layers(shape, [r for r, _ in pairs], layers, f"{section}.layers")
        layers = self.config.probed_layers()
        if not any(chosen_layers(shape, r, layers) for r, _ in probed):
            names = " and ".join(dict.fromkeys(r for r, _ in probed))
            raise ProbelineError(f"extract.layers: leaves no layer of {names}, which is probed")
        self._check_last_layer(model)

    def _check_last_layer(self, model: str) -> None:
        """Embeddings of the texts are the last layer's."""
        last = self.shapes[model].layers
        if self.config.stores_layer(last):
            return
        icl = self.config.icl
        for path, reader in embedding_readers(self.config):
            if path == ("icl", "select"):
                neighbour = icl.neighbours == model
                if not neighbour and (icl.neighbours or not self.config.chosen(icl.models, model)):
                    continue
            raise ProbelineError(
                f"extract.layers: {reader} ({'.'.join(path)}) reads the last layer; add {last}, or "
                f"leave {reader} out there"
            )

    def _check_model(self, model: str) -> None:
        """What would otherwise end the first job, or the parsing, of this model."""
        shape = self.shapes[model]
        self.shard_names(model)
        for path in self.files_of(model, "folder"):
            input_name(path)
        length, most = self.config.model_spec(model)["max_length"], shape.max_positions
        if length and most and length > most:
            raise ProbelineError(
                f"max_length: {length} is above the model's {most} positions; set it to "
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
        files = [input_name(path) for path in source_files(spec, self.data_root)]
        if files or self.dataset_is_fetched(dataset):
            return files, None
        return [], source_fingerprint(spec, self.data_root)

    def shard_names(self, model: str) -> list[str]:
        """File names of all shards of a model."""
        extract = self.config.extract
        chosen = extract.representations, extract.poolings, extract.layers
        return shard_names(self.shapes[model], *chosen)

    def dataset_files(self, dataset: str) -> list[str]:
        """Files a dataset is read from; none for the hub and for folders."""
        return self._sources[dataset][0]

    def dataset_bytes(self, dataset: str) -> int:
        """Size of the files a dataset is read from; 0 of one on the hub that is not here yet."""
        spec, files = self.config.dataset_spec(dataset), self.dataset_files(dataset)
        if files:
            return _bytes_of(map(Path, files))
        if self.dataset_is_fetched(dataset):
            snapshot = cached_snapshot(spec["path"], spec["revision"])
            return _bytes_of(snapshot.rglob("*")) if snapshot else 0
        # Snakemake asks often, and such a folder may hold a million files.
        if dataset not in self._folder_bytes:
            self._folder_bytes[dataset] = source_bytes(spec, self.data_root)
        return self._folder_bytes[dataset]

    def dataset_is_fetched(self, dataset: str) -> bool:
        """Whether a dataset comes from the hub."""
        spec = self.config.dataset_spec(dataset)
        return spec["loader"] == "hub" and local_folder(spec, self.data_root) is None

    def dataset_source(self, dataset: str) -> str | None:
        """What stands for the files of a folder, which are too many to name; else None."""
        return self._sources[dataset][1]

    def label_texts(self, dataset: str, task: str) -> dict[str, list[str]]:
        """Texts that are given for labels of a task, in the configuration or a file."""
        return self._label_texts[dataset, task]

    def given_file(self, name: str) -> str:
        """File of scores that were made elsewhere."""
        path = resolve_path(self.config.scores[name].path, self.data_root)
        refuse_special(path)
        if not path.is_file():
            raise ProbelineError(f"{path}: no such file")
        return input_name(path)

    def _embedder(self) -> ModelSource:
        return resolve(self.config.lrsl.embedder, self.config.lrsl.revision)

    def embedder_files(self, kind: str) -> list[Path]:
        """Files of the embedder in a source of one kind: "folder" or "package"."""
        source = self._embedder()
        return embedder_files(source.folder) if source.kind == kind else []

    @property
    def embedder_is_fetched(self) -> bool:
        return bool(self.config.lrsl.sources) and self._embedder().kind == "hub"

    def _own_spec(self, model: str) -> dict:
        """Settings of a model with a path: itself, or the one that it is fine-tuned from."""
        origin = self.config.origin(model)
        return self.config.model_spec(origin.model if origin else model)

    def model_files(self, model: str) -> list[str]:
        """Files that a model in a local folder is known by: activations depend on them."""
        origin = self.config.origin(model)
        if origin is not None:
            return [identity_file(origin)]
        return [str(path) for path in self.files_of(model, "folder")]

    def cached(self, model: str) -> str | bool:
        """What the `cache` directive of a model's extraction says.

        What is trained here has other weights elsewhere, and `dtype: auto` another type.
        """
        if (
            self.config.origin(model) is not None
            or self.config.model_spec(model)["dtype"] == "auto"
        ):
            return False
        return "omit-software"

    def files_of(self, model: str, kind: str) -> list[Path]:
        """Files of a model and its tokenizer in sources of one kind: "folder" or "package".

        None of a model that is fine-tuned in this run, whose folder may not exist yet.
        """
        if self.config.origin(model) is not None:
            return []
        folders = dict.fromkeys(s.folder for s in self._model_sources(model) if s.kind == kind)
        return [path for folder in folders for path in model_files(folder)]

    def sample_of(self, model: str) -> str:
        """What changes with the files of a model that lie here, whatever their times say."""
        # Asked for by the parameters of every job of the model.
        if model not in self._samples:
            kinds = ("package", "folder")
            paths = [path for kind in kinds for path in self.files_of(model, kind)]
            self._samples[model] = sampled_hash(paths)
        return self._samples[model]

    def is_fetched(self, model: str) -> bool:
        """Whether the weights or the tokenizer come from a hub."""
        if self.config.origin(model) is not None:
            return False
        return any(source.kind == "hub" for source in self._model_sources(model))

    def _model_sources(self, model: str) -> list[ModelSource]:
        spec = self.config.model_spec(model)
        sources = [resolve(spec["path"], spec["revision"])]
        return [*sources, resolve(spec["tokenizer"])] if spec["tokenizer"] else sources


def _bytes_of(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())


def identity_file(origin: Origin) -> str:
    """What changes with the weights of a model that is fine-tuned in this run."""
    return f"results/finetuned/{origin.dataset}/{origin.task}/{origin.model}/{origin.seed}.json"


def input_name(path: Path) -> str:
    """Name a file as an input of a rule.

    Raises
    ------
    ProbelineError
        If Snakemake would take a part of the name for a wildcard.
    """
    name = named(path)
    if "{" in name or "}" in name:
        raise ProbelineError(
            f"{name}: Snakemake takes braces in the names of files for wildcards; rename it"
        )
    return name


def named(path: Path) -> str:
    """Name a file one way, however the configuration did: from here if it lies here.

    Snakemake runs a job again when a name among its inputs is new.
    """
    here = Path.cwd()
    absolute = Path(os.path.normpath(here / path))
    return str(absolute.relative_to(here) if absolute.is_relative_to(here) else absolute)
