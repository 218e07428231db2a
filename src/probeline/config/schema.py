"""The whole configuration. Every key, its kind, default and meaning stand here and nowhere else."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

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
from probeline.config.sections import Aggregate, Extract, Probe, SentenceEmbedding, Sparsify
from probeline.errors import ProbelineError, one_of

NAMES = {"propertyNames": {"pattern": f"^{SLUG}$"}}
DEFAULT_TASK = "label"

Pair = tuple[str, str]


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
    sentence_embedding: SentenceEmbedding = Field(
        default_factory=SentenceEmbedding, description="The sentence-embedding baseline."
    )

    def pairs(self) -> list[Pair]:
        """Return the (dataset, model) pairs that run, in the configuration's order, each once."""
        everything = (list(self.models), list(self.datasets))
        chosen = [(names(run.model), names(run.dataset)) for run in self.runs or []]
        found: dict[Pair, None] = {}
        for models, datasets in chosen or [everything]:
            # The name lists of a run are sorted; the order of the entries is the user's.
            for dataset in (name for name in self.datasets if name in datasets):
                for model in (name for name in self.models if name in models):
                    found[dataset, model] = None
        return list(found)

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

    def probed(self) -> list[Pair]:
        """Return every (representation, pooling) that is probed, `all` resolved, in fixed order."""
        chosen = {
            key: getattr(self.extract if value == "all" else self.probe, key)
            for key in ("representations", "poolings")
            for value in [getattr(self.probe, key)]
        }
        return [(r, p) for r in chosen["representations"] for p in chosen["poolings"]]

    def combined(self) -> dict[str, list[Pair]]:
        """Return the (representation, pooling) members of each combination, by sorted name."""
        return {
            name: [tuple(member.split(".")) for member in self.combinations[name]]
            for name in sorted(self.combinations)
        }

    def model_spec(self, name: str) -> dict:
        """Return one model's settings as a plain sorted dict, defaults filled in."""
        return plain(self._entry("models", name).model_dump())

    def dataset_spec(self, name: str) -> dict:
        """Return one dataset's settings as a plain sorted dict, defaults filled in.

        Every key of `DatasetEntry` is there whatever the loader. ``encoding`` is a list.
        ``splits.train`` of a hub dataset is filled in; of another it may be None: the file or
        folder at ``path``. A ``max_texts`` mapping holds only the splits that have a limit.
        """
        entry = self._entry("datasets", name).model_dump()
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
