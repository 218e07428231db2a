"""What a hyperparameter search makes and reads: names of files, parts of rules."""

from __future__ import annotations

from probeline import versions
from probeline.config import LABEL_TOKENS
from probeline.finetune.options import ASIDE
from probeline.workflow.label_tokens import LabelTokenRuns, described, series_name


class Searches(LabelTokenRuns):
    """Studies of a run."""

    def studies(self) -> list[tuple[str, str, str, str]]:
        """(dataset, task, model, classifier) of each study; see `searched_names`."""
        return [
            (dataset, task, model, name)
            for dataset, model in self.pairs
            if self.config.chosen(self.config.search.models, model)
            for task in self.config.tasks(dataset)
            for name in self.searched_names()
        ]

    def searched_names(self) -> list[str]:
        """What is searched for: `finetune`, or a series of runs with labels as tokens."""
        found = []
        for classifier in self.config.search.classifiers:
            if classifier == LABEL_TOKENS:
                found += [series_name(series) for series in self.label_token_series]
            else:
                found.append(classifier)
        return found

    def search_artifacts(self) -> list[str]:
        """Files of all searches that nothing else asks for."""
        found = []
        for dataset, task, model, name in self.studies():
            found.append(f"results/search/{dataset}/{task}/{model}/{name}/best.yaml")
            found.append(f"results/figures/{dataset}/{task}/{model}/search-{name}.svg")
        return found

    def search_workers(self, dataset: str, task: str, model: str, classifier: str) -> list[str]:
        folder = f"results/search/{dataset}/{task}/{model}/{classifier}"
        return [f"{folder}/worker-{number}.json" for number in range(self.config.search.workers)]

    def search_first_stage(
        self, dataset: str, task: str, model: str, classifier: str
    ) -> dict[str, str]:
        """As `first_stage`; none for a classifier whose labels are no tokens."""
        labelled = described(classifier)["method"] == LABEL_TOKENS
        return self.first_stage(dataset, task, model) if labelled else {}

    def search_params(self, dataset: str, task: str, model: str, classifier: str) -> dict:
        spec = self.config.model_spec(model)
        # Weights are trained in float32, whatever the type that they are run in.
        for key in ("layers", "dtype"):
            spec.pop(key)
        section = self.config.section("search")
        # What is searched is said by the outputs, how many share it by `search_aside`.
        for key in ("classifiers", "models", "workers"):
            section.pop(key)
        if section["seed"] is None:
            section["seed"] = self.config.seed
        options, more = self._trained(dataset, task, model, classifier)
        tried = {name for name, values in section["space"].items() if values is not None}
        for key in {"models", "seeds", *ASIDE, *tried}:
            options.pop(key)
        return {
            "spec": spec,
            "package": self.sample_of(model),
            "search": section,
            "options": options,
            "metric": self.config.metric(dataset, task),
            "version": versions.SEARCH,
            "finetune_version": versions.FINETUNE,
            **more,
        }

    def _trained(self, dataset: str, task: str, model: str, classifier: str) -> tuple[dict, dict]:
        """The training's settings, and what else decides the classifier."""
        series = described(classifier).get("series")
        if series is None:
            return self.training_of(classifier), {}
        params = self.label_token_params(dataset, task, model, series)
        more = {
            "label_tokens": params["label_tokens"],
            "label_tokens_version": versions.LABEL_TOKENS,
        }
        return self.training_of(classifier), more

    def training_of(self, classifier: str) -> dict:
        """The settings of the training that a study starts from."""
        labelled = described(classifier)["method"] == LABEL_TOKENS
        return self.config.label_token_training() if labelled else self.config.section("finetune")

    def search_aside(self, classifier: str) -> dict:
        """What leaves every trial as it is."""
        options = self.training_of(classifier)
        found = {key: options[key] for key in ASIDE}
        return {"options": found, "workers": self.config.search.workers}
