"""What the job of each rule needs, from what is known of its model and its texts when it starts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from probeline.activations.names import parse_name
from probeline.config import LABEL_TOKENS
from probeline.errors import ProbelineError
from probeline.models.reference import ModelShape, read_config, read_shape, resolve
from probeline.workflow import resources
from probeline.workflow.label_tokens import described
from probeline.workflow.plan import Plan
from probeline.workflow.resources import Need

# Where nothing is known yet: in a dry run, or of a hub model that the run will fetch.
_ROWS = 100_000
_CLASSES = 100
_MB_OF_TEXTS = 200
_VOCABULARY = 100_000
_WIDTH_PER_LAYER = 128
_TOKENS = 512


class Needs:
    """Needs of the jobs of a run: a method per kind of rule, with its wildcards as arguments.

    Snakemake asks when a job is about to start, so that the dataset is there; asked before, as in
    a dry run, they go by the configuration. Never a reason to run a job again.
    """

    def __init__(self, plan: Plan):
        self._plan = plan
        self._config = plan.config

    # What is known of texts and models

    def rows(self, dataset: str) -> int:
        """Texts of a dataset; before it is made, what the configuration allows at most."""
        manifest = _read(f"results/datasets/{dataset}/texts.json")
        if manifest:
            return manifest["rows"]
        most = self._config.dataset_spec(dataset)["max_texts"]
        if isinstance(most, int):
            return most
        known = [count for count in (most or {}).values() if count]
        return sum(known) if len(known) == 3 else max(_ROWS, *known, 0)

    def classes(self, dataset: str, task: str) -> int:
        """Labels of a task."""
        tasks = _read(f"results/datasets/{dataset}/dataset.json").get("tasks", {})
        return len(tasks[task]["labels"]) if task in tasks else _CLASSES

    def tokens(self, model: str) -> int:
        """The most tokens of a text."""
        spec = self._own_spec(model)
        most = self._shape(model).max_positions or _TOKENS
        return spec["max_length"] or min(_TOKENS, most)

    def parameters(self, model: str) -> int:
        """Parameters of a model, estimated from its shape."""
        shape = self._shape(model)
        width, ffn_width = self._widths(shape)
        layers = shape.layers + (shape.decoder_layers or 0)
        vocabulary = _vocabulary(self._own_spec(model)["path"])
        return resources.parameters_of(layers, width, ffn_width, vocabulary)

    def _own_spec(self, model: str) -> dict:
        origin = self._config.origin(model)
        return self._config.model_spec(origin.model if origin else model)

    def _shape(self, model: str) -> ModelShape:
        """As planned or, of a model that was fetched since, as it is."""
        shape = self._plan.shapes[model]
        return shape if shape.hidden_width else read_shape(self._own_spec(model))

    def _widths(self, shape: ModelShape) -> tuple[int, int]:
        width = shape.hidden_width or _WIDTH_PER_LAYER * shape.layers
        return width, shape.ffn_width or 4 * width

    def _width(self, model: str, representation: str) -> int:
        width, ffn_width = self._widths(self._shape(model))
        return ffn_width if representation.endswith("ffn") else width

    def _columns(self, model: str, names: Sequence[str]) -> list[int]:
        return [self._width(model, parse_name(Path(name).name)[0]) for name in names]

    def _gpu(self, model: str) -> bool:
        """Whether the model runs on the GPU that the job holds."""
        return self._own_spec(model)["device"] != "cpu"

    def _bytes(self, model: str) -> int:
        """Of a parameter."""
        return 2 if self._own_spec(model)["dtype"] in ("float16", "bfloat16") else 4

    # Of each rule

    def texts(self, dataset: str) -> Need:
        return resources.loading(self._plan.dataset_bytes(dataset) / 1e6 or _MB_OF_TEXTS)

    def card(self, dataset: str) -> Need:
        return resources.reading(self.rows(dataset), 1_000)

    def extract(self, dataset: str, model: str, **_: str) -> Need:
        """Of one job, which may share the work with others."""
        extract = self._config.extract
        parts = self._config.parts(dataset, model)
        rows = resources.largest_part(self.rows(dataset), parts, extract.block_texts)
        return resources.extraction(
            self.parameters(model),
            self._bytes(model),
            sum(self._columns(model, self._plan.shard_names(model))),
            2 if extract.storage_dtype == "float16" else 4,
            rows,
            self.tokens(model),
            extract.block_texts,
            self._gpu(model),
        )

    def finetune(self, dataset: str, task: str, model: str, **_: str) -> Need:
        return self._training(dataset, model, self._config.section("finetune"))

    def label_tokens(self, dataset: str, task: str, model: str, **_: str) -> Need:
        tokens = self._tokens_with_labels(dataset, task, model)
        return self._training(dataset, model, self._config.label_token_training(), tokens)

    def regular(self, dataset: str, task: str, model: str, **_: str) -> Need:
        return self._training(dataset, model, self._config.label_token_training())

    def label_attention(self, dataset: str, task: str, model: str, **_: str) -> Need:
        """A trained model, and what makes its shortlists, read some of the texts."""
        rows, section = self.rows(dataset), self._config.label_tokens
        labels, texts = self._labels_read(dataset, task), min(section.attention, rows)
        models = 1 if section.shortlist is None else 2
        parameters, tokens = models * self.parameters(model), self.tokens(model)
        read = self._tokens_with_labels(dataset, task, model)
        shape = self._shape(model)
        needs = [
            resources.scoring(parameters, 4, texts, read, self._gpu(model)),
            resources.attention(shape.layers, self._widths(shape)[0], tokens, labels, texts),
            # The dataset and the logits of all of it.
            resources.reading(rows, 1_000 + self.classes(dataset, task)),
        ]
        return resources.together(needs)

    def _labels_read(self, dataset: str, task: str) -> int:
        """Labels that are read of a text."""
        classes = self.classes(dataset, task)
        return min(self._config.label_tokens.shortlist or classes, classes)

    def _tokens_with_labels(self, dataset: str, task: str, model: str) -> int:
        """The most tokens that are read of a text: in each pass all of it and some labels."""
        labels = self._labels_read(dataset, task)
        passes = -(-labels // min(self._config.label_tokens.chunk or labels, labels))
        return passes * self.tokens(model) + labels

    def search(self, dataset: str, task: str, model: str, classifier: str, **_: str) -> Need:
        search = self._config.section("search")
        options = self._plan.training_of(classifier)
        epochs = search["space"].get("epochs") or options["epochs"]
        options["epochs"] = _largest(epochs)
        labelled = described(classifier)["method"] == LABEL_TOKENS
        tokens = self._tokens_with_labels(dataset, task, model) if labelled else None
        one = self._training(dataset, model, options, tokens)
        return resources.times(one, -(-search["trials"] // search["workers"]))

    def _training(self, dataset: str, model: str, options: dict, tokens: int | None = None) -> Need:
        """Of a text, `tokens` are read; by default those it may have itself."""
        return resources.training(
            self.parameters(model),
            self.rows(dataset),
            self.tokens(model) if tokens is None else tokens,
            options["epochs"],
            self._gpu(model),
            adapters=options["lora"] is not None,
        )

    def icl(self, dataset: str, task: str, model: str, **_: str) -> Need:
        icl = self._config.icl
        rows, most = self.rows(dataset), icl.max_texts.model_dump()
        asked = sum(rows if count is None else min(rows, count) for count in most.values())
        tokens = icl.context or self._shape(model).max_positions or 4 * _TOKENS
        size = self._bytes(model)
        return resources.scoring(self.parameters(model), size, asked, tokens, self._gpu(model))

    def zero_shot(self, dataset: str, task: str, model: str) -> Need:
        rows = self.classes(dataset, task) + self.rows(dataset) // 100
        size = self._bytes(model)
        return resources.scoring(
            self.parameters(model), size, rows, self.tokens(model), self._gpu(model)
        )

    def probes(
        self, dataset: str, task: str, model: str, names: Sequence[str], pooling: str
    ) -> Need:
        """Of one job on a CPU; `names` are those of its probes, the pooling in them left open."""
        widths = self._columns(model, [name.format(pooling=pooling) for name in names])
        return resources.probes(
            self.rows(dataset), widths, self.classes(dataset, task), self._steps()
        )

    def all_probes(self, dataset: str, task: str, model: str) -> Need:
        """Of a cell's probes together on a GPU."""
        names = self._plan.shards(dataset, model, self._plan.probed(model))
        widths = self._columns(model, names)
        return resources.batched_probes(
            self.rows(dataset), widths, self.classes(dataset, task), self._steps()
        )

    def _steps(self) -> int:
        probe = self._config.probe
        count = probe.path_length if probe.penalties == "auto" else len(probe.penalties)
        return count * (2 if probe.class_weight == "auto" else 1)

    def aggregate(self, dataset: str, task: str, model: str, slug: str) -> Need:
        sources = self._plan.slugs(model)[slug]
        columns = self._columns(model, self._plan.shards(dataset, model, sources))
        return resources.grid(
            self.rows(dataset), sum(columns), self.classes(dataset, task), self._points(columns)
        )

    def _points(self, columns: list[int]) -> int:
        aggregate = self._config.aggregate
        penalties = aggregate.penalties
        count = aggregate.path_length if penalties == "auto" else len(penalties)
        depths = len(columns) if aggregate.depths == "all" else len(aggregate.depths)
        weights = 2 if aggregate.class_weight == "auto" else 1
        etas = len(self._config.sparsify.etas)
        return count * depths * weights * etas * len(aggregate.l1_ratios)

    def classifier(self, dataset: str, task: str, model: str) -> Need:
        """One fit over the widest slug, and its features of all texts."""
        widest = max(
            (self._plan.shards(dataset, model, sources) for sources in self._slugs(model)), key=len
        )
        columns = sum(self._columns(model, widest))
        return resources.grid(self.rows(dataset), columns, self.classes(dataset, task), 10)

    def _slugs(self, model: str) -> list:
        return list(self._plan.slugs(model).values())

    def layers(self, dataset: str, task: str, model: str) -> Need:
        names = self._plan.shards(dataset, model, self._plan.probed(model))
        widths = self._columns(model, names)
        one = resources.reading(self.rows(dataset), max(widths))
        return resources.times(one, len(widths))

    def embedding(self, dataset: str, task: str, model: str) -> Need:
        """Logistic regressions on sentence embeddings."""
        width = self._width(model, "hidden")
        return resources.probes(self.rows(dataset), [width], self.classes(dataset, task), 20)

    def tfidf(self, dataset: str, task: str) -> Need:
        """Sparse counts, about 500 numbers of a text, some times over."""
        rows, classes = self.rows(dataset), self.classes(dataset, task)
        return resources.probes(rows, [1_000], classes, 40)

    def crossfit(self, dataset: str, task: str, model: str, source: str) -> Need:
        """The classifier fitted again for each fold."""
        if source == "tfidf":
            one = self.tfidf(dataset, task)
        elif source == "sentence-embedding":
            one = self.embedding(dataset, task, model)
        else:
            slugs = self._plan.slugs(model)
            one = max((self.aggregate(dataset, task, model, s) for s in slugs), key=_size)
        return resources.times(one, max(1, self._config.lrsl.crossfit))

    def predictions(self, dataset: str, task: str = "", **_: str) -> Need:
        """Predictions of one method are read and written again."""
        return resources.reading(self.rows(dataset), 2 * _CLASSES)

    def embed(self, dataset: str, task: str, **_: str) -> Need:
        lrsl = self._config.lrsl
        epochs = lrsl.tune.epochs if lrsl.tune else 1
        # A text, its label and another label.
        rows = 3 * self.rows(dataset) * (lrsl.triplets.per_text or 3)
        parameters, tokens = self._embedder_parameters(), lrsl.max_length or _TOKENS
        return resources.training(parameters, rows, tokens, epochs, gpu=True)

    def rerank(self, dataset: str, task: str, **_: str) -> Need:
        tokens = self._config.lrsl.max_length or _TOKENS
        rows = self.rows(dataset) + self.classes(dataset, task)
        return resources.scoring(self._embedder_parameters(), 4, 3 * rows, tokens, gpu=True)

    def ablations(self, dataset: str, task: str, **_: str) -> Need:
        return resources.times(self.rerank(dataset, task), 20)

    def _embedder_parameters(self) -> int:
        lrsl = self._config.lrsl
        shape = _embedder_shape(lrsl.embedder, lrsl.revision)
        width, ffn_width = self._widths(shape)
        vocabulary = _vocabulary(lrsl.embedder)
        return resources.parameters_of(shape.layers, width, ffn_width, vocabulary)

    def summary(self) -> Need:
        return self._tables(len(self._plan.summary_files()))

    def comparisons(self) -> Need:
        entries = self._plan.comparison_entries()
        return self._tables(sum(len(entry["methods"]) for entry in entries))

    def _tables(self, files: int) -> Need:
        rows = max(self.rows(dataset) for dataset in self._plan.datasets)
        classes = max(
            self.classes(dataset, task)
            for dataset in self._plan.datasets
            for task in self._config.tasks(dataset)
        )
        return resources.tables(rows, classes, files)


def _size(need: Need) -> tuple[float, float]:
    return need.mb, need.seconds


def _largest(epochs: float | list | dict) -> float:
    if isinstance(epochs, dict):
        return epochs["high"]
    return max(epochs) if isinstance(epochs, list) else epochs


def _read(path: str) -> dict:
    """A manifest; empty where there is none yet."""
    try:
        return _read_once(path, Path(path).stat().st_mtime_ns)
    except (OSError, ValueError):
        return {}


@cache
def _read_once(path: str, changed: int) -> dict:
    """Read once for all jobs that ask, until it changes."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


@cache
def _vocabulary(path: str) -> int:
    folder = _folder(path)
    try:
        found = read_config(folder, path).get("vocab_size") if folder else None
    except ProbelineError:
        found = None
    return found if isinstance(found, int) else _VOCABULARY


def _folder(path: str, revision: str | None = None) -> Path | None:
    """Folder of a model, None where it is not here yet."""
    try:
        return resolve(path, revision).folder
    except ProbelineError:
        return None


@cache
def _embedder_shape(path: str, revision: str | None) -> ModelShape:
    """Shape of an embedder; that of BERT base where it is not here, or is no single transformer."""
    try:
        return read_shape({"path": path, "revision": revision})
    except ProbelineError:
        return ModelShape(layers=12, hidden_width=768, ffn_width=3072)
