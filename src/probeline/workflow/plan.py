"""What the workflow will make, from the configuration alone.

The Snakefile asks here while it is parsed, in every cluster job too: no torch, no data, no network.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from probeline import versions
from probeline.config import GIVEN, LABEL_TOKENS, NO_MODEL, PATH_TASK, REGULAR, validate
from probeline.data.paths import split_sources
from probeline.data.selection import is_drawn, selection
from probeline.finetune.options import ASIDE
from probeline.workflow.label_tokens import described
from probeline.workflow.reranking import Reranking
from probeline.workflow.sources import named


class Plan(Reranking):
    """Files of a run, and what each rule must know: a slice of the configuration.

    A slice holds what decides the rule's output and nothing else, since Snakemake runs a rule again
    when its parameters change.
    """

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
            "source": self.dataset_source(dataset),
            "version": versions.DATASET,
        }

    def texts_params(self, dataset: str) -> dict:
        """What decides the texts of a dataset, labels apart."""
        return selection(self.dataset_params(dataset)) | {"version": versions.TEXTS}

    def fetch_dataset_params(self, dataset: str) -> dict:
        """What is brought from the hub, whatever is then made of it."""
        spec = self.config.dataset_spec(dataset)
        splits = [name or "train" for name in split_sources(spec).values()]
        return {key: spec[key] for key in ("path", "config", "revision")} | {"splits": splits}

    def fetch_params(self, model: str) -> dict:
        return self._identity(model)

    def _identity(self, model: str) -> dict:
        """Which model it is, and nothing of how it is run."""
        spec = self.config.model_spec(model)
        return {key: spec[key] for key in ("path", "revision", "tokenizer", "trust_remote_code")}

    def extract_params(self, model: str, part: tuple[int, int] | None = None) -> dict:
        """`part` is (number, parts) of a job that shares the extraction with others."""
        spec = self.config.model_spec(model)
        spec.pop("layers", None)
        options = self.config.section("extract")
        # What is stored is said by the outputs: to store less is no reason to compute anew.
        for key in ("layers", "parts", "poolings", "representations"):
            options.pop(key)
        # Of one job alone nothing is said, as before there were parts.
        own = {} if part is None else {"part": list(part)}
        return own | {
            "model": model,
            "spec": spec,
            "options": options,
            # A package lies elsewhere in every environment, so its files are no inputs; those of a
            # folder may be replaced by others with an older time.
            "package": self.sample_of(model),
            # Nothing is random in a frozen body but where code of its own comes with it.
            "seed": self.config.seed if spec["trust_remote_code"] else 0,
            "version": versions.EXTRACT,
            "shard_format": versions.SHARD_FORMAT,
        }

    def part_params(self, dataset: str, model: str, wildcards) -> dict:
        """`extract_params` of one job."""
        parts = self.config.parts(dataset, model)
        part = None if parts == 1 else (int(wildcards.part), parts)
        return self.extract_params(model, part)

    def join_params(self, dataset: str, model: str) -> dict:
        return {"parts": self.config.parts(dataset, model), "version": versions.JOIN}

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

    def _scored(self, dataset: str, task: str, section: str, version: int) -> dict:
        return {
            "options": self.config.section(section),
            "metric": self.config.metric(dataset, task),
            "version": version,
        }

    def tfidf_params(self, dataset: str, task: str) -> dict:
        return self._scored(dataset, task, "tfidf", versions.TFIDF)

    def zero_shot_params(self, dataset: str, task: str, model: str) -> dict:
        return self._reading_params(dataset, task, model, "zero_shot", versions.ZERO_SHOT)

    def icl_params(self, dataset: str, task: str, model: str) -> dict:
        params = self._reading_params(dataset, task, model, "icl", versions.ICL)
        # Who is asked and by which seeds is said by the outputs.
        for key in ("models", "neighbours", "seeds"):
            params["options"].pop(key)
        return params

    def _reading_params(
        self, dataset: str, task: str, model: str, section: str, version: int
    ) -> dict:
        """Of what runs a model and reads the names of labels."""
        spec = self.config.model_spec(model)
        spec.pop("layers")
        params = self._scored(dataset, task, section, version)
        params["options"]["label_texts"] = self.label_texts(dataset, task)
        package = self.sample_of(model)
        return params | {"spec": spec, "package": package}

    def finetune_params(self, dataset: str, task: str, model: str) -> dict:
        spec = self.config.model_spec(model)
        # Weights are trained in float32, whatever the type that they are run in.
        for key in ("layers", "dtype"):
            spec.pop(key)
        params = self._scored(dataset, task, "finetune", versions.FINETUNE)
        options = params["options"]
        for key in ("models", "seeds", *ASIDE):
            options.pop(key)
        return params | {"spec": spec, "package": self.sample_of(model)}

    def finetune_aside(self) -> dict:
        """Options of a fine-tuning that leave its result as it is."""
        options = self.config.section("finetune")
        return {key: options[key] for key in ASIDE}

    def path_params(self, dataset: str) -> dict:
        finest = self.config.tasks(dataset)[-1]
        metric = self.config.metric(dataset, finest)
        return {"metric": metric, "version": versions.PATH_PREDICTIONS}

    def comparison_entries(self) -> list[dict]:
        """What the comparisons read: an entry per cell, and one for the paths of a hierarchy."""
        entries = []
        for dataset, model in self.pairs:
            tasks = self.config.tasks(dataset)
            for task in [*tasks, *([PATH_TASK] if len(tasks) > 1 else [])]:
                names = {"dataset": dataset, "task": task, "model": model}
                methods = self.methods(**names)
                together = [methods, *(some for some in _against_regular(methods) if some[1:])]
                for methods in [*together, *self.reranked_comparisons(**names)]:
                    entries.append(self._compared_entry(names, methods))
        for dataset in self.datasets:
            for task in self.config.tasks(dataset):
                for holder in self.holders(dataset, task):
                    names = {"dataset": dataset, "task": task, "model": holder}
                    for methods in self.reranked_comparisons(**names):
                        entries.append(self._compared_entry(names, methods))
        return entries

    def _compared_entry(self, names: dict, methods: list[dict]) -> dict:
        folder = f"results/datasets/{names['dataset']}"
        return names | {"folder": folder, "methods": methods}

    def summary_entries(self) -> list[dict]:
        """What the summary reads: an entry per cell, and one for the paths of a hierarchy.

        The baseline that reads no model and scores made elsewhere have entries of their own.
        """
        entries = []
        for dataset, model in self.pairs:
            entries += [
                self._cell_entry(dataset, task, model) for task in self.config.tasks(dataset)
            ]
            if self.path_predictions(dataset, model):
                entries.append(self._path_entry(dataset, model))
        if "tfidf" in self.config.baselines:
            for dataset in self.datasets:
                entries += [
                    self._held_entry(dataset, task, NO_MODEL, "tfidf")
                    for task in self.config.tasks(dataset)
                ]
                if len(self.config.tasks(dataset)) > 1:
                    entries.append(self._path_entry(dataset, NO_MODEL))
        for name, given in self.config.scores.items():
            entries.append(self._held_entry(given.dataset, self.given_task(name), name, GIVEN))
        return entries

    def _held_entry(self, dataset: str, task: str, holder: str, method: str) -> dict:
        """Of a method whose results stand under a name in the place of a model."""
        baselines = [self._runs(dataset, task, holder, method, {None: method})]
        baselines += self.reranked_baselines(dataset, task, holder)
        return self._named_entry(dataset, task, holder) | {"baselines": baselines}

    def _named_entry(self, dataset: str, task: str, model: str) -> dict:
        if model in self.config.scores:
            source = self.config.scores[model].path
        else:
            source = None if model == NO_MODEL else self.config.model_spec(model)["path"]
        return {"dataset": dataset, "task": task, "model": model, "source": source}

    def _path_entry(self, dataset: str, model: str) -> dict:
        if model == NO_MODEL:
            path = f"results/predictions/{dataset}/{PATH_TASK}/{NO_MODEL}/tfidf.h5"
            methods = [{"method": "tfidf", "variant": None, "paths": [path]}]
            methods += self.reranked_methods(dataset, PATH_TASK, NO_MODEL)
        else:
            methods = [
                method
                for method in self.methods(dataset, PATH_TASK, model)
                if method["method"] != "tfidf"
            ]
        return self._named_entry(dataset, PATH_TASK, model) | {"methods": methods}

    def _cell_entry(self, dataset: str, task: str, model: str) -> dict:
        files = self.cell_artifacts(dataset, task, model)
        return {
            **self._named_entry(dataset, task, model),
            "layers": files["layers"],
            "stc": files["stc"],
            "grids": self.grids(dataset, task, model),
            "predictions": f"results/predictions/{dataset}/{task}/{model}",
            "baselines": [
                self._runs(dataset, task, model, method, files)
                for method, files in self.baselines(dataset, task, model).items()
            ]
            + self.reranked_baselines(dataset, task, model),
        }

    def label_token_entries(self) -> list[dict]:
        """What the table of labels as tokens reads: each series of a cell, the regular one too."""
        found = []
        for dataset, task, model in self.cells():
            for methods in _against_regular(self.methods(dataset, task, model)):
                found += [self._series_entry(dataset, task, model, one) for one in methods]
        return found

    def _series_entry(self, dataset: str, task: str, model: str, method: dict) -> dict:
        scores = [
            path.replace("results/predictions/", "results/scores/", 1).removesuffix(".h5") + ".json"
            for path in method["paths"]
        ]
        return {
            **{"dataset": dataset, "task": task, "model": model},
            "method": method["method"],
            "series": method.get("series"),
            "scores": scores,
        }

    def _runs(self, dataset: str, task: str, model: str, method: str, files: dict) -> dict:
        """Scores and predictions of one baseline, for each of its seeds."""
        place = self._home(f"{dataset}/{task}/{model}", method, model)
        return {
            **described(method),
            "runs": [
                {
                    "seed": seed,
                    "scores": f"results/scores/{place}/{name}.json",
                    "predictions": f"results/predictions/{place}/{name}.h5",
                }
                for seed, name in files.items()
            ],
        }

    def summary_files(self) -> list[str]:
        """Scores and predictions of all baselines: inputs of the summary."""
        runs = [
            run
            for entry in self.summary_entries()
            for baseline in entry.get("baselines", [])
            for run in baseline["runs"]
        ]
        return list(dict.fromkeys(run[key] for run in runs for key in ("scores", "predictions")))


def _against_regular(methods: list[dict]) -> list[list[dict]]:
    """The regular classifier, then all with labels as tokens; nothing where these are missing.

    Without a regular one the first of the others is what they are compared with.
    """
    others = [method for method in methods if method["method"] == LABEL_TOKENS]
    for base in (REGULAR, "finetune"):
        first = [method for method in methods if method["method"] == base]
        if first and others:
            return [first + others]
    return [others] if others else []


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
    names = [named(Path(file)) for file in files]
    config = validate(raw, source=" + ".join(names) or "config", files=names)
    if config.data_root:
        # Jobs find their files by it; in params it would rerun everything when data move.
        os.environ["PROBELINE_DATA_ROOT"] = str(Path(config.data_root).expanduser())
    return Plan(config)
