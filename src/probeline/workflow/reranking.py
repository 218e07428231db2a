"""What reranking makes and reads, and scores made elsewhere: names of files, parts of rules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from probeline import versions
from probeline.config import (
    CROSSFITTED,
    GIVEN,
    LABEL_TOKENS,
    NO_MODEL,
    PATH_TASK,
    REGULAR,
    SERIES,
    SOURCES,
    TRAINED_SOURCES,
)
from probeline.models.weights import sampled_hash
from probeline.workflow.artifacts import Artifacts
from probeline.workflow.label_tokens import described, series_name
from probeline.workflow.sources import named

LRSL = "lrsl"


class Classified(NamedTuple):
    """Predictions that are reranked.

    Attributes
    ----------
    dataset, task, model : str
        Of a method without a model, the name under which it has its results.
    method : str
        Such as finetune, or label-tokens-mix.
    name : str
        File name of the predictions, such as finetune-42.
    """

    dataset: str
    task: str
    model: str
    method: str
    name: str

    @property
    def place(self) -> str:
        return f"{self.dataset}/{self.task}/{self.model}"

    @property
    def folder(self) -> str:
        return f"results/lrsl/{self.place}/{self.name}"

    @property
    def predictions(self) -> str:
        return f"results/predictions/{self.place}/{self.name}.h5"

    @property
    def scores(self) -> str:
        return f"results/scores/{self.place}/{self.name}.json"


class Reranking(Artifacts):
    """Files of a run, those of reranking among them."""

    @property
    def reranking_seeds(self) -> list[int]:
        return self.config.seeds(self.config.lrsl)

    def given_names(self, dataset: str, task: str) -> list[str]:
        """Names of the scores made elsewhere of one task."""
        return [
            name
            for name, entry in self.config.scores.items()
            if entry.dataset == dataset and self.given_task(name) == task
        ]

    def given_task(self, name: str) -> str:
        entry = self.config.scores[name]
        return entry.task or self.config.tasks(entry.dataset)[0]

    def holders(self, dataset: str, task: str) -> list[str]:
        """Names that stand in the place of a model, beside the models."""
        names = [NO_MODEL] if "tfidf" in self.config.baselines else []
        return names + self.given_names(dataset, task)

    def classified(self, dataset: str, task: str, model: str) -> dict[str, list[Classified]]:
        """Predictions of one cell that are reranked, by method; a file for each seed."""
        asked = self.config.lrsl.sources
        return {
            method: [Classified(dataset, task, model, method, name) for name in names]
            for method, names in self._own_methods(dataset, task, model).items()
            if described(method)["method"] in asked
        }

    def _own_methods(self, dataset: str, task: str, model: str) -> dict[str, list[str]]:
        """Names of the predictions that lie in a cell's own folder, by method."""
        if model == NO_MODEL:
            return {"tfidf": ["tfidf"]}
        if model in self.config.scores:
            return {GIVEN: [GIVEN]}
        chosen = self.config.lrsl.models
        if chosen != "all" and model not in chosen:
            return {}
        found = {method: [method] for method in TRAINED_SOURCES}
        for method, files in self.baselines(dataset, task, model).items():
            # A fine-tuned model's own head is its source's.
            if method != "finetune" or self.config.origin(model) is None:
                found[method] = list(files.values())
        return found

    def reranked(self) -> Iterator[Classified]:
        """Every file of predictions that is reranked, whole paths apart."""
        for dataset, model in self.pairs:
            for task in self.config.tasks(dataset):
                yield from _flat(self.classified(dataset, task, model))
        for dataset in self.datasets:
            for task in self.config.tasks(dataset):
                for holder in self.holders(dataset, task):
                    yield from _flat(self.classified(dataset, task, holder))

    def reranked_artifacts(self) -> list[str]:
        """Files of all rerankings that nothing else asks for."""
        found = []
        for one in self.reranked():
            found.append(f"results/figures/{one.place}/lrsl-{one.name}.svg")
            found.append(f"{one.folder}/changes.csv")
            for seed in self.reranking_seeds:
                found.append(f"{one.folder}/examples/{seed}.csv")
                if self.config.lrsl.ablations:
                    found.append(f"{one.folder}/ablations/{seed}.csv")
        return found

    def reports(self, dataset: str, task: str, model: str, source: str) -> list[str]:
        """Reports of one file of predictions, one for each seed."""
        folder = f"results/lrsl/{dataset}/{task}/{model}/{source}"
        return [f"{folder}/report/{seed}.json" for seed in self.reranking_seeds]

    def full_curves(self, dataset: str, task: str, model: str, source: str) -> list[str]:
        """The ablations' curves of one file of predictions, one for each seed."""
        if not self.config.lrsl.ablations:
            return []
        folder = f"results/lrsl/{dataset}/{task}/{model}/{source}"
        return [f"{folder}/ablations/{seed}.json" for seed in self.reranking_seeds]

    # What stands in the summary and in the comparisons

    def methods(self, dataset: str, task: str, model: str) -> list[dict]:
        found = super().methods(dataset, task, model)
        found += [
            {
                "method": GIVEN,
                "variant": name,
                "paths": [f"results/predictions/{dataset}/{task}/{name}/{GIVEN}.h5"],
            }
            for name in self.given_names(dataset, task)
        ]
        return found + self.reranked_methods(dataset, task, model)

    def reranked_methods(self, dataset: str, task: str, model: str) -> list[dict]:
        """Rerankings of one cell, as `methods` names them, with the method they are of."""
        return [
            {
                "method": LRSL,
                "variant": None,
                "source": method,
                "paths": [run["predictions"] for run in self._reranked_runs(files)],
            }
            for method, files in self.classified(dataset, task, model).items()
        ]

    def all_paths(self) -> list[str]:
        found = super().all_paths()
        for dataset in self.datasets:
            if len(self.config.tasks(dataset)) > 1:
                for method in self.reranked_methods(dataset, PATH_TASK, NO_MODEL):
                    found += method["paths"]
        return list(dict.fromkeys(found))

    def reranked_baselines(self, dataset: str, task: str, model: str) -> list[dict]:
        """Scores and predictions of one cell's rerankings, for the summary."""
        return [
            {"method": LRSL, "source": method, "runs": self._reranked_runs(files)}
            for method, files in self.classified(dataset, task, model).items()
        ]

    def _reranked_runs(self, files: list[Classified]) -> list[dict]:
        return [
            {
                "seed": seed,
                "source": one.name,
                "scores": f"results/scores/{one.place}/{LRSL}-{one.name}-{seed}.json",
                "predictions": f"results/predictions/{one.place}/{LRSL}-{one.name}-{seed}.h5",
            }
            for one in files
            for seed in self.reranking_seeds
        ]

    def reranked_comparisons(self, dataset: str, task: str, model: str) -> list[list[dict]]:
        """Each reranking and what it reranks, where no other comparison has both."""
        reranked = self.reranked_methods(dataset, task, model)
        files = self.classified(dataset, task, model)
        return [
            [
                one,
                described(one["source"]) | {"variant": None, "paths": _paths(files[one["source"]])},
            ]
            for one in reranked
            if one["source"] != "stc"
        ]

    # What rules read and must know

    @property
    def source_patterns(self) -> list[str]:
        """Regular expressions of the file names of predictions that can be reranked."""
        found = [rf"{method}-\d+" for method in ("icl", "finetune", REGULAR)]
        found += [rf"{series_name(series)}-\d+" for series in SERIES]
        seeded = ("icl", "finetune", LABEL_TOKENS, REGULAR)
        return found + [one for one in SOURCES if one not in seeded]

    @property
    def embedder_inputs(self) -> list[str]:
        """Files of an embedder in a local folder."""
        if not self.config.lrsl.sources:
            return []
        return [named(path) for path in self.embedder_files("folder")]

    @property
    def embedder_pin(self) -> str | list:
        """The commit of the embedder that was brought into the cache."""
        return "results/lrsl/embedder.json" if self.embedder_is_fetched else []

    def crossfit_inputs(self, dataset: str, task: str, model: str, source: str) -> dict:
        """Files that a classifier is fitted again from, by the names of its function."""
        own = Classified(dataset, task, model, source, source)
        if source == "tfidf":
            return {"scores": own.scores}
        if source == "sentence-embedding":
            return {"shard": self.embedding_file(dataset, model), "scores": own.scores}
        probed = self.probed(model)
        layers = {
            "probes": self.probes(dataset, task, model, probed),
            "shards": self.shards(dataset, model, probed),
        }
        if source == "stc":
            grids = list(self.grids(dataset, task, model).values())
            return layers | {"grids": grids, "chosen": own.predictions}
        return layers | {"predictions": own.predictions}

    def crossfit_params(self, dataset: str, task: str, model: str, source: str) -> dict:
        needed = {"stc": ("aggregate", "probe"), "sentence-embedding": (), "tfidf": ("tfidf",)}
        options = {key: self.config.section(key) for key in needed.get(source, ("probe",))}
        # Which probes there are is said by the inputs.
        for key in ("layers", "layers_per_job", "poolings", "representations"):
            options.get("probe", {}).pop(key, None)
        inputs = {}
        if source == "stc":
            slugs = self.slugs(model)
            inputs["grids"] = self.grids(dataset, task, model)
            inputs["tables"] = {slug: self.tables(dataset, task, model, slug) for slug in slugs}
        return {
            "folds": self.config.lrsl.crossfit,
            "seed": self.config.seed,
            "inputs": inputs,
            "options": options,
            "metric": self.config.metric(dataset, task),
            "version": versions.CROSSFIT,
        }

    def crossfitted(self, dataset: str, task: str, model: str, source: str) -> str | list:
        """Logits of training texts by classifiers that have not seen them; else nothing."""
        if self.config.lrsl.crossfit == 0 or source not in CROSSFITTED:
            return []
        return f"results/lrsl/{dataset}/{task}/{model}/{source}/crossfit.h5"

    def triplets_params(self, dataset: str, task: str) -> dict:
        section = self.config.section(LRSL)
        deciding = ("triplets", "k", "hardness", "threshold", "temperature")
        options = {key: section[key] for key in deciding}
        if not section["triplets"]["hard_only"]:
            options = {"triplets": section["triplets"]}
        return {
            "options": options,
            **self._label_params(dataset, task),
            "seed": self.config.seed,
            "version": versions.TRIPLETS,
        }

    def tune_params(self, dataset: str, task: str) -> dict:
        return {
            "embedder": self.embedder_params(),
            "options": self.config.section(LRSL)["tune"],
            **self._label_params(dataset, task),
            "version": versions.TUNE,
        }

    def rerank_params(self, dataset: str, task: str) -> dict:
        return self._reranking_params(dataset, task) | {"version": versions.RERANK}

    def ablations_params(self, dataset: str, task: str) -> dict:
        return self._reranking_params(dataset, task) | {"version": versions.ABLATIONS}

    def _reranking_params(self, dataset: str, task: str) -> dict:
        options = self.config.section(LRSL)
        # What is reranked, and by which seeds, is said by the outputs; the embedding by the inputs.
        for key in (
            *("ablations", "crossfit", "embedder", "max_length", "models", "revision", "seeds"),
            *("sources", "template", "triplets"),
        ):
            options.pop(key)
        options["tune"] = options["tune"] is not None
        if not options["fixed"]:
            # All of them are tried.
            for key in ("forms", "powers", "weights"):
                options[key] = sorted(options[key])
        return {
            "embedder": self.embedder_params(),
            "options": options,
            **self._label_params(dataset, task),
        }

    def _label_params(self, dataset: str, task: str) -> dict:
        return {
            "label_texts": self.label_texts(dataset, task),
            "template": self.config.lrsl.template,
            "metric": self.config.metric(dataset, task),
        }

    def embedder_params(self) -> dict:
        lrsl = self.config.lrsl
        return {
            "path": lrsl.embedder,
            "revision": lrsl.revision,
            "max_length": lrsl.max_length,
            # A package lies elsewhere in every environment, so its files are no inputs.
            "package": sampled_hash(
                [*self.embedder_files("package"), *self.embedder_files("folder")]
            ),
        }

    def tuned(self, dataset: str, task: str, model: str, source: str, seed: str) -> str | list:
        """What says that a tuned embedding is whole; nothing where it is used as it comes."""
        if self.config.lrsl.tune is None:
            return []
        return f"results/lrsl/{dataset}/{task}/{model}/{source}/embedding/{seed}.json"

    def tuned_on_own(
        self, dataset: str, task: str, model: str, source: str, seed: str
    ) -> str | list:
        """As `tuned`, on the classifier's own logits of the texts it was trained on.

        Nothing where the other is that already.
        """
        if self.config.lrsl.tune is None or not self.crossfitted(dataset, task, model, source):
            return []
        return f"results/lrsl/{dataset}/{task}/{model}/{source}/own/embedding/{seed}.json"

    def given_params(self, name: str) -> dict:
        entry = self.config.scores[name]
        encodings = [entry.encoding] if isinstance(entry.encoding, str) else entry.encoding
        return {
            "kind": entry.kind,
            "text": entry.text,
            "row": entry.row,
            "encodings": encodings,
            "metric": self.config.metric(entry.dataset, self.given_task(name)),
            "version": versions.GIVEN,
        }


def _flat(files: dict[str, list[Classified]]) -> Iterator[Classified]:
    for own in files.values():
        yield from own


def _paths(files: list[Classified]) -> list[str]:
    return [one.predictions for one in files]
