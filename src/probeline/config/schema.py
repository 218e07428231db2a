"""The whole configuration. Every key, its kind, default and meaning stand here and nowhere else."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

from pydantic import Field

from probeline.config.comparing import (
    BASELINES,
    Baseline,
    Finetune,
    InContext,
    SentenceEmbedding,
    Tfidf,
    ZeroShot,
)
from probeline.config.entries import DatasetEntry, ModelEntry, Run
from probeline.config.kinds import (
    MEMBERS,
    SLUG,
    Closed,
    Member,
    Text,
    distinct,
    whole,
)
from probeline.config.label_tokens import LABEL_TOKENS, REGULAR, LabelTokens
from probeline.config.lrsl import Lrsl, ScoresEntry
from probeline.config.search import Search
from probeline.config.sections import Aggregate, Extract, Probe, Sparsify
from probeline.errors import ProbelineError, one_of

NAMES = {"propertyNames": {"pattern": f"^{SLUG}$"}}
DEFAULT_TASK = "label"

Pair = tuple[str, str]
# Keys of a model that say how it is made, not what it is.
ORIGIN = ("finetuned_from", "on", "task", "seed")


class Origin(NamedTuple):
    """One fine-tuning: of a model, on the train texts of a dataset, for one of its tasks."""

    dataset: str
    task: str
    model: str
    seed: int

    @property
    def folder(self) -> str:
        """Where the fine-tuned model is written."""
        return f"./results/finetuned/{self.dataset}/{self.task}/{self.model}/{self.seed}"


class Config(Closed):
    """A checked configuration. Made by `probeline.config.load` or `probeline.config.validate`."""

    seed: whole(0, 2**32 - 1) = Field(42, description="Seed of every random choice.")
    data_root: Text | None = Field(
        None,
        description="Folder at which relative paths of datasets start. null = the environment "
        "variable PROBELINE_DATA_ROOT, else the working directory.",
    )
    models: dict[str, ModelEntry] = Field(
        description="The models, each under a name of your own.",
        min_length=1,
        json_schema_extra=NAMES,
    )
    datasets: dict[str, DatasetEntry] = Field(
        description="The datasets, each under a name of your own.",
        min_length=1,
        json_schema_extra=NAMES,
    )
    runs: Annotated[list[Run], Field(min_length=1)] | None = Field(
        None, description="Which models run on which datasets. null = every model on every dataset."
    )
    extract: Extract = Field(default_factory=Extract, description="What is computed and stored.")
    probe: Probe = Field(default_factory=Probe, description="The probe of each stored layer.")
    sparsify: Sparsify = Field(
        default_factory=Sparsify, description="Which neurons of each layer are kept."
    )
    combinations: dict[str, distinct(Member, MEMBERS, minimum=2)] = Field(
        default={},
        description="Mixtures of `representation.pooling`, each under a name of your own, "
        "aggregated as one beside the single ones.",
        json_schema_extra={**NAMES, "examples": [{"mean-all": ["ffn.mean", "hidden.mean"]}]},
    )
    aggregate: Aggregate = Field(
        default_factory=Aggregate, description="The classifier over the kept neurons."
    )
    baselines: distinct(Baseline, BASELINES, minimum=0) = Field(
        default=["sentence-embedding", "tfidf"],
        description="Which baselines run: sentence-embedding, tfidf, zero-shot (similarity of "
        "label texts), icl (in-context learning), finetune, label-tokens, regular (the classifier "
        "of `finetune` with the settings of `label_tokens`). Each other has a section below.",
    )
    sentence_embedding: SentenceEmbedding = Field(
        default_factory=SentenceEmbedding, description="The sentence-embedding baseline."
    )
    tfidf: Tfidf = Field(default_factory=Tfidf, description="The TF-IDF baseline.")
    zero_shot: ZeroShot = Field(default_factory=ZeroShot, description="The zero-shot baseline.")
    icl: InContext = Field(default_factory=InContext, description="The in-context baseline.")
    finetune: Finetune = Field(
        default_factory=Finetune,
        description="How models are fine-tuned: the `finetune` baseline, and models that are "
        "`finetuned_from` another.",
    )
    label_tokens: LabelTokens = Field(
        default_factory=LabelTokens,
        description="Labels as tokens that read the text: the `label-tokens` baseline.",
    )
    search: Search = Field(
        default_factory=Search,
        description="Hyperparameters of trainings, searched by their validation scores.",
    )
    lrsl: Lrsl = Field(
        default_factory=Lrsl,
        description="Hard texts reranked by the meaning of their labels.",
    )
    scores: dict[str, ScoresEntry] = Field(
        default={},
        description="Scores that were made elsewhere, each under a name of your own, which is that "
        "of no model.",
        json_schema_extra=NAMES,
    )

    def pairs(self) -> list[Pair]:
        """Return the (dataset, model) pairs that run, in the configuration's order, each once."""
        if self.runs is None:
            return [
                (dataset, name)
                for dataset in self.datasets
                for name, model in self.models.items()
                # One that is fine-tuned here runs where it is trained.
                if model.finetuned_from is None or model.on == dataset
            ]
        found: dict[Pair, None] = {}
        for run in self.runs:
            # The name lists of a run are sorted; the order of the entries is the user's.
            for dataset in (name for name in self.datasets if name in names(run.dataset)):
                for model in (name for name in self.models if name in names(run.model)):
                    found[dataset, model] = None
        return list(found)

    def parts(self, dataset: str, model: str) -> int:
        """Return how many jobs share the extraction of a pair that runs."""
        return next(iter(self.said_parts(dataset, model).values()), self.extract.parts)

    def said_parts(self, dataset: str, model: str) -> dict[int, int]:
        """Return the `parts` that entries of `runs` say of a pair, by the entry's place."""
        return {
            place: run.parts
            for place, run in enumerate(self.runs or [])
            if run.parts is not None and dataset in names(run.dataset) and model in names(run.model)
        }

    def tasks(self, dataset: str) -> list[str]:
        """Return the dataset's tasks: ``label``, or the levels of its hierarchy, coarse to fine."""
        label = self._entry("datasets", dataset).label
        return list(label) if isinstance(label, list) else [DEFAULT_TASK]

    def metric(self, dataset: str, task: str) -> str | None:
        """Return the metric of a task; None = the data decide (accuracy, micro-f1 if multi-label).

        Raises
        ------
        ProbelineError
            If there is no such dataset or task.
        """
        if task not in self.tasks(dataset):
            raise ProbelineError(f"datasets.{dataset}: {one_of(task, self.tasks(dataset))}")
        metric = self._entry("datasets", dataset).metric
        return metric.get(task) if isinstance(metric, dict) else metric

    def stored(self) -> list[Pair]:
        """Return every (representation, pooling) that `extract` stores, in a fixed order."""
        return [(r, p) for r in self.extract.representations for p in self.extract.poolings]

    def stores_layer(self, layer: int) -> bool:
        """Whether `extract` stores this layer of the representations that have it."""
        return self.extract.layers == "all" or layer in self.extract.layers

    def probed(self) -> list[Pair]:
        """Return every (representation, pooling) that is probed, `all` resolved, in fixed order."""
        chosen = {
            key: getattr(self.extract if value == "all" else self.probe, key)
            for key in ("representations", "poolings")
            for value in [getattr(self.probe, key)]
        }
        return [(r, p) for r in chosen["representations"] for p in chosen["poolings"]]

    def probed_layers(self) -> list[int] | str:
        """Return the numbers of the layers that are probed, or "all"."""
        return self.extract.layers if self.probe.layers == "all" else self.probe.layers

    def combined(self) -> dict[str, list[Pair]]:
        """Return the (representation, pooling) members of each combination, by sorted name."""
        return {
            name: [tuple(member.split(".")) for member in self.combinations[name]]
            for name in sorted(self.combinations)
        }

    def model_spec(self, name: str) -> dict:
        """Return one model's settings as a plain sorted dict, defaults filled in.

        What says how a model is fine-tuned is left out: `path` is the folder it is written to, and
        what its entry leaves out is as in that of the model it is made from.
        """
        entry = self._entry("models", name)
        spec = entry.model_dump()
        if entry.finetuned_from is not None:
            given = {key: spec[key] for key in entry.model_fields_set}
            origin = self.origin(name)
            spec = self._entry("models", origin.model).model_dump() | given
            spec |= {"path": origin.folder, "revision": None, "tokenizer": None}
        for key in ORIGIN:
            spec.pop(key)
        return plain(spec)

    def origin(self, name: str) -> Origin | None:
        """Return what a model is fine-tuned from in this run; None for one that has a path."""
        entry = self._entry("models", name)
        if entry.finetuned_from is None:
            return None
        seed = self.seed if entry.seed is None else entry.seed
        return Origin(entry.on, entry.task or DEFAULT_TASK, entry.finetuned_from, seed)

    def compared_origins(self) -> list[Origin]:
        """Return the fine-tunings that are compared with, as a baseline."""
        if "finetune" not in self.baselines:
            return []
        return [
            Origin(dataset, task, model, seed)
            for dataset, model in self.pairs()
            if self.chosen(self.finetune.models, model)
            for task in self.tasks(dataset)
            for seed in self.seeds(self.finetune)
        ]

    def origins(self) -> list[Origin]:
        """Return every fine-tuning that the run asks for, as a baseline or as a model."""
        models = [self.origin(model) for _, model in self.pairs()]
        return list(dict.fromkeys([*self.compared_origins(), *filter(None, models)]))

    def reads_labels(self, model: str) -> bool:
        """Return whether a model is trained with labels as tokens."""
        return LABEL_TOKENS in self.baselines and self.chosen(self.label_tokens.models, model)

    def is_counterpart(self, model: str) -> bool:
        """Return whether a model is trained without label tokens, but as with them."""
        return REGULAR in self.baselines and self.chosen(self.label_tokens.models, model)

    def label_token_training(self) -> dict:
        """Return the section `finetune` with what `label_tokens.finetune` says otherwise."""
        own = self.label_tokens.finetune
        given = {} if own is None else own.model_dump(include=own.model_fields_set)
        return plain(self.section("finetune") | given)

    def seeds(self, section: Finetune | InContext | LabelTokens | Lrsl) -> list[int]:
        """Return the seeds of a section, the global one where it has none of its own."""
        return [self.seed] if section.seeds is None else section.seeds

    def chosen(self, models: str | list[str], model: str) -> bool:
        """Return whether `models` (all, or names) takes in a model; all = with a `path`."""
        if models == "all":
            return self._entry("models", model).finetuned_from is None
        return model in models

    def label_texts(self, dataset: str, task: str) -> dict | str:
        """Return the texts that are given for labels of a task, as lists, or the file of them."""
        given = self._entry("datasets", dataset).label_texts or {}
        if len(self.tasks(dataset)) > 1:
            given = given.get(task, {})
        if isinstance(given, str):
            return given
        return plain({label: names(texts) for label, texts in given.items()})

    def dataset_spec(self, name: str) -> dict:
        """Return one dataset's settings as a plain sorted dict, defaults filled in.

        Every key of `DatasetEntry` but `label_texts` is there whatever the loader. ``encoding`` is
        a list. ``splits.train`` of a hub dataset is filled in; of another it may be None: the file
        or folder at ``path``. A ``max_texts`` mapping holds only the splits that have a limit.
        """
        entry = self._entry("datasets", name).model_dump(exclude={"label_texts"})
        if isinstance(entry["encoding"], str):
            entry["encoding"] = [entry["encoding"]]
        if entry["loader"] == "hub" and entry["splits"]["train"] is None:
            entry["splits"]["train"] = "train"
        if isinstance(entry["max_texts"], dict):
            given = {split: n for split, n in entry["max_texts"].items() if n is not None}
            entry["max_texts"] = given or None
        return plain(entry)

    def section(self, name: str) -> Any:
        """Return a top-level section as plain JSON-like values, keys sorted, for job parameters.

        ``models`` and ``datasets`` hold what `model_spec` and `dataset_spec` return.
        """
        if name not in type(self).model_fields:
            raise ProbelineError(f"section {one_of(name, type(self).model_fields)}")
        if name == "models":
            return {key: self.model_spec(key) for key in sorted(self.models)}
        if name == "datasets":
            return {key: self.dataset_spec(key) for key in sorted(self.datasets)}
        return plain(self.model_dump(include={name})[name])

    def _entry(self, section: str, name: str) -> Any:
        entries = getattr(self, section)
        if name not in entries:
            raise ProbelineError(f"{section}: {one_of(name, entries)}")
        return entries[name]


def names(value: str | list[str]) -> list[str]:
    """Return a name or list of names as a list."""
    return [value] if isinstance(value, str) else value


def plain(value: Any) -> Any:
    """Return `value` with every mapping's keys sorted, those that are numbers by their value."""
    if isinstance(value, dict):
        return {key: plain(value[key]) for key in sorted(value, key=_natural)}
    return [plain(item) for item in value] if isinstance(value, list) else value


def _natural(key: str) -> tuple[bool, int, str]:
    digits = key.removeprefix("-")
    is_number = digits.isascii() and digits.isdigit()
    return (not is_number, int(key) if is_number else 0, key)
